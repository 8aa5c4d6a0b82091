#!/usr/bin/env python3
"""Is `batching.target_p99` kept, and what does it cost?

    python3 benches/target_latency.py [--targets 5,20] [--shares 0.3,0.6,0.9]

First the most that a closed loop gets out of `mlp` without a target. Then an open loop offers shares of that to a gateway
without a target, and to one for each target. It writes target_latency.json and .md to target/bench/.
"""

import argparse
import json
import sys

import harness
from harness import OUT, REQUESTS, BenchError, say

MODEL = "mlp"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="5,20", help="p99 in milliseconds")
    parser.add_argument("--shares", default="0.3,0.6,0.9", help="offered load, in capacities")
    parser.add_argument("--seconds", type=float, default=6, help="length of each load")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds of it that do not count")
    harness.add_build_arguments(parser)
    arguments = parser.parse_args()
    try:
        harness.need_tools()
        programs = harness.programs(arguments)
        harness.prepare(programs)
        found = targets(arguments, programs)
    except BenchError as error:
        sys.exit(f"error: {error}")
    (OUT / "target_latency.json").write_text(json.dumps(found, indent=1) + "\n")
    (OUT / "target_latency.md").write_text(markdown(found))
    print(markdown(found))


def targets(arguments, programs):
    rows = []
    shares = [float(share) for share in arguments.shares.split(",")]
    for target in [None, *map(float, arguments.targets.split(","))]:
        variables = {"TIDEGATE_BATCHING__TARGET_P99": f"{target:g}ms"} if target else {}
        with harness.gateway(programs, **variables) as gateway:
            closed = harness.load("grpc", gateway.grpc, MODEL, 64, 1, 3)
            if target is None:
                capacity = closed.rate
            for share in shares:
                row = {"target_ms": target, "share": share, **offer(arguments, programs, gateway, capacity * share)}
                say(json.dumps(row))
                rows.append(row)
    return {"capacity": capacity, "rows": rows}


def offer(arguments, programs, gateway, rate):
    """An open loop at a fixed rate: times, and rows per run."""
    command = ["offer", gateway.grpc, "--grpc", "--path", harness.GRPC_PATH, "--body", REQUESTS / f"{MODEL}.grpc"]
    command += ["--rate", rate, "--seconds", arguments.seconds, "--warm-up", arguments.warm_up, "--connections", 16]
    before = runs(gateway)
    seen = json.loads(programs.rig_output(*command, core=harness.LOAD_CORE))
    requests, executions = (after - first for after, first in zip(runs(gateway), before))
    answered = seen["statuses"].get("ok", {"count": 0, "p50_ms": None, "p99_ms": None})
    return {
        "offered_per_s": seen["offered_per_s"],
        "p50_ms": answered["p50_ms"],
        "p99_ms": answered["p99_ms"],
        "refused": 1 - answered["count"] / max(seen["answers"], 1),
        "rows_per_run": requests / max(executions, 1),
    }


def runs(gateway):
    """Requests that ran, and runs."""
    statistics = json.loads(gateway.read(f"/v2/models/{MODEL}/stats"))["model_stats"]
    return [sum(version[count] for version in statistics) for count in ("inference_count", "execution_count")]


def markdown(found):
    lines = [
        f"`{MODEL}` over gRPC, most without a target {found['capacity']:,.0f}/s.",
        "",
        "| target p99 | offered | p50 | p99 | kept | rows per run | refused |",
        "| ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in found["rows"]:
        target = row["target_ms"]
        kept = "" if target is None or row["p99_ms"] is None else "✓" if row["p99_ms"] <= target else "✗"
        cells = ["" if target is None else f"{target:g} ms", f"{row['offered_per_s']:,.0f}/s ({row['share']:.0%})"]
        cells += [millis(row["p50_ms"]), millis(row["p99_ms"]), kept, f"{row['rows_per_run']:.1f}", f"{row['refused']:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def millis(value):
    return "" if value is None else f"{value:.2f} ms"


if __name__ == "__main__":
    main()
