//! What the gateway says once it listens, and once it is ready.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context, Result};

use crate::registry::{Registry, VersionState};

/// Where the planes listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Addresses {
    /// Writes them as JSON, all at once: a reader sees the whole file or none.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let json = serde_json::json!({
            "http": reachable(self.http).to_string(),
            "grpc": reachable(self.grpc).to_string(),
            "metrics": reachable(self.metrics).to_string(),
            "admin": reachable(self.admin).to_string(),
        });
        let temporary = file.with_extension("tmp");
        fs::write(&temporary, format!("{json}\n"))
            .and_then(|()| fs::rename(&temporary, file))
            .with_context(|| format!("cannot write the addresses file {}", file.display()))
    }
}

/// An address that a client on this machine can connect to: a wildcard becomes loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Tells the operator what is served, where, and what to try; or why it is not (`unready`).
pub(super) fn say_ready(
    registry: &Registry,
    models: &Path,
    runtime: &str,
    addresses: Addresses,
    unready: Option<&str>,
) {
    let statuses = registry.models();
    let count =
        |state| statuses.iter().flat_map(|model| &model.versions).filter(|version| version.state == state).count();
    let (ready, failed) = (count(VersionState::Ready), count(VersionState::Failed));
    match unready {
        None => tracing::info!(models = statuses.len(), ready, failed, onnxruntime = runtime, "ready"),
        Some(why) => tracing::error!(models = statuses.len(), ready, failed, onnxruntime = runtime, why, "not ready"),
    }
    let head = unready.map_or_else(|| "tidegate is ready".to_owned(), |why| format!("tidegate is NOT ready, {why}"));
    let http = reachable(addresses.http);
    let mut text = format!(
        "\n{head}: {ready} versions of {} models from {}{}\n\n  HTTP     http://{http}\n  gRPC     {}\n  metrics  http://{}/metrics\n  admin    http://{}\n",
        statuses.len(),
        models.display(),
        if failed > 0 { format!(" ({failed} failed: see `tidegate models`)") } else { String::new() },
        reachable(addresses.grpc),
        reachable(addresses.metrics),
        reachable(addresses.admin),
    );
    if let Some(warning) = registry.state_disk().warning() {
        text += &format!("\nWarning: {warning}\n");
    }
    if unready.is_some() {
        text += "\n`tidegate models` and `tidegate status MODEL` say why. A model that is gone on purpose: `tidegate forget MODEL`.\n";
        eprintln!("{text}");
        return;
    }
    if statuses.is_empty() {
        text += &format!(
            "\nThere is no model yet: a directory {}/NAME/1 with a model.onnx is loaded once it is there.\n",
            models.display()
        );
    }
    let example = models.join("car_loan/request.json");
    if example.is_file() && statuses.iter().any(|model| model.name.as_str() == "car_loan") {
        text += &format!("\nTry:\n  curl -s http://{http}/v2/models/car_loan/infer -d @{}\n", example.display());
    } else if let Some(model) = statuses.iter().find(|model| model.release.stable.is_some()) {
        text += &format!("\nTry:\n  curl -s http://{http}/v2/models/{}\n", model.name);
    }
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_is_told_as_loopback() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
