#!/usr/bin/env python3
"""Does memory come back after an unload, and does a version keep one copy of its weights?

    python3 benches/memory.py                both
    python3 benches/memory.py churn          200 loads and unloads of a version: growth of the resident memory
    python3 benches/memory.py instances      a 90 MB model with 1 and with 4 runs at once

It writes memory.json to target/bench/.
"""

import argparse
import json
import shutil
import sys
import time

import harness
from harness import OUT, BenchError, say

CHURN_REACH = 0.10
INSTANCES_REACH = 1.2
INSTANCES = (1, 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["churn", "instances", []], help="one of them only")
    parser.add_argument("--cycles", type=int, default=200, help="loads and unloads")
    parser.add_argument("--settled", type=int, default=20, help="the cycle from which growth counts")
    parser.add_argument("--model", default="mlp", choices=["tiny", "mlp", "cnn"], help="the model that is loaded and unloaded")
    harness.add_build_arguments(parser)
    arguments = parser.parse_args()
    benches = {"churn": churn, "instances": instances}
    try:
        harness.need_tools()
        programs = harness.programs(arguments)
        harness.prepare(programs, big=True)
        found = {name: benches[name](arguments, programs) for name in arguments.what or benches}
    except BenchError as error:
        sys.exit(f"error: {error}")
    (OUT / "memory.json").write_text(json.dumps(found, indent=1) + "\n")


def churn(arguments, programs):
    """Version 2 serves; version 1 comes and goes."""
    repository, model = OUT / "churn", arguments.model
    for version in ("1", "2"):
        shutil.copytree(OUT / "models" / model / "1", repository / model / version, dirs_exist_ok=True)
    path = f"/admin/v1/models/{model}"
    rss = []
    with harness.gateway(programs, models=repository) as gateway:
        unload(gateway, path)
        for _ in range(arguments.cycles):
            load(gateway, path)
            unload(gateway, path)
            rss.append(gateway.memory()["rss"])
    settled = rss[min(arguments.settled, len(rss)) - 1]
    growth = rss[-1] / settled - 1
    verdict = "reached" if growth < CHURN_REACH else "not reached"
    print(
        f"churn of {model}: {settled} MiB after {arguments.settled} cycles, {rss[-1]} MiB after {arguments.cycles}: "
        f"{growth:+.1%} (reach < {CHURN_REACH:.0%}: {verdict})"
    )
    return {"model": model, "rss_mib": rss, "growth": growth}


def load(gateway, path):
    status, answer = gateway.post(f"{path}/versions/1/load")
    if status != 200:
        raise BenchError(f"load: {status} {answer}")


def unload(gateway, path):
    status, answer = gateway.post(f"{path}/versions/1/unload")
    if status != 200:
        raise BenchError(f"unload: {status} {answer}")
    wait_for_state(gateway, path, "unloaded")


def wait_for_state(gateway, path, wanted):
    deadline = time.monotonic() + harness.PATIENCE
    while True:
        first = next(entry for entry in gateway.get(path)["versions"] if int(entry["version"]) == 1)
        if first["state"].lower() == wanted:
            return
        if time.monotonic() > deadline:
            raise BenchError(f"version 1 is {first['state']} and not {wanted}: {first.get('reason')}")
        time.sleep(0.005)


def instances(arguments, programs):
    """Memory after a burst of requests at once, with one and with several runs of one version at a time."""
    found = {}
    for count in INSTANCES:
        repository = OUT / f"instances-{count}"
        shutil.copytree(OUT / "big", repository, dirs_exist_ok=True)
        (repository / "big/model.toml").write_text(f"[scheduler]\ninstances = {count}\n")
        # Not pinned: several runs at once want several cores.
        with harness.gateway(programs, models=repository, core=None) as gateway:
            first = gateway.get("/admin/v1/models/big")["versions"][0]
            if first["state"].lower() != "ready":
                say(f"instances = {count}: skipped, the gateway does not serve it: {first.get('reason')}")
                return None
            before = gateway.requests().get("ok", 0)
            seen = harness.load("grpc", gateway.grpc, "big", 16, 1, 3)
            if gateway.requests().get("ok", 0) - before < seen.answered:
                raise BenchError("not every answer of the burst was a good one")
            found[count] = gateway.memory() | {"rate": round(seen.rate, 1)}
    few, many = (found[count]["rss"] for count in INSTANCES)
    verdict = "reached" if many / few < INSTANCES_REACH else "not reached"
    print(
        f"a 90 MB model: {few} MiB with {INSTANCES[0]} run at once, {many} MiB with {INSTANCES[1]}: "
        f"{many / few:.2f} × (reach < {INSTANCES_REACH}: {verdict})"
    )
    return found


if __name__ == "__main__":
    main()
