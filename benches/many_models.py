#!/usr/bin/env python3
"""How a gateway lives with more than a thousand models: ready time, memory, idle processor time.

The repository is made of ONNX's own backend node tests, as far as plain ONNX Runtime passes them and the protocol
has their types: about 1,380 models. Each figure is printed beside its limit; nothing fails here, since timings on a
shared machine prove nothing by themselves. What is no timing is asserted by tests/clients/test_onnx_nodes.py.

    .venv/bin/python benches/many_models.py [--all] [--idle SECONDS] [--gateway PATH] [--cores 0,1]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "clients"))

import onnx_nodes  # noqa: E402

PATIENCE = 300  # seconds until the gateway must be ready
READY_LIMIT, MEMORY_LIMIT, IDLE_LIMIT = 20, 400, 0.5  # s, MB, % of a core (which rounds to 0 %)


def main():
    options = arguments()
    cases = onnx_nodes.cases()
    if not options.all:
        cases = [case for case in cases if onnx_nodes.plain(case) == "passes"]
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory) / "models"
        onnx_nodes.write_repository(models, cases)
        print(f"{len(cases)} models, cores {options.cores}")
        for start in ("first start", "second start"):  # the first one promotes every model, on disk
            measure(start, options, models, Path(directory))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every case, those that cannot be served included")
    parser.add_argument("--idle", type=float, default=30, metavar="SECONDS", help="how long to watch it idle (30)")
    parser.add_argument("--gateway", type=Path, default=ROOT / "target/release/tidegate", metavar="PATH")
    parser.add_argument("--cores", default="0,1", help="the cores that the gateway may use (0,1)")
    return parser.parse_args()


def measure(title, options, models, directory):
    addresses = directory / "addresses.json"
    addresses.unlink(missing_ok=True)
    ports = [word for plane in ("http", "grpc", "metrics", "admin") for word in (f"--{plane}", "127.0.0.1:0")]
    command = [options.gateway, "serve", "--models", models, "--state", directory / "state", *ports]
    started = time.monotonic()
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", options.cores, *map(str, command), "--addresses-file", str(addresses)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until_ready(process, addresses, started)
        ready, busy = time.monotonic() - started, processor_time(process.pid)
        memory, threads = status(process.pid, "VmRSS") * 1024 / 1e6, status(process.pid, "Threads")
        time.sleep(3)
        before = processor_time(process.pid)
        time.sleep(options.idle)
        idle = (processor_time(process.pid) - before) / options.idle * 100
        print(f"{title}:")
        print(f"  ready     {ready:7.2f} s   (limit {READY_LIMIT} s); {busy:.2f} s of processor time")
        print(f"  memory    {memory:7.0f} MB  (limit {MEMORY_LIMIT} MB); {threads} threads")
        print(f"  idle      {idle:7.2f} %   (limit {IDLE_LIMIT} %) of a core, over {options.idle:.0f} s", flush=True)
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(process, addresses, started):
    while time.monotonic() - started < PATIENCE:
        if process.poll() is not None:
            sys.exit(f"the gateway ended with exit code {process.returncode}")
        try:
            bound = json.loads(addresses.read_text(encoding="utf-8"))
            with urllib.request.urlopen(f"http://{bound['http']}/v2/health/ready", timeout=5):
                return
        except (OSError, ValueError):  # not there yet, or not ready yet
            time.sleep(0.02)
    sys.exit(f"the gateway was not ready within {PATIENCE} s")


def processor_time(pid):
    """User and system time of a process so far, in seconds."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def status(pid, key):
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
