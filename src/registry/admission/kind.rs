//! What a file is that is called a model and is none: what downloads, clones and exports leave behind in its place.

/// Says what `bytes` are and what to do, where their beginning tells; otherwise what a reader said of them.
pub(super) fn in_words(bytes: &[u8], error: &str) -> String {
    let what = recognised(bytes).map(str::to_owned);
    let what = what.unwrap_or_else(|| format!("it may have been cut short ({error})"));
    format!("not an ONNX model: {what}")
}

fn recognised(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(256)];
    let text = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
    if bytes.is_empty() {
        return Some("the file is empty");
    }
    if text.starts_with("version https://git-lfs.github.com/") {
        return Some("it is a Git LFS pointer, which stands for the file: run `git lfs pull`");
    }
    if ["<!doctype", "<html", "<head", "<?xml", "<body"].iter().any(|tag| text.starts_with(tag)) {
        return Some("it is an HTML or XML page, as a download that went wrong leaves it: download it again");
    }
    let archives: [(&[u8], &str); 6] = [
        (b"PK\x03\x04", "it is a zip archive, as PyTorch and Keras save models: export it to ONNX, or unpack it"),
        (b"\x1f\x8b", "it is compressed with gzip: unpack it"),
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it"),
        (b"\x89HDF", "it is an HDF5 file, as Keras saves models: export it to ONNX"),
        (b"ORTM", "it is in ONNX Runtime's own format: put the ONNX file that it was made of here"),
        (b"GGUF", "it is a GGUF file: export it to ONNX"),
    ];
    if let Some((_, what)) = archives.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(what);
    }
    if start.get(4..8) == Some(b"ORTM") {
        return Some("it is in ONNX Runtime's own format: put the ONNX file that it was made of here");
    }
    if matches!(start, [0x80, 2..=5, ..]) {
        return Some("it is a Python pickle: export the model to ONNX");
    }
    (text.starts_with('{') || text.starts_with('[')).then_some("it is JSON: export the model to ONNX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_models_place_is_recognised() {
        let cases: [(&[u8], &str); 9] = [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", "git lfs pull"),
            (b"\n <!DOCTYPE html><html>", "HTML"),
            (b"<?xml version='1.0'?><Error>", "download it again"),
            (b"PK\x03\x04....", "zip"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x80\x04\x95", "pickle"),
            (b"{\"learner\": {}}", "JSON"),
            (b"\x20\0\0\0ORTM", "own format"),
            (b"", "empty"),
        ];
        for (bytes, words) in cases {
            let said = in_words(bytes, "x");
            assert!(said.starts_with("not an ONNX model: ") && said.contains(words), "{said}");
        }
        assert_eq!(in_words(b"\x08\x08", "no end"), "not an ONNX model: it may have been cut short (no end)");
    }
}
