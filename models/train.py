#!/usr/bin/env python3
"""Trains the two versions of models/car_loan and writes them as ONNX, with golden requests.

    python3 scripts/fetch.py data
    python3 -m venv .venv-train && .venv-train/bin/pip install -r models/requirements.txt
    .venv-train/bin/python models/train.py

Prints the table of metrics for the model card. The same packages on the same kind of processor write the
same bytes again, so after a run without changes `git status` shows nothing.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one summation order

import numpy as np
import onnxruntime
import pandas as pd
from onnx import helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from skl2onnx.sklapi import CastTransformer
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".artifacts" / "data"

MODEL = "car_loan"
TARGET = "repaid"
# The inputs in the order of the CSV's columns; True marks the numeric ones.
COLUMNS = {
    "car_value": True,
    "salary_range": False,
    "debt_to_income_ratio": True,
    "loan_length": True,
    "repaid_loan_on_prev_car": False,
    "size_of_downpayment": False,
    "driver_tenure": True,
}
NUMERIC = [name for name, numeric in COLUMNS.items() if numeric]
CATEGORICAL = [name for name, numeric in COLUMNS.items() if not numeric]
CLASSES = ["not_repaid", "repaid"]

TRAINING_ROWS = 40_000  # of the reference, in time order; the other 10,000 are held out
DRIFT_ROW = 25_000  # of the analysis rows: where the data set drifts, by its authors
OPSETS = {"": 18, "ai.onnx.ml": 3}
SEED = 20


def main():
    parser = argparse.ArgumentParser(description="Trains models/car_loan and writes it as ONNX.")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / MODEL, help="the model's directory")
    out = parser.parse_args().out
    if not (DATA / "synthetic_car_loan_reference.csv").is_file():
        sys.exit("train: no data in .artifacts/data; run `python3 scripts/fetch.py data` first")

    reference, analysis = load_reference(), load_analysis()
    training = reference[:TRAINING_ROWS]
    periods = {
        "held out (reference rows 40,000-49,999)": reference[TRAINING_ROWS:],
        "analysis before the drift (rows 0-24,999)": analysis[:DRIFT_ROW],
        "analysis after the drift (rows 25,000-49,999)": analysis[DRIFT_ROW:],
    }
    print("| version | rows | AUC | accuracy |\n|---|---|---|---|")
    for version, classifier in {1: logistic_regression(), 2: gradient_boosting()}.items():
        classifier.fit(training[list(COLUMNS)], training[TARGET])
        if version == 1:
            round_coefficients(classifier[-1])
        directory = out / str(version)
        directory.mkdir(parents=True, exist_ok=True)
        write_if_changed(directory / "model.onnx", to_bytes(classifier))
        session = onnxruntime.InferenceSession(str(directory / "model.onnx"))
        check(session, classifier, analysis)
        for name, rows in periods.items():
            report(version, name, session, rows)
        write_golden(directory / "golden", version, session, analysis)


# === data ===


def load_reference():
    return read_rows("synthetic_car_loan_reference.csv", with_target=True)


def load_analysis():
    rows = read_rows("synthetic_car_loan_analysis.csv", with_target=False)
    target = pd.read_csv(DATA / "synthetic_car_loan_analysis_target.csv")
    assert (rows.index == target["id"]).all(), "the targets belong to other rows"
    return rows.assign(**{TARGET: target[TARGET].to_numpy().astype(np.int64)})


def read_rows(name, with_target):
    """Numbers as float64, categories as the strings that the file holds ("True" stays a string)."""
    types = {column: np.float64 if numeric else str for column, numeric in COLUMNS.items()}
    columns = ["id", *COLUMNS] + ([TARGET] if with_target else [])
    rows = pd.read_csv(DATA / name, usecols=columns, dtype=types, index_col="id", keep_default_na=False)
    rows[CATEGORICAL] = rows[CATEGORICAL].astype(object)
    return rows.astype({TARGET: np.int64}) if with_target else rows


# === the two versions ===


def logistic_regression():
    return make_pipeline(features(StandardScaler()), LogisticRegression(C=1.0, tol=1e-8, max_iter=1000))


def gradient_boosting():
    trees = GradientBoostingClassifier(
        n_estimators=120, learning_rate=0.1, max_depth=4, min_samples_leaf=50, subsample=0.8, random_state=SEED
    )
    return make_pipeline(features(), trees)


def features(*scaler):
    """Missing numbers become the training median; a category never seen becomes no category at all."""
    numbers = make_pipeline(CastTransformer(dtype=np.float32), SimpleImputer(strategy="median"), *scaler)
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    return ColumnTransformer([("numbers", numbers, NUMERIC), ("categories", categories, CATEGORICAL)])


def round_coefficients(regression):
    """Drops the digits that differ from one processor's summation order to another's."""
    regression.coef_ = regression.coef_.round(4)
    regression.intercept_ = regression.intercept_.round(4)


# === ONNX ===


def to_bytes(classifier):
    """The classifier as ONNX: one [N, 1] tensor per column in, `label` [N] and `probabilities` [N, 2] out."""
    inputs = [
        (name, DoubleTensorType([None, 1]) if numeric else StringTensorType([None, 1]))
        for name, numeric in COLUMNS.items()
    ]
    model = to_onnx(
        classifier,
        initial_types=inputs,
        target_opset=OPSETS,
        options={id(classifier): {"zipmap": False}},
        name=MODEL,
    )
    graph = model.graph
    for tensor in [*graph.input, *graph.output]:
        tensor.type.tensor_type.shape.dim[0].dim_param = "N"
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)  # skl2onnx lists them in a set's order
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.producer_name, model.producer_version = "tidegate models/train.py", ""
    model.domain, model.model_version, model.doc_string = "", 0, ""
    helper.set_model_props(model, {"tidegate.columns.probabilities": json.dumps(CLASSES)})
    return model.SerializeToString(deterministic=True)


def check(session, classifier, rows):
    """ONNX answers as scikit-learn does, for one row, for many, and for rows with holes."""
    expected = classifier.predict_proba(rows[list(COLUMNS)])
    for n in (0, 1, 1000, len(rows)):
        label, probabilities = run(session, rows[:n])
        assert label.shape == (n,) and label.dtype == np.int64
        assert probabilities.shape == (n, 2) and probabilities.dtype == np.float32
        worst = np.abs(probabilities - expected[:n]).max(initial=0)
        assert worst < 1e-4, f"ONNX and scikit-learn differ by {worst}"
    holes = rows[:1].assign(**dict.fromkeys(NUMERIC, np.nan), **dict.fromkeys(CATEGORICAL, "never seen"))
    assert np.isfinite(run(session, holes)[1]).all()
    print(f"one row: {one_row_latency(session, rows):.0f} us", file=sys.stderr)


def one_row_latency(session, rows, runs=2000):
    """The median over `runs`, in microseconds."""
    inputs, taken = feed(rows[:1]), []
    for _ in range(runs):
        started = time.perf_counter()
        session.run(["label", "probabilities"], inputs)
        taken.append(time.perf_counter() - started)
    return np.median(taken) * 1e6


def feed(rows):
    return {name: rows[name].to_numpy().reshape(-1, 1) for name in COLUMNS}


def run(session, rows):
    return session.run(["label", "probabilities"], feed(rows))


def report(version, name, session, rows):
    label, probabilities = run(session, rows)
    auc = roc_auc_score(rows[TARGET], probabilities[:, 1])
    print(f"| {version} | {name} | {auc:.4f} | {accuracy_score(rows[TARGET], label):.4f} |")


# === golden requests ===


def write_golden(directory, version, session, analysis):
    edge = {
        "car_value": 0.0,
        "salary_range": "1M+ €",
        "debt_to_income_ratio": 1.0,
        "loan_length": 6.0,
        "repaid_loan_on_prev_car": "unknown",
        "size_of_downpayment": "100%",
        "driver_tenure": -0.0,
    }
    cases = {
        "single_row": analysis[:1],
        "batch_of_4": analysis[DRIFT_ROW - 2 : DRIFT_ROW + 2],
        "unseen_category": pd.DataFrame([edge]).astype(dict.fromkeys(CATEGORICAL, object)),
    }
    directory.mkdir(exist_ok=True)
    for name, rows in cases.items():
        inputs = [input_json(column, rows[column]) for column in COLUMNS]
        write_if_changed(directory / f"{name}.json", golden_text(version, inputs, *run(session, rows)).encode())


def golden_text(version, inputs, label, probabilities):
    """JSON with one tensor per line, for people to read."""

    def lines(tensors):
        return ",\n".join("   " + json.dumps(tensor, ensure_ascii=False) for tensor in tensors)

    return f"""{{
 "request": {{
  "inputs": [
{lines(inputs)}
  ]
 }},
 "response": {{
  "model_name": "{MODEL}",
  "model_version": "{version}",
  "outputs": [
{lines(output_json(label, probabilities))}
  ]
 }},
 "rtol": 1e-4,
 "atol": 1e-5
}}
"""


def input_json(name, values):
    datatype = "FP64" if COLUMNS[name] else "BYTES"
    return {"name": name, "shape": [len(values), 1], "datatype": datatype, "data": values.tolist()}


def output_json(label, probabilities):
    # str() of a float32 is its shortest exact decimal.
    shortest = [float(str(value)) for value in probabilities.ravel()]
    return [
        {"name": "label", "datatype": "INT64", "shape": list(label.shape), "data": label.tolist()},
        {"name": "probabilities", "datatype": "FP32", "shape": list(probabilities.shape), "data": shortest},
    ]


def write_if_changed(path, content):
    """Replaces the file by a rename, and not at all when its bytes would stay the same."""
    if path.is_file() and path.read_bytes() == content:
        return
    part = path.with_name("." + path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


if __name__ == "__main__":
    main()
