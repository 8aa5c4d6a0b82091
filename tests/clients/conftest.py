"""The gateway that the client tests talk to: the real binary, on free ports, with a state of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TIDEGATE_BINARY", ROOT / "target/release/tidegate")).absolute()
START = 60  # seconds until a gateway must be ready
STOP = 60  # seconds until it must be gone after SIGTERM


class Gateway:
    """A running gateway. The planes are 'host:port' strings."""

    root = ROOT

    def __init__(self, process, addresses, log):
        self.pid = process.pid
        self.http = addresses["http"]
        self.grpc = addresses["grpc"]
        self.metrics = addresses["metrics"]
        self.admin = addresses["admin"]
        self._log = log

    def log(self):
        return self._log.read_text(encoding="utf-8", errors="replace")

    def cli(self, *arguments, **variables):
        """Runs `tidegate` as an operator of this gateway."""
        return run_binary(*arguments, TIDEGATE_ADMIN_URL=f"http://{self.admin}", **variables)

    def infer(self, model, request, version=None):
        """The answer to one v2 infer request: the status and the decoded body."""
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        body = json.dumps(request).encode()
        headers = {"Content-Type": "application/json"}
        return call(urllib.request.Request(f"http://{self.http}{path}", body, headers, method="POST"))


def call(request):
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def environment(**variables):
    """Ours, without what would configure the gateway or its CLI from outside the test."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    ours.pop("USER", None)  # the default of --actor
    return ours | variables


def runtime_library():
    """ONNX Runtime, for commands that run elsewhere than in the repository's root."""
    given = os.environ.get("ORT_DYLIB_PATH")
    fetched = sorted((ROOT / ".artifacts/onnxruntime").glob("libonnxruntime.*"))
    return given or str(fetched[0]) if given or fetched else ""


def run_binary(*arguments, **variables):
    command = [BINARY, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


@contextlib.contextmanager
def running(directory, *options, models="models"):
    """Runs `tidegate serve` from the repository root until the block ends, and sees that it stops cleanly."""
    if not BINARY.exists():
        pytest.fail(f"{BINARY} does not exist: run `make build` first")
    directory.mkdir(parents=True, exist_ok=True)
    addresses, log = directory / "addresses.json", directory / "log"
    command = [BINARY, "serve", "--models", models, "--state", directory / "state", "--addresses-file", addresses]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*map(str, command), *options],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        gateway = Gateway(process, wait_until_ready(process, addresses, log), log)
        yield gateway
        stop(process, gateway)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_until_ready(process, addresses, log):
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the gateway ended with exit code {process.returncode} before it was ready:\n{log.read_text()}")
        with contextlib.suppress(OSError, ValueError):
            bound = json.loads(addresses.read_text())
            with urllib.request.urlopen(f"http://{bound['http']}/v2/health/ready", timeout=5) as answer:
                if answer.status == 200:
                    return bound
        time.sleep(0.05)
    pytest.fail(f"the gateway was not ready within {START} s:\n{log.read_text()}")


def stop(process, gateway):
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOP)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the gateway still runs {STOP} s after SIGTERM:\n{gateway.log()}")
    assert code == 0, f"the gateway ended with exit code {code} after SIGTERM:\n{gateway.log()}"


ANY_PORT = [word for plane in ("http", "grpc", "metrics", "admin") for word in (f"--{plane}", "127.0.0.1:0")]


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    """One gateway on models/ for every test that changes nothing."""
    with running(tmp_path_factory.mktemp("gateway"), *ANY_PORT) as gateway:
        yield gateway


@pytest.fixture
def fresh_gateway(tmp_path):
    """Starts a gateway of the test's own, on models/ or on `models_dir`."""
    with contextlib.ExitStack() as stack:
        count = iter(range(1, 100))

        def start(models_dir=None):
            directory = tmp_path / f"gateway-{next(count)}"
            return stack.enter_context(running(directory, *ANY_PORT, models=models_dir or "models"))

        yield start


@pytest.fixture
def models_copy(tmp_path):
    """A copy of models/ that the test may break."""
    return Path(shutil.copytree(ROOT / "models", tmp_path / "models"))


def golden_files():
    """Every golden request as a pytest parameter: (model, version, its content)."""
    for path in sorted((ROOT / "models").glob("*/*/golden/*.json")):
        model, version, _, name = path.relative_to(ROOT / "models").parts
        content = json.loads(path.read_text(encoding="utf-8"))
        yield pytest.param(model, version, content, id=f"{model}-{version}-{Path(name).stem}")
