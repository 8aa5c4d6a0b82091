#!/usr/bin/env python3
"""The end-to-end benchmark: the gateway against what its protocol and its model alone would allow.

    python3 benches/end_to_end.py            the table of benches/README.md, about 4 minutes
    python3 benches/end_to_end.py --quick    one short round: a rough look
    python3 benches/end_to_end.py --full     every model, protocol and concurrency
    python3 benches/end_to_end.py --rows tiny-grpc-64,tiny-binary-64
    python3 benches/end_to_end.py --smoke    looks at no time: does everything answer, and rightly?

It writes results.json, results.md and results.svg to target/bench/.
"""

import argparse
import contextlib
import json
import os
import sys
import time

import harness
from harness import OUT, BenchError, Watch, median, say

import picture

# The limit of a request is 1 / (1 / echo + t). `batched`: t is the time of a row in the best batch.
LIMIT, PLAIN, LATENCY = "of the limit", "of plain ORT", "µs over echo + run"


class Row:
    """A line of the table: a model over a protocol at a concurrency."""

    def __init__(self, model, protocol, connections, streams=1, measure=LIMIT, reach=None, batched=False, triton=None):
        self.model, self.protocol = model, protocol
        self.connections, self.streams = connections, streams
        self.measure, self.reach, self.batched = measure, reach, batched
        # Requests per second of Triton 24.10 with its best setting, once, elsewhere; for LATENCY its p50 in µs.
        self.triton = triton

    @property
    def name(self):
        at_once = f"{self.connections}x{self.streams}" if self.streams > 1 else self.connections
        return f"{self.model}-{self.protocol}-{at_once}"

    @property
    def concurrency(self):
        return self.connections * self.streams


ROWS = [
    Row("tiny", "grpc", 64, reach=0.70, triton=9_400),
    Row("tiny", "grpc", 8, streams=8, reach=0.70, triton=9_400),
    Row("tiny", "grpc", 1, measure=LATENCY, reach=25, triton=291),
    Row("tiny", "binary", 64, reach=0.70, triton=7_500),
    Row("tiny", "json", 64, reach=0.60, triton=10_000),
    Row("mlp", "grpc", 64, reach=0.70, batched=True, triton=9_500),
    Row("mlp", "grpc", 8, streams=8, reach=0.70, batched=True, triton=9_500),
    Row("mlp", "json", 64, reach=0.60, batched=True, triton=4_300),
    Row("cnn", "grpc", 8, measure=PLAIN, reach=0.98, triton=107),
    Row("cnn", "json", 8, measure=PLAIN, reach=0.85, triton=60),
]
# Models with a reference profile: the only ones for which the monitor has anything to do.
MONITORED = {"tiny"}
BATCHES = {"tiny": [1, 8, 64], "mlp": [1, 2, 4, 8, 16, 32, 64, 128], "cnn": [1, 2, 4, 8]}
MEMORY_REACH = 1.3
MEDIANS = ("rate", "others", "server_busy", "load_busy")


def all_rows():
    named = {row.name: row for row in ROWS}
    every = [
        Row(model, protocol, concurrency, batched=model == "mlp", measure=PLAIN if model == "cnn" else LIMIT)
        for model in BATCHES
        for protocol in ("grpc", "binary", "json")
        for concurrency in (1, 8, 64)
    ]
    return ROWS + [row for row in every if row.name not in named]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="length of one run (wrk takes whole seconds)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each server per row; medians count")
    parser.add_argument("--retries", type=int, default=2, help="repeat a run that other processes disturbed")
    parser.add_argument("--best", action="store_true", help="the best run of each counts, not the median round")
    parser.add_argument("--rows", help="only these, such as tiny-grpc-64,cnn-json-8")
    parser.add_argument("--full", action="store_true", help="every model, protocol and concurrency")
    parser.add_argument("--quick", action="store_true", help="--seconds 1 --rounds 1 --retries 0")
    parser.add_argument("--smoke", action="store_true", help="check the answers and the rig, measure nothing")
    harness.add_build_arguments(parser)
    arguments = parser.parse_args()
    if arguments.quick or arguments.smoke:
        arguments.seconds, arguments.rounds, arguments.retries = (0.3 if arguments.smoke else 1), 1, 0
    rows = chosen(arguments)
    try:
        run(arguments, rows)
    except BenchError as error:
        sys.exit(f"error: {error}")


