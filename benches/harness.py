"""What the end-to-end benches share: building, preparing, starting pinned processes, load tools.

Python's standard library only; `h2load` and `wrk` make the load (Debian: nghttp2-client, wrk)."""

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
OUT = TARGET / "bench"
REQUESTS = OUT / "requests"
# Cores 0 and 1, or those of `BENCH_CORES`, as "4,6": on a larger machine, two that share nothing.
SERVER_CORE, LOAD_CORE = os.environ.get("BENCH_CORES", "0,1").split(",")
PATIENCE = 60  # seconds
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
BINARY_HEADER = "Inference-Header-Content-Length"
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Why there is no figure."""


def say(text):
    print(text, file=sys.stderr, flush=True)


# === building and preparing ===


class Programs:
    """The gateway and the rig, and how to call them."""

    def __init__(self, gateway, rig):
        self.gateway, self.rig = Path(gateway).absolute(), Path(rig).absolute()
        for program in (self.gateway, self.rig):
            if not program.exists():
                raise BenchError(f"{program} does not exist: leave out --no-build, or run `make build`")

    def rig_output(self, *arguments, core=None):
        command = [*pinned(core), str(self.rig), *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(command)} failed")
        return done.stdout


def add_build_arguments(parser):
    parser.add_argument("--gateway", help="the gateway's binary [default: the release build of this checkout]")
    parser.add_argument("--rig", help="the bench rig [default: the release build of this checkout]")
    parser.add_argument("--no-build", action="store_true", help="take the binaries as they are")
    parser.add_argument("--nice", action="store_true", help="go before other processes (needs root)")


def programs(arguments):
    """Builds what is to be measured, unless told not to."""
    if arguments.nice:
        go_first()
    cargo = os.environ.get("CARGO", "cargo")
    if not arguments.no_build:
        what = ([] if arguments.gateway else ["--bin", "tidegate"]) + ([] if arguments.rig else ["--example", "bench_rig"])
        if what:
            subprocess.run([cargo, "build", "--release", "--locked", "--quiet", *what], cwd=ROOT, check=True)
    release = TARGET / "release"
    return Programs(arguments.gateway or release / "tidegate", arguments.rig or release / "examples/bench_rig")


def go_first():
    """Before other processes, and (where Linux groups processes by session) before other sessions."""
    os.nice(-15)
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/autogroup").write_text("-15")


def prepare(programs, big=False):
    """Writes models and requests, and the profile that puts `tiny` under the drift monitor."""
    programs.rig_output("prepare", OUT, *(["--big"] if big else []))
    command = [str(programs.gateway), "profile", str(OUT / "models/tiny/1"), "--data", str(OUT / "reference.csv")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise BenchError(f"tidegate profile failed: {done.stderr}")


def environment(**variables):
    """Ours, without what would configure the gateway from outside the bench."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    return ours | variables


def need_tools():
    """`h2load` and `wrk`, installed if that can be done without asking."""
    missing = [package for tool, package in (("h2load", "nghttp2-client"), ("wrk", "wrk")) if not shutil.which(tool)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise BenchError(f"install {' and '.join(missing)} first")
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([*sudo, "apt-get", "-qq", "update"], **quiet)
    install = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "install", "-y", "--no-install-recommends"]
    subprocess.run([*install, *missing], **quiet)


def pinned(core):
    return [] if core is None else ["taskset", "-c", core]


# === servers ===


class Server:
    """A running process on the servers' core."""

    def __init__(self, process):
        self.process = process

    @property
    def pid(self):
        return self.process.pid

    def memory(self):
        """Resident and proportional memory in MiB, and the highest resident one so far."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        status = Path(f"/proc/{self.pid}/status").read_text()
        kib = {
            name: int(re.search(rf"^{key}:\s+(\d+) kB", text, re.M)[1])
            for name, key, text in (("rss", "Rss", rollup), ("pss", "Pss", rollup), ("peak_rss", "VmHWM", status))
        }
        return {name: round(value / 1024, 1) for name, value in kib.items()}

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class Echo(Server):
    """A bare server: `grpc` or `http` at `address`."""

    def __init__(self, process):
        super().__init__(process)
        self.address = process.stdout.readline().strip()


class Gateway(Server):
    """A gateway and its planes, as 'host:port'."""

    def __init__(self, process, directory):
        super().__init__(process)
        self.log = directory / "log"
        addresses = directory / "addresses.json"
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, ValueError):
                bound = json.loads(addresses.read_text())
                with urllib.request.urlopen(f"http://{bound['http']}/v2/health/ready", timeout=5) as answer:
                    if answer.status == 200:
                        break
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the gateway did not become ready; its log:\n{self.log.read_text()}")
            time.sleep(0.05)
        self.http, self.grpc = bound["http"], bound["grpc"]
        self.metrics_address, self.admin = bound["metrics"], bound["admin"]

    def requests(self):
        """How many requests had which outcome so far, by the label `code`."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        counts = {}
        for labels, value in re.findall(r"^tidegate_requests_total\{(.*)\} (\S+)$", text, re.M):
            code = re.search(r'code="([^"]*)"', labels)[1]
            counts[code] = counts.get(code, 0) + int(float(value))
        return counts

    def post(self, path):
        """An admin request; its status and its JSON."""
        request = urllib.request.Request(f"http://{self.admin}{path}", b"", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)

    def read(self, path):
        """What the data plane answers, as text."""
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=PATIENCE) as answer:
            return answer.read().decode()

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=PATIENCE) as answer:
            return json.load(answer)


