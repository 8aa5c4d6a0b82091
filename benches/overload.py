#!/usr/bin/env python3
"""What happens at ten times the capacity: goodput, the time of accepted requests, memory.

    python3 benches/overload.py              cnn and tiny, over gRPC and HTTP binary
    python3 benches/overload.py --rows cnn-grpc --seconds 20

First the most that a closed loop gets out of the gateway, then an open loop which offers ten times
as much, on the other core. A generator on one core cannot offer ten times what `tiny` takes: the
table says how much was offered. It writes overload.json and overload.md to target/bench/.
"""

import argparse
import json
import resource
import sys
import time

import harness
from harness import OUT, REQUESTS, BenchError, say

CLOSED_LOOP = {"cnn": 8, "tiny": 64}
ROWS = [("cnn", "grpc"), ("cnn", "binary"), ("tiny", "grpc"), ("tiny", "binary")]
GOODPUT_REACH = 0.9
# HTTP/1.1 has one request at a time on a connection: as many as an open loop may need.
CONNECTIONS = {"grpc": 8, "binary": 1500}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="length of the overload")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds of it that do not count")
    parser.add_argument("--times", type=float, default=10, help="offered load, in capacities")
    parser.add_argument("--rows", help="only these, such as cnn-grpc,tiny-binary")
    harness.add_build_arguments(parser)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wanted = arguments.rows.split(",") if arguments.rows else [f"{model}-{protocol}" for model, protocol in ROWS]
    try:
        harness.need_tools()
        programs = harness.programs(arguments)
        harness.prepare(programs)
        found = [overload(arguments, programs, *row) for row in ROWS if "-".join(row) in wanted]
    except BenchError as error:
        sys.exit(f"error: {error}")
    (OUT / "overload.json").write_text(json.dumps(found, indent=1) + "\n")
    (OUT / "overload.md").write_text(markdown(found))
    print(markdown(found))


def overload(arguments, programs, model, protocol):
    with harness.gateway(programs) as gateway:
        address = gateway.grpc if protocol == "grpc" else gateway.http
        harness.load(protocol, address, model, CLOSED_LOOP[model], 1, 1)  # warm
        closed = harness.load(protocol, address, model, CLOSED_LOOP[model], 1, 5)
        idle = gateway.memory()
        command = ["offer", address, "--body", REQUESTS / f"{model}.{protocol}", "--rate", closed.rate * arguments.times]
        command += ["--seconds", arguments.seconds, "--warm-up", arguments.warm_up]
        command += ["--connections", CONNECTIONS[protocol]]
        if protocol == "grpc":
            command += ["--grpc", "--path", harness.GRPC_PATH]
        else:
            length = (REQUESTS / f"{model}.binary.length").read_text()
            command += ["--path", f"/v2/models/{model}/infer", "--json-length", length]
        seen = json.loads(programs.rig_output(*command, core=harness.LOAD_CORE))
        peak = gateway.memory()["peak_rss"]
        time.sleep(1)
        after = harness.load(protocol, address, model, CLOSED_LOOP[model], 1, 2)
    row = {"model": model, "protocol": protocol, "capacity": closed.rate, "rss_before_mib": idle["rss"], "peak_rss_mib": peak}
    row |= {"goodput_ratio": seen["goodput_per_s"] / closed.rate, "rate_afterwards": after.rate, **seen}
    say(json.dumps(row))
    return row


def markdown(rows):
    lines = [
        f"| model | protocol | capacity | offered | goodput | reach | p50 of accepted | p99 | refused | with Retry-After | not sent or not answered | memory before → peak |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        ok = row["statuses"].get("ok", {"p50_ms": float("nan"), "p99_ms": float("nan")})
        refused = sum(row["statuses"].get(status, {"count": 0})["count"] for status in ("429", "grpc 8"))
        answers = max(row["answers"], 1)
        mark = "✓" if row["goodput_ratio"] >= GOODPUT_REACH else "✗"
        cells = [row["model"], "gRPC" if row["protocol"] == "grpc" else "HTTP binary", f"{row['capacity']:,.0f}/s"]
        cells += [f"{row['offered_per_s'] / row['capacity']:.1f} ×", f"{row['goodput_ratio']:.1%}", f"≥ {GOODPUT_REACH:.0%} {mark}"]
        cells += [f"{ok['p50_ms']:.1f} ms", f"{ok['p99_ms']:.1f} ms", f"{refused / answers:.1%}"]
        cells += [f"{row['with_retry_after'] / max(refused, 1):.0%}", row["unsent"] + row["unanswered"]]
        cells += [f"{row['rss_before_mib']} → {row['peak_rss_mib']} MiB"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