def chosen(arguments):
    rows = all_rows()
    if arguments.rows:
        names = arguments.rows.split(",")
        unknown = set(names) - {row.name for row in rows}
        if unknown:
            sys.exit(f"error: no row {', '.join(sorted(unknown))}; there are: {', '.join(row.name for row in rows)}")
        return [row for row in rows if row.name in names]
    return rows if arguments.full else ROWS


def run(arguments, rows):
    harness.need_tools()
    programs = harness.programs(arguments)
    harness.prepare(programs)
    results = {"seconds": arguments.seconds, "rounds": arguments.rounds, "best": arguments.best, "machine": machine(), "rows": []}
    if not arguments.smoke:
        results["memory"] = memory(programs)
        results["plain"] = {model: plain(programs, model, BATCHES[model]) for model in BATCHES if uses(rows, model)}
    with contextlib.ExitStack() as stack:
        monitored = stack.enter_context(harness.gateway(programs))
        check = ("check", "--http", monitored.http, "--grpc", monitored.grpc)
        say(programs.rig_output(*check, "--models", OUT / "models", "--out", OUT / "answers").strip())
        gateways = {"on": monitored}
        if not arguments.smoke and any(row.model in MONITORED for row in rows):
            gateways["off"] = stack.enter_context(harness.gateway(programs, TIDEGATE_MONITOR__ENABLED="false"))
        for row in rows:
            results["rows"].append(measure(arguments, programs, row, gateways, results.get("plain")))
    if arguments.smoke:
        say(f"{len(rows)} rows answered without an error")
        return
    write(results, rows)


def uses(rows, model):
    return any(row.model == model for row in rows)


def machine():
    with contextlib.suppress(OSError, StopIteration):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
            return {"cpu": name, "cores": os.cpu_count()}
    return {"cores": os.cpu_count()}


def memory(programs):
    """Of an idle gateway and of a plain process, each alone, so that shared pages count fully."""
    alone = json.loads(programs.rig_output("plain-memory", OUT / "models", core=harness.SERVER_CORE))
    with harness.gateway(programs) as gateway:
        time.sleep(2)
        idle = gateway.memory()
    found = {"gateway_mib": idle["rss"], "plain_mib": round(alone["rss_kib"] / 1024, 1)}
    found["ratio"] = round(found["gateway_mib"] / found["plain_mib"], 3)
    say(f"memory: gateway {found['gateway_mib']} MiB, plain {found['plain_mib']} MiB, ratio {found['ratio']}")
    return found


def plain(programs, model, batches, seconds=0.3):
    """Time per run and per row of ONNX Runtime alone, by batch size."""
    sizes = ",".join(map(str, batches))
    command = ("plain", OUT / "models", "--model", model, "--batches", sizes, "--seconds", seconds)
    lines = [json.loads(line) for line in programs.rig_output(*command, core=harness.SERVER_CORE).splitlines()]
    if len(batches) > 1:
        say(f"plain {model}: " + ", ".join(f"{line['batch']}: {line['us_per_row']:.1f} µs/row" for line in lines))
    return lines


def measure(arguments, programs, row, gateways, plain_table):
    """Runs echo and gateways in turn, round by round."""
    batch = 1
    if plain_table and row.batched:
        fitting = [line for line in plain_table[row.model] if line["batch"] <= row.concurrency]
        batch = min(fitting, key=lambda line: line["us_per_row"])["batch"]
    contestants = {name: gateway for name, gateway in gateways.items() if name == "on" or row.model in MONITORED}
    rounds = []
    answer = OUT / f"answers/{row.model}.{row.protocol}"
    with harness.echo(programs, "grpc" if row.protocol == "grpc" else "http", answer) as bare:
        everyone = {"echo": bare, **contestants}
        for number in range(arguments.rounds):
            seen = {}
            if plain_table:
                seen["t_us"] = plain(programs, row.model, [batch], 0.5)[0]["us_per_row"]
            for name, server in everyone.items():
                if number == 0 and not arguments.smoke:
                    one_run(row, name, server, 0.5, list(everyone.values()))  # warm
                seen[name] = best_run(arguments, row, name, server, list(everyone.values()))
            rounds.append(seen)
            if plain_table:
                say(f"{row.name} {number + 1}: " + told(seen))
    return summed(row, batch, rounds, arguments.best) if plain_table else None


