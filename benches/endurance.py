#!/usr/bin/env python3
"""Does the gateway keep its pace, its memory and its files, for minutes and after a disturbance?

    python3 benches/endurance.py                          10 minutes each of `mlp` over gRPC and HTTP binary
    python3 benches/endurance.py --minutes 60 --protocols grpc
    python3 benches/endurance.py --disturb                a minute as ever, one beside a busy process, one to recover
    python3 benches/endurance.py --smoke                  a few seconds, no verdict on times

64 requests are in flight, in loads of 10 s. Between two loads ONNX Runtime alone runs the same model on the same core: the
rate times the time of its row says how well the gateway does, however fast the machine is at that moment. It writes
endurance.json and .md to target/bench/, and fails where the last minute falls behind the first, where the pace is not back
within 30 s after the busy minute, or where memory, files or threads grow.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

import harness
from harness import OUT, BenchError, median, say

MODEL, CONCURRENCY = "mlp", 64
# The size of runs that ONNX Runtime alone is timed with: about what the gateway joins with one core.
PLAIN_ROWS = 16
PLAIN_SECONDS = 0.4
# Share of the first minute that the last one must reach, and the pace after a disturbance.
REACH = 0.97
RECOVERY_SECONDS = 30
# What may be more at the end than after the first minute.
MEMORY_GROWTH = 1.1
FILES_GROWTH = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="length of the load for each protocol")
    parser.add_argument("--protocols", default="grpc,binary", help="of grpc, binary and json")
    parser.add_argument("--slice", type=float, default=10, help="seconds of one load (wrk takes whole seconds)")
    parser.add_argument("--disturb", action="store_true", help="a minute beside a busy process on the server's core")
    parser.add_argument("--smoke", action="store_true", help="two short loads: does it all work?")
    harness.add_build_arguments(parser)
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.minutes, arguments.slice = 2 / 60, 1
    try:
        harness.need_tools()
        programs = harness.programs(arguments)
        harness.prepare(programs)
        found = [endure(arguments, programs, protocol) for protocol in arguments.protocols.split(",")]
    except BenchError as error:
        sys.exit(f"error: {error}")
    (OUT / "endurance.json").write_text(json.dumps(found, indent=1) + "\n")
    (OUT / "endurance.md").write_text(markdown(found))
    print(markdown(found))
    if not arguments.smoke and not all(protocol["is_kept"] for protocol in found):
        sys.exit(1)


def endure(arguments, programs, protocol):
    """One gateway under load, slice by slice."""
    say(f"{protocol}:  seconds      rate  rows/run  plain µs/row  rate × plain    RSS MiB  files  threads")
    with harness.gateway(programs) as gateway:
        address = gateway.grpc if protocol == "grpc" else gateway.http
        plain(programs)
        harness.load(protocol, address, MODEL, CONCURRENCY, 1, min(arguments.slice, 3))  # warm
        started = time.monotonic()

        def go_on(phase, seconds, at_once=arguments.slice):
            return slices(programs, gateway, (protocol, address), phase, started, seconds, at_once)

        if arguments.disturb:
            found = disturbed(arguments, go_on)
        else:
            found = steady(go_on("steady", arguments.minutes * 60))
        outcomes = gateway.requests()
    bad = {code: count for code, count in outcomes.items() if code not in ("ok", "cancelled") and count}
    if bad:
        raise BenchError(f"requests failed: {bad}")
    return {"protocol": protocol, **found, "is_kept": found["pace_is_kept"] and found["grew"] is None}


def slices(programs, gateway, door, phase, started, seconds, at_once):
    """Loads of `at_once` seconds one after the other, for so many seconds in all."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        before = runs(gateway)
        load = harness.load(*door, MODEL, CONCURRENCY, 1, at_once)
        if load.failed:
            raise BenchError(f"{load.failed} requests failed")
        requests, executions = (after - first for after, first in zip(runs(gateway), before))
        row_us = plain(programs)
        one = {
            "phase": phase,
            "seconds": round(time.monotonic() - started, 1),
            "rate": load.rate,
            "rows_per_run": requests / max(executions, 1),
            "plain_row_us": row_us,
            "pace": load.rate * row_us / 1e6,
            "rss_mib": gateway.memory()["rss"],
            # The load's connections are closed: what is open now is the gateway's own.
            "files": len(os.listdir(f"/proc/{gateway.pid}/fd")),
            "threads": len(os.listdir(f"/proc/{gateway.pid}/task")),
        }
        say(
            f"{phase:>9} {one['seconds']:8.1f} {one['rate']:9.0f} {one['rows_per_run']:9.1f} {row_us:13.2f} {one['pace']:13.3f}"
            f" {one['rss_mib']:10.1f} {one['files']:6} {one['threads']:8}"
        )
        found.append(one)
    return found


