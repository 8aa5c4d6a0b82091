//! Compiles `proto/` with protox, a protobuf compiler in Rust: no `protoc` is needed.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    name_the_build();
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["open_inference.proto", "tidegate_admin.proto", "onnx.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // What gRPC reflection answers with.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Tensor bytes stay slices of the received message.
        .bytes(".inference")
        // Weights are not copied when a model is read.
        .extern_path(".onnx.TensorProto", "crate::proto::tensor::TensorProto")
        .compile_fds(descriptors)?;
    Ok(())
}

/// For `tidegate --version`: the target, and in release builds the commit, where this is a checkout of its own. Debug builds
/// do without: each commit would compile everything again.
fn name_the_build() {
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=TIDEGATE_TARGET={target}");
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    // A tarball that was unpacked inside another repository has none of its commits.
    let is_ours = git(&["rev-parse", "--show-prefix"]).is_some_and(|prefix| prefix.is_empty());
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]).filter(|_| is_ours) else { return };
    println!("cargo::rustc-env=TIDEGATE_COMMIT={commit}");
    // Written at each commit and each checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::path::Path::new(&log).is_file()
    {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// What git prints, run where this file is; `None` where it fails or is not there.
fn git(arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