def told(seen):
    parts = [f"t {seen['t_us']:.1f} µs"]
    for name in ("echo", "on", "off"):
        if name in seen:
            run = seen[name]
            p50 = f", p50 {run['p50_us']} µs" if run["p50_us"] else ""
            busy = f"server {run['server_busy']:.0%}, load {run['load_busy']:.0%}, others {run['others']:.0%}"
            parts.append(f"{name} {run['rate']:.0f}/s{p50} ({busy})")
    return ", ".join(parts)


def best_run(arguments, row, name, server, servers):
    """The least disturbed of some runs."""
    best = None
    for _ in range(1 + arguments.retries):
        seen = one_run(row, name, server, arguments.seconds, servers)
        if best is None or seen["others"] < best["others"]:
            best = seen
        if best["others"] < 0.03:
            break
    return best


def one_run(row, name, server, seconds, servers):
    is_gateway = name != "echo"
    address = server.address if not is_gateway else server.grpc if row.protocol == "grpc" else server.http
    before = server.requests() if is_gateway else {}
    with Watch(server, servers) as watch:
        with_latencies = row.concurrency == 1
        load = harness.load(row.protocol, address, row.model, row.connections, row.streams, seconds, with_latencies)
    if load.failed or not load.answered:
        raise BenchError(f"{row.name}, {name}: {load.answered} answers, {load.failed} failures")
    if load.answer_bytes is not None:
        check_size(row, name, load)
    if is_gateway:
        check_counts(row, load, before, server.requests())
    p50 = load.latencies_us.get("p50")
    return {"rate": load.rate, "p50_us": p50, "p99_us": load.latencies_us.get("p99")} | watch.shares


def check_size(row, name, load):
    """h2load sees HTTP's status only: a gRPC error is an answer without a message."""
    expected = (OUT / f"answers/{row.model}.{row.protocol}").stat().st_size + 5
    if abs(load.answer_bytes - expected) * load.answered > expected * row.concurrency:
        raise BenchError(f"{row.name}, {name}: answers have {load.answer_bytes:.1f} bytes and not {expected}")


def check_counts(row, load, before, after):
    """The gateway itself must have counted as many good answers, and nothing else."""
    grown = {code: after[code] - before.get(code, 0) for code in after}
    # What is in flight when the load tool leaves may be counted or cancelled.
    is_right = load.answered <= grown.get("ok", 0) <= load.answered + 2 * row.concurrency
    others = sum(count for code, count in grown.items() if code not in ("ok", "cancelled"))
    if not is_right or others or grown.get("cancelled", 0) > row.concurrency:
        raise BenchError(f"{row.name}: the load tool saw {load.answered} answers, the gateway counted {grown}")


