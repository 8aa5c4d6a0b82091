#!/usr/bin/env python3
"""What happens at ten times the capacity: goodput, the time of accepted requests, memory.

    python3 benches/overload.py              cnn and tiny, over gRPC and HTTP binary
    python3 benches/overload.py --rows cnn-grpc --seconds 20

First the most that a closed loop gets out of the gateway. Then, for `cnn`, an open loop offers ten
times as much. No generator on one core can offer ten times what `tiny` takes: there, a crowd of
clients has thousands of requests at once in the gateway, each sending the next when it is answered.
What so many connections cost any server, as a bare echo shows, is taken off the capacity first.
It writes overload.json and overload.md to target/bench/.
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
# Connections and requests at once on each.
CROWD = {"grpc": (100, 40), "binary": (1500, 1)}


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
        before = gateway.memory()["rss"]
        press = open_loop if model == "cnn" else crowd
        capacity = closed.rate if model == "cnn" else capacity_of_crowd(programs, closed.rate, model, protocol)
        seen = press(arguments, programs, gateway, address, model, protocol, capacity)
        peak = gateway.memory()["peak_rss"]
        time.sleep(1)
        after = harness.load(protocol, address, model, CLOSED_LOOP[model], 1, 2)
    row = {"model": model, "protocol": protocol, "closed_loop": closed.rate, "capacity": capacity, "goodput_ratio": seen["goodput_per_s"] / capacity}
    row |= {"rss_before_mib": before, "peak_rss_mib": peak, "rate_afterwards": after.rate, **seen}
    say(json.dumps(row))
    return row


def open_loop(arguments, programs, gateway, address, model, protocol, capacity):
    command = ["offer", address, "--body", REQUESTS / f"{model}.{protocol}", "--rate", capacity * arguments.times]
    command += ["--seconds", arguments.seconds, "--warm-up", arguments.warm_up, "--connections", CONNECTIONS[protocol]]
    if protocol == "grpc":
        command += ["--grpc", "--path", harness.GRPC_PATH]
    else:
        length = (REQUESTS / f"{model}.binary.length").read_text()
        command += ["--path", f"/v2/models/{model}/infer", "--json-length", length]
    seen = json.loads(programs.rig_output(*command, core=harness.LOAD_CORE))
    refused = sum(seen["statuses"].get(status, {"count": 0})["count"] for status in ("429", "grpc 8"))
    accepted = seen["statuses"].get("ok", {})
    return seen | {
        "offered": f"{seen['offered_per_s'] / capacity:.1f} × capacity",
        "p50_ms": accepted.get("p50_ms"),
        "p99_ms": accepted.get("p99_ms"),
        "refused": refused / max(seen["answers"], 1),
        "retry_after": seen["with_retry_after"] / refused if refused else None,
        "lost": seen["unsent"] + seen["unanswered"],
    }


def capacity_of_crowd(programs, rate, model, protocol):
    """The rate of the closed loop, if a request took longer by as much as it does a bare server with that many clients."""
    connections, streams = CROWD[protocol]
    with harness.echo(programs, "grpc" if protocol == "grpc" else "http", OUT / f"answers/{model}.{protocol}") as echo:
        few = harness.load(protocol, echo.address, model, CLOSED_LOOP[model], 1, 3)
        many = harness.load(protocol, echo.address, model, connections, streams, 3)
    say(f"bare echo: {few.rate:.0f}/s, with {connections} × {streams} at once {many.rate:.0f}/s")
    return 1 / (1 / rate + max(0, 1 / many.rate - 1 / few.rate))


def crowd(arguments, programs, gateway, address, model, protocol, capacity):
    """The gateway's own counters say what was accepted: h2load does not see gRPC's status."""
    connections, streams = CROWD[protocol]
    before = gateway.requests()
    load = harness.load(protocol, address, model, connections, streams, arguments.seconds, with_latencies=True)
    after = gateway.requests()
    grown = {code: after[code] - before.get(code, 0) for code in after}
    refused = sum(count for code, count in grown.items() if code not in ("ok", "cancelled"))
    answers_per_s = (load.answered + load.failed) / load.seconds
    return {
        "goodput_per_s": answers_per_s * grown["ok"] / max(refused + grown["ok"], 1),
        "offered": f"{connections * streams} at once",
        # Of all answers: a refusal is a fast one.
        "p50_ms": load.latencies_us["p50"] / 1e3,
        "p99_ms": load.latencies_us["p99"] / 1e3,
        "refused": refused / max(refused + grown["ok"], 1),
        "retry_after": None,
        "lost": 0,
        "outcomes": grown,
    }


def markdown(rows):
    lines = [
        "| model | protocol | capacity | offered | goodput | reach | p50 | p99 | refused | with Retry-After | not sent or not answered | memory before → peak |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        mark = "✓" if row["goodput_ratio"] >= GOODPUT_REACH else "✗"
        cells = [row["model"], "gRPC" if row["protocol"] == "grpc" else "HTTP binary", f"{row['capacity']:,.0f}/s", row["offered"]]
        cells += [f"{row['goodput_ratio']:.1%}", f"≥ {GOODPUT_REACH:.0%} {mark}", millis(row["p50_ms"]), millis(row["p99_ms"])]
        cells += [f"{row['refused']:.1%}", "" if row["retry_after"] is None else f"{row['retry_after']:.0%}", row["lost"]]
        cells += [f"{row['rss_before_mib']} → {row['peak_rss_mib']} MiB"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n\np50 and p99 are of accepted requests; for a crowd, of all answers.\n"


def millis(value):
    return "" if value is None else f"{value:.1f} ms"


if __name__ == "__main__":
    main()