@contextlib.contextmanager
def stopped_at_the_end(process):
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def echo(programs, kind, answer):
    command = [*pinned(SERVER_CORE), str(programs.rig), "echo", kind, str(answer)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    with stopped_at_the_end(process):
        yield Echo(process)


@contextlib.contextmanager
def gateway(programs, models=OUT / "models", core=SERVER_CORE, **variables):
    """A gateway with its defaults, on free ports, with a state of its own."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        directory = Path(directory)
        command = [*pinned(core), str(programs.gateway), "serve", "--models", str(models)]
        command += ["--state", str(directory / "state"), "--addresses-file", str(directory / "addresses.json")]
        for plane in ("http", "grpc", "metrics", "admin"):
            command += [f"--{plane}", "127.0.0.1:0"]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(**variables), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        with stopped_at_the_end(process):
            yield Gateway(process, directory)


# === load ===


class Load:
    """What a load tool saw."""

    def __init__(self, seconds, answered, failed, latencies_us=None, answer_bytes=None):
        self.seconds, self.answered, self.failed = seconds, answered, failed
        self.latencies_us, self.answer_bytes = latencies_us or {}, answer_bytes

    @property
    def rate(self):
        return self.answered / self.seconds


def load(protocol, address, model, connections, streams, seconds, with_latencies=False):
    """Closed-loop load: `connections` × `streams` requests at once, for so many seconds."""
    run = h2load if protocol == "grpc" else wrk
    return run(protocol, address, model, connections, streams, seconds, with_latencies)


def h2load(protocol, address, model, connections, streams, seconds, with_latencies):
    with tempfile.NamedTemporaryFile() as log:
        command = [*pinned(LOAD_CORE), "h2load", "-t", "1", "-c", str(connections), "-m", str(streams)]
        command += ["-D", f"{round(seconds * 1000)}ms", "-d", str(REQUESTS / f"{model}.grpc")]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        if with_latencies:
            command += ["--log-file", log.name]
        command.append(f"http://{address}{GRPC_PATH}")
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + PATIENCE)
        text = done.stdout
        requests = re.search(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text, re.M)
        if done.returncode != 0 or not requests:
            raise BenchError(f"{' '.join(command)} failed:\n{text}")
        succeeded, *bad = map(int, requests.groups())
        data = int(re.search(r"\((\d+)\) data$", text, re.M)[1])
        latencies = percentiles([int(line.split("\t")[2]) for line in log.read().decode().splitlines()])
    # Requests in flight at the end are not counted, neither as answered nor as failed.
    return Load(seconds, succeeded, sum(bad), latencies, data / succeeded if succeeded else None)


def wrk(protocol, address, model, connections, streams, seconds, _):
    if streams != 1:
        raise BenchError("HTTP/1.1 has one request at a time on a connection")
    headers = {"Content-Type": "application/json"}
    if protocol == "binary":
        length = (REQUESTS / f"{model}.binary.length").read_text()
        headers = {"Content-Type": "application/octet-stream", BINARY_HEADER: length}
    command = [*pinned(LOAD_CORE), "wrk", "-t", "1", "-c", str(connections), "-d", "1s", "--timeout", "30s"]
    command += ["-s", str(ROOT / "benches/post.lua"), f"http://{address}/v2/models/{model}/infer"]
    command[command.index("1s")] = f"{max(1, round(seconds))}s"  # wrk takes whole seconds
    variables = environment(BENCH_BODY=str(REQUESTS / f"{model}.{protocol}"))
    for number, (name, value) in enumerate(headers.items(), 1):
        variables |= {f"BENCH_HEADER_{number}": name, f"BENCH_VALUE_{number}": value}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + PATIENCE)
    found = re.search(r"^BENCH (\{.*\})$", done.stdout, re.M)
    if done.returncode != 0 or not found:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stdout}")
    seen = json.loads(found[1])
    latencies = {"p50": seen["p50_us"], "p99": seen["p99_us"]}
    return Load(seen["seconds"], seen["requests"] - seen["not_ok"], seen["not_ok"] + seen["broken"], latencies)


def percentiles(values):
    if not values:
        return None
    values.sort()
    return {name: values[min(len(values) - 1, int(len(values) * share))] for name, share in (("p50", 0.5), ("p99", 0.99))}


class Watch:
    """Who used the two cores while a load ran. `others` is the share of the servers' core that went to other
    processes: 0 is a quiet machine. A load tool that is busy all the time hides what the server can do."""

    def __init__(self, server, servers):
        self.server, self.servers = server, servers

    def __enter__(self):
        self.started = time.monotonic()
        self.before = self._now()
        return self

    def __exit__(self, *_):
        wall = time.monotonic() - self.started
        used = [after - before for before, after in zip(self.before, self._now())]
        serving, all_serving, loading, server_core = (seconds / wall for seconds in used)
        self.shares = {"others": max(0.0, server_core - all_serving), "server_busy": serving, "load_busy": loading}

    def _now(self):
        every = sum(server.cpu_seconds() for server in self.servers)
        return self.server.cpu_seconds(), every, children(), core_seconds(SERVER_CORE)


def core_seconds(core):
    """How long a core has been busy."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _, _, _, _, steal = map(int, line.split()[1:9])
    return (user + nice + system + steal) / TICKS


def children():
    """CPU time of the load tools so far."""
    times = os.times()
    return times.children_user + times.children_system


def median(values):
    return statistics.median(values)