def summed(row, batch, rounds, of_best=False):
    def reached(seen, name):
        echo, t = seen["echo"], seen["t_us"]
        if row.measure == LATENCY:
            return seen[name]["p50_us"] - echo["p50_us"] - t
        return seen[name]["rate"] * (t / 1e6 if row.measure == PLAIN else 1 / echo["rate"] + t / 1e6)

    # What slows the machine slows both sides of a ratio, so each round is held against its own echo. Where that changes
    # from second to second, only the best of each is comparable: nothing makes a server faster than it is.
    highest, lowest = (max, min) if of_best else (median, median)
    result = {"row": row.name, "model": row.model, "protocol": row.protocol, "measure": row.measure}
    result |= {"connections": row.connections, "streams": row.streams, "batch": batch, "reach": row.reach}
    result["t_us"] = lowest([seen["t_us"] for seen in rounds])
    for name in ("echo", "on", "off"):
        if name in rounds[0]:
            result[name] = {key: median([seen[name][key] for seen in rounds]) for key in MEDIANS}
            result[name]["rate"] = highest([seen[name]["rate"] for seen in rounds])
            if rounds[0][name]["p50_us"] is not None:
                result[name]["p50_us"] = lowest([seen[name]["p50_us"] for seen in rounds])
    result["limit"] = 1 / (1 / result["echo"]["rate"] + result["t_us"] / 1e6)
    for name in ("on", "off"):
        if name in rounds[0]:
            each = [result] if of_best else rounds
            result[name]["reached"] = median([reached(seen, name) for seen in each])
    if row.reach is not None:
        found = result["on"]["reached"]
        result["is_reached"] = found <= row.reach if row.measure == LATENCY else found >= row.reach
    if row.triton:
        result["triton"] = row.triton
    result["rounds"] = rounds
    return result


def write(results, rows):
    (OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (OUT / "results.md").write_text(markdown(results))
    (OUT / "results.svg").write_text(picture.bars(results["rows"]))
    print(markdown(results))
    say(f"written: {OUT}/results.json, results.md, results.svg")


def markdown(results):
    lines = [
        "| model | protocol | at once | bare echo | plain ORT t | limit | tidegate | p50 | reached | reach | monitor off | × Triton |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in results["rows"]:
        on, off = row["on"], row.get("off")
        is_latency = row["measure"] == LATENCY
        at_once = f"{row['connections']} × {row['streams']}" if row["streams"] > 1 else row["connections"]
        batch = f" (batch {row['batch']})" if row["batch"] > 1 else ""
        cells = [row["model"], names(row["protocol"]), at_once, rate(row["echo"]), f"{row['t_us']:.1f} µs{batch}"]
        cells += [f"{row['limit']:,.0f}/s", rate(on), micros(on), told_reached(row, on)]
        cells += [told_reach(row), told_reached(row, off) if off else "", triton(row, is_latency)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    memory, settings = results["memory"], results
    worst = max(run["others"] for row in results["rows"] for run in (row["echo"], row["on"]))
    verdict = "reached" if memory["ratio"] <= MEMORY_REACH else "not reached"
    return "\n".join(lines) + (
        f"\n\nMemory of an idle gateway with the three models: {memory['gateway_mib']} MiB, of a plain ONNX Runtime process "
        f"{memory['plain_mib']} MiB: {memory['ratio']:.2f} × (reach ≤ {MEMORY_REACH}: {verdict}).\n"
        f"\n{'Best' if settings['best'] else 'Median'} of {settings['rounds']} rounds of {settings['seconds']:g} s on {settings['machine'].get('cpu', 'an unknown processor')}, "
        f"{settings['machine']['cores']} cores; other processes took up to {worst:.0%} of the servers' core (median of a row's rounds).\n"
    )


def names(protocol):
    return {"grpc": "gRPC", "binary": "HTTP binary", "json": "HTTP JSON"}[protocol]


def rate(run):
    return f"{run['rate']:,.0f}/s"


def micros(run):
    return f"{run['p50_us']:.0f} µs" if "p50_us" in run else ""


def told_reached(row, run):
    if row["measure"] == LATENCY:
        return f"echo + t + {run['reached']:.0f} µs"
    return f"{run['reached']:.1%}{' of plain' if row['measure'] == PLAIN else ''}"


def told_reach(row):
    if row["reach"] is None:
        return ""
    mark = "✓" if row["is_reached"] else "✗"
    return f"≤ {row['reach']} µs {mark}" if row["measure"] == LATENCY else f"≥ {row['reach']:.0%} {mark}"


def triton(row, is_latency):
    if "triton" not in row:
        return ""
    ratio = row["triton"] / row["on"]["p50_us"] if is_latency else row["on"]["rate"] / row["triton"]
    return f"{ratio:.1f}"


if __name__ == "__main__":
    main()
