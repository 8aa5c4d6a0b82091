//! The real binary, on free ports, with a repository and a state of its own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tidegate::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;

/// Nothing here should take longer; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A repository in a temporary directory.
pub struct Repository {
    root: tempfile::TempDir,
}

impl Repository {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("models")).unwrap();
        Self { root }
    }

    pub fn models(&self) -> PathBuf {
        self.root.path().join("models")
    }

    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn version(&self, model: &str, version: u64) -> PathBuf {
        self.models().join(model).join(version.to_string())
    }

    /// Publishes a version as operators are told to: written beside, renamed into place.
    pub fn add(&self, model: &str, version: u64, onnx: &[u8]) -> PathBuf {
        self.add_files(model, version, &[("model.onnx", onnx)])
    }

    pub fn add_files(&self, model: &str, version: u64, files: &[(&str, &[u8])]) -> PathBuf {
        let target = self.version(model, version);
        let temporary = self.root.path().join(format!("publishing-{model}-{version}"));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::create_dir_all(&temporary).unwrap();
        for (name, bytes) in files {
            let file = temporary.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        fs::rename(&temporary, &target).unwrap();
        target
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.models().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Where the planes listen.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub metrics: SocketAddr,
    pub admin: SocketAddr,
}

/// A running gateway. Dropping it kills it.
pub struct Gateway {
    child: Child,
    pub addresses: Addresses,
    log: PathBuf,
}

/// The command that starts a gateway on `repository`, on free ports.
pub fn command(repository: &Repository) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("serve")
        .arg("--models")
        .arg(repository.models())
        .arg("--state")
        .arg(repository.state())
        .args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
        .args(["--metrics", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .env("TIDEGATE_REPOSITORY__SETTLE", "100ms")
        .env("TIDEGATE_REPOSITORY__POLL_INTERVAL", "1s")
        .env("TIDEGATE_TELEMETRY__LOG_FORMAT", "json")
        .stdin(Stdio::null());
    command
}

impl Gateway {
    pub fn start(repository: &Repository) -> Self {
        Self::start_with(repository, |command| command)
    }

    /// Starts a gateway and waits until it is ready.
    pub fn start_with(repository: &Repository, adjust: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let gateway = Self::launch(repository, adjust);
        gateway.wait("readiness", || (gateway.get("/v2/health/ready").0 == 200).then_some(()));
        gateway
    }

    /// Starts a gateway and waits until it listens.
    pub fn launch(repository: &Repository, adjust: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let file = repository.path().join("addresses.json");
        let _ = fs::remove_file(&file);
        let log = repository.path().join("log");
        let mut command = command(repository);
        command.arg("--addresses-file").arg(&file).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let child = adjust(&mut command).spawn().unwrap();
        let mut gateway = Self { child, addresses: unbound(), log };
        let addresses: Value = gateway
            .wait("the addresses file", || fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()));
        let address = |plane: &str| addresses[plane].as_str().unwrap().parse().unwrap();
        gateway.addresses = Addresses {
            http: address("http"),
            grpc: address("grpc"),
            metrics: address("metrics"),
            admin: address("admin"),
        };
        gateway
    }

    /// Starts a gateway that cannot serve all that is released, and waits until it says so.
    pub fn start_unready(repository: &Repository) -> Self {
        let gateway = Self::launch(repository, |command| command);
        gateway.wait("the gateway to say what it cannot serve", || {
            let (status, answer) = request("GET", gateway.addresses.metrics, "/readyz", None);
            let is_told = answer["error"].as_str().is_some_and(|error| error.contains("cannot be served"));
            (status == 503 && is_told).then_some(())
        });
        gateway
    }

    /// Asks again until there is an answer.
    pub fn wait<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(started.elapsed() < PATIENCE, "waited for {what} in vain; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        request("GET", self.addresses.http, path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        request("POST", self.addresses.http, path, Some(body.to_string().as_bytes()))
    }

    pub fn post_bytes(&self, path: &str, body: &[u8]) -> (u16, Value) {
        request("POST", self.addresses.http, path, Some(body))
    }

    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let body = body.map(ToString::to_string);
        request(method, self.addresses.admin, path, body.as_deref().map(str::as_bytes))
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.addresses.metrics);
        ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// The value of one sample of `/metrics`, whose labels all stand in `labels`.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        sample(&self.metrics(), name, labels)
    }

    /// The sum of all samples of a metric whose labels all stand in `labels`.
    pub fn metric_sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        samples(&self.metrics(), name, labels).sum()
    }

    /// What the protocol's statistics tell of a model with one version.
    pub fn statistics(&self, model: &str) -> Value {
        let (status, answer) = self.get(&format!("/v2/models/{model}/stats"));
        assert_eq!(status, 200, "{answer}");
        answer["model_stats"][0].clone()
    }

    /// How the runs of a model's version happen.
    pub fn runs(&self, model: &str, version: u64) -> Value {
        let (_, answer) = self.admin("GET", &format!("/admin/v1/models/{model}"), None);
        let versions = answer["versions"].as_array().unwrap();
        versions.iter().find(|entry| entry["version"] == version).unwrap()["runs"].clone()
    }

    /// `y` of the `add` model: tells which version answered.
    pub fn run_add(&self, path: &str, x: f64) -> (u16, Value) {
        let input = serde_json::json!({"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]});
        self.post(path, &serde_json::json!({"inputs": [input]}))
    }

    /// What the admin plane says of a version; null when it has none.
    pub fn version_status(&self, model: &str, version: u64) -> Value {
        let (_, answer) = self.admin("GET", &format!("/admin/v1/models/{model}"), None);
        let versions = answer["versions"].as_array().cloned().unwrap_or_default();
        versions.into_iter().find(|entry| entry["version"] == version).unwrap_or_default()
    }

    pub fn version_state(&self, model: &str, version: u64) -> (String, String) {
        let found = self.version_status(model, version);
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("reason"))
    }

    /// Waits until a version is in a state, and says its reason.
    pub fn wait_for_state(&self, model: &str, version: u64, state: &str) -> String {
        self.wait(&format!("{model} {version} to be {state}"), || {
            let (found, reason) = self.version_state(model, version);
            (found == state).then_some(reason)
        })
    }

    /// Runs an operator command of the real program: its exit code, what it printed, and what it said on stderr.
    pub fn cli(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let done = self.cli_command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    }

    pub fn cli_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).arg("--admin-url").arg(format!("http://{}", self.addresses.admin));
        command.stdin(Stdio::null());
        command
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub async fn patient_client(&self) -> GrpcInferenceServiceClient<Patient> {
        let stream = tokio::net::TcpStream::connect(self.addresses.grpc).await.unwrap();
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let origin = format!("http://{}", self.addresses.grpc).parse().unwrap();
        GrpcInferenceServiceClient::with_origin(Patient(send), origin)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and says its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("did not stop; the log:\n{}", self.log());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The connection of a client that says `grpc-timeout` and leaves keeping it to the gateway: tonic's own channel
/// would end the call by itself.
#[derive(Clone)]
pub struct Patient(hyper::client::conn::http2::SendRequest<tonic::body::Body>);

impl tower_service::Service<http::Request<tonic::body::Body>> for Patient {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn unbound() -> Addresses {
    let none = SocketAddr::from(([127, 0, 0, 1], 0));
    Addresses { http: none, grpc: none, metrics: none, admin: none }
}

/// One HTTP request: its status and its JSON (null when the body is none).
pub fn request(method: &str, address: SocketAddr, path: &str, body: Option<&[u8]>) -> (u16, Value) {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    let request = ureq::http::Request::builder().method(method).uri(format!("http://{address}{path}"));
    let answer = match body {
        Some(body) => agent.run(request.header("content-type", "application/json").body(body.to_vec()).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    };
    let Ok(mut answer) = answer else { return (0, Value::Null) };
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// The value of one sample in the Prometheus text format.
pub fn sample(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    samples(text, name, labels).next()
}

fn samples(text: &str, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
    text.lines()
        .filter(move |line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")))
        .filter(move |line| labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\""))))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
}

/// Says that a test could not be made here, past the test runner, which hides what tests print.
pub fn skipped(what: &str) {
    use std::io::Write;
    std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes()).unwrap();
}
