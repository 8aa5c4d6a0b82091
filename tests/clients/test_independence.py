"""What the gateway proves independent never mixes rows: ONNX's node models and exports of real libraries, run by plain
ONNX Runtime, rows alone against rows together."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import independence
import numpy as np
import onnx
import onnx_nodes
import pytest
from conftest import ROOT, run_binary

PROVEN = "rows are independent: proven from the graph"
EXPORTS = ROOT / "tests/data/exports"


def proven(directory, models):
    """The names of those models whose rows are independent, as `tidegate check` says."""
    found = set()
    names = sorted(models)
    for number in range(0, len(names), 100):
        some = names[number : number + 100]
        part = directory / str(number)
        for name in some:
            version = part / name / "1"
            version.mkdir(parents=True)
            (version / "model.onnx").write_bytes(models[name])
        report = json.loads(run_binary("check", str(part), "--output", "json").stdout)
        for entry in report:
            if any(PROVEN in why for step in entry.get("admission", []) for why in step["why"]):
                found.add(Path(entry["path"]).parent.name)
    return found


def node_models():
    """Each of ONNX's node models with its first input in batches, the others constant, and with all in batches."""
    models = {}
    for case in onnx_nodes.cases():
        if case.uncarried or any(tensor.datatype == "BF16" for tensor in case.inputs):
            continue
        arrays = [onnx_nodes.texts(tensor.array, bytes.decode) for tensor in case.inputs]
        names = [tensor.name for tensor in case.inputs]
        if not arrays or arrays[0].ndim == 0:
            continue
        model = onnx.load_from_string(case.model)
        models[f"{case.name}__first"] = (model, arrays, names[:1])
        if len(names) > 1 and all(array.ndim for array in arrays):
            models[f"{case.name}__all"] = (model, arrays, names)
    return {name: independence.batched(*parts).SerializeToString() for name, parts in models.items()}


def report(title, seen):
    """Prints how many of the independent ones are proven, by group."""
    total = Counter()
    print(f"\n{title}")
    for group, counts in sorted(seen.items()):
        total.update(counts)
        if counts["independent"] > counts["proven"]:
            print(f"  {group:32} {counts['proven']:4} of {counts['independent']:4} independent ones proven")
    print(f"  {'all':32} {total['proven']:4} of {total['independent']:4}; {total['mixing']} mix rows")
    return total


def compare(title, models, found, group):
    seen, wrong = defaultdict(Counter), []
    for name, model in models.items():
        mixes = independence.mixes(model)
        if mixes:
            seen[group(name, model)]["mixing"] += 1
            if name in found:
                wrong.append(name)
        elif mixes is False:
            seen[group(name, model)]["independent"] += 1
            seen[group(name, model)]["proven"] += name in found
    total = report(title, seen)
    assert not wrong, f"proven independent, but rows touch each other: {wrong}"
    return total


def operator(name, model):
    """Functions are nodes of their own."""
    return onnx.load_from_string(model).graph.node[0].op_type


def exporter(name, _):
    return name.split("_")[0]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def test_onnx_node_models(tmp_path):
    models = node_models()
    assert len(models) > 1310
    total = compare("ONNX's node models, by operator", models, proven(tmp_path, models), operator)
    assert total["mixing"] > 100
    assert total["proven"] >= 0.9 * total["independent"]


def test_real_exports(tmp_path):
    models = {path.stem: path.read_bytes() for path in sorted(EXPORTS.glob("*.onnx"))}
    assert len(models) >= 60
    total = compare("exports, by exporter", models, proven(tmp_path, models), exporter)
    assert total["proven"] >= 0.95 * total["independent"]
