#!/usr/bin/env python3
"""What requests of one model feel while a 90 MB model loads and warms.

    python3 benches/load_interference.py [--rounds 5] [--rate 500] [--model tiny]

An open loop offers `tiny` at a fixed rate. In turns, nothing else happens for a while, and then the 90 MB model is
loaded and unloaded again and again. p99 of the requests is compared within each round; the median of the rounds counts.
The gateway has one core, or both with --cores 0,1; the load tool has its own, the second one. It writes
load_interference.json to target/bench/.
"""

import argparse
import json
import shutil
import statistics
import sys
import threading
import time

import harness
from harness import OUT, REQUESTS, BenchError, say

REACH = 1.2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=500, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10, help="length of each part")
    parser.add_argument("--model", default="tiny", choices=["tiny", "mlp", "cnn"], help="the model that is asked")
    parser.add_argument("--cores", default=harness.SERVER_CORE, help="the cores of the gateway")
    harness.add_build_arguments(parser)
    arguments = parser.parse_args()
    try:
        programs = harness.programs(arguments)
        harness.prepare(programs, big=True)
        found = interference(arguments, programs)
    except BenchError as error:
        sys.exit(f"error: {error}")
    (OUT / "load_interference.json").write_text(json.dumps(found, indent=1) + "\n")


def interference(arguments, programs):
    repository = OUT / "interference"
    for version in ("1", "2"):  # the release keeps the second; the first comes and goes
        shutil.copytree(OUT / "big/big/1", repository / "big" / version, dirs_exist_ok=True)
    shutil.copytree(OUT / "models" / arguments.model, repository / arguments.model, dirs_exist_ok=True)
    rounds = []
    with harness.gateway(programs, models=repository, core=arguments.cores) as gateway:
        unload(gateway)
        offer(arguments, programs, gateway)  # warm
        for _ in range(arguments.rounds):
            quiet = offer(arguments, programs, gateway)
            with Loads(gateway) as loads:
                busy = offer(arguments, programs, gateway)
            if not loads.seconds:
                raise BenchError(f"the big model was not loaded once within {arguments.seconds} s")
            load = statistics.median(loads.seconds)
            rounds.append({"quiet": quiet, "busy": busy, "loads": len(loads.seconds), "load_s": load})
            rounds[-1]["ratio"] = busy["p99_ms"] / quiet["p99_ms"]
            say(
                f"p50 {quiet['p50_ms']:.3f} → {busy['p50_ms']:.3f} ms, p99 {quiet['p99_ms']:.3f} → {busy['p99_ms']:.3f} ms "
                f"during {len(loads.seconds)} loads of {load:.2f} s: {rounds[-1]['ratio']:.2f} ×"
            )
    ratio = statistics.median(entry["ratio"] for entry in rounds)
    verdict = "reached" if ratio < REACH else "not reached"
    print(f"p99 while a 90 MB model loads and warms: {ratio:.2f} × that without (reach < {REACH}: {verdict})")
    return {"rate": arguments.rate, "model": arguments.model, "cores": arguments.cores, "ratio": ratio, "rounds": rounds}


class Loads:
    """Loads and unloads the big model again and again, on a thread, until it is left."""

    def __init__(self, gateway):
        self.gateway, self.seconds, self.fault = gateway, [], None
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.is_over.is_set():
                started = time.monotonic()
                load(self.gateway)
                self.seconds.append(time.monotonic() - started)
                unload(self.gateway)
        except BenchError as error:
            self.fault = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()
        if self.fault:
            raise self.fault


def load(gateway):
    ask(gateway, "load")


def unload(gateway):
    ask(gateway, "unload")
    deadline = time.monotonic() + harness.PATIENCE
    while gateway.get("/admin/v1/models/big")["versions"][0]["state"] != "unloaded":
        if time.monotonic() > deadline:
            raise BenchError("the big model was not unloaded")
        time.sleep(0.01)


def ask(gateway, operation):
    status, answer = gateway.post(f"/admin/v1/models/big/versions/1/{operation}")
    if status != 200:
        raise BenchError(f"{operation}: {status} {answer}")


def offer(arguments, programs, gateway):
    """An open loop at a fixed rate; what its requests took."""
    command = ["offer", gateway.grpc, "--grpc", "--path", harness.GRPC_PATH, "--body", REQUESTS / f"{arguments.model}.grpc"]
    command += ["--rate", arguments.rate, "--seconds", arguments.seconds, "--connections", 8]
    seen = json.loads(programs.rig_output(*command, core=harness.LOAD_CORE))
    answers = seen["statuses"].get("ok", {"count": 0})
    if answers["count"] < seen["answers"] or seen["unanswered"]:
        raise BenchError(f"not every request was answered well: {seen}")
    return answers


if __name__ == "__main__":
    main()