def plain(programs):
    """Time per row of ONNX Runtime alone, on the server's core, which has nothing else to do."""
    command = ("plain", OUT / "models", "--model", MODEL, "--batches", PLAIN_ROWS, "--seconds", PLAIN_SECONDS)
    return json.loads(programs.rig_output(*command, core=harness.SERVER_CORE).splitlines()[0])["us_per_row"]


def runs(gateway):
    """Requests that ran, and runs."""
    statistics = json.loads(gateway.read(f"/v2/models/{MODEL}/stats"))["model_stats"]
    return [sum(version[count] for version in statistics) for count in ("inference_count", "execution_count")]


def steady(found):
    """The last minute against the first."""
    first = [one for one in found if one["seconds"] <= found[0]["seconds"] + 50]
    last = [one for one in found if one["seconds"] >= found[-1]["seconds"] - 50]
    kept = mean_pace(last) / mean_pace(first)
    told = f"last minute {kept:.3f} of the first (reach ≥ {REACH})"
    return {"slices": found, "kept": kept, "pace_is_kept": kept >= REACH, "grew": growth(found), "told": told}


def disturbed(arguments, go_on):
    """A minute as ever, a minute beside a busy process, a minute to recover."""
    phase = 2 * arguments.slice if arguments.smoke else 60
    before = go_on("before", phase)
    with busy_process():
        beside = go_on("disturbed", phase)
    ended = beside[-1]["seconds"]
    # Shorter loads: they are to show how soon.
    after = go_on("after", phase, min(arguments.slice, 5))
    usual = median([one["pace"] for one in before])
    back = next((one["seconds"] - ended for one in after if one["pace"] >= REACH * usual), None)
    kept = mean_pace(after[len(after) // 2 :]) / usual
    is_back = back is not None and back <= RECOVERY_SECONDS and kept >= REACH
    told = "did not recover" if back is None else f"back to ≥ {REACH} after {back:.0f} s (reach ≤ {RECOVERY_SECONDS} s)"
    told += f", then {kept:.3f} of before (reach ≥ {REACH})"
    all_slices = before + beside + after
    found = {"slices": all_slices, "kept": kept, "recovery_s": back, "pace_is_kept": is_back, "grew": growth(all_slices)}
    return found | {"told": told}


@contextlib.contextmanager
def busy_process():
    """A process that wants the server's core for itself."""
    command = [*harness.pinned(harness.SERVER_CORE), sys.executable, "-c", "while True: pass"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def mean_pace(found):
    return sum(one["pace"] for one in found) / len(found)


def growth(found):
    """What grew since the first minute, in words; `None` when nothing did."""
    settled = next((one for one in found if one["seconds"] >= found[0]["seconds"] + 50), found[-1])
    last = found[-1]
    grew = []
    if last["rss_mib"] > settled["rss_mib"] * MEMORY_GROWTH:
        grew.append(f"memory from {settled['rss_mib']} to {last['rss_mib']} MiB")
    for what in ("files", "threads"):
        if last[what] > settled[what] + FILES_GROWTH:
            grew.append(f"{what} from {settled[what]} to {last[what]}")
    return ", ".join(grew) or None


def markdown(found):
    lines = ["| protocol | pace | rate first → last | rows per run | memory MiB | files | threads | grew |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for protocol in found:
        first, last = protocol["slices"][0], protocol["slices"][-1]
        mark = "✓" if protocol["is_kept"] else "✗"
        cells = [protocol["protocol"], f"{protocol['told']} {mark}", f"{first['rate']:,.0f} → {last['rate']:,.0f}/s"]
        cells += [f"{first['rows_per_run']:.1f} → {last['rows_per_run']:.1f}", f"{first['rss_mib']} → {last['rss_mib']}"]
        cells += [f"{first[what]} → {last[what]}" for what in ("files", "threads")]
        lines.append("| " + " | ".join([*cells, protocol["grew"] or ""]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
