#!/usr/bin/env python3
"""Trains two versions of a classifier of irises and exports them as ONNX, with the files that docs/SERVE.md uses.

    python3 -m venv .venv && .venv/bin/pip install -r ../../models/requirements.txt
    .venv/bin/python export.py

writes exported/1.onnx (logistic regression), exported/2.onnx (a small forest), reference.csv (the training data), request.json
(one request), and later.csv (what a later season might send: longer petals). The same packages write the same bytes.
"""

import csv
import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def main():
    flowers = load_iris()
    rows = flowers.data.astype(np.float32)
    models = {
        1: make_pipeline(StandardScaler(), LogisticRegression()),
        2: RandomForestClassifier(n_estimators=10, max_depth=4, random_state=0),
    }
    (HERE / "exported").mkdir(exist_ok=True)
    for version, model in models.items():
        model.fit(rows, flowers.target)
        # Without zipmap: the probabilities are one tensor, [rows, classes].
        exported = to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=17)
        (HERE / f"exported/{version}.onnx").write_bytes(exported.SerializeToString())
        print(f"version {version}: {model.score(rows, flowers.target):.3f} of the training data right")
    write_csv("reference.csv", rows)
    write_csv("later.csv", rows * np.array([1, 1, 1.25, 1], dtype=np.float32))
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}
    (HERE / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n", encoding="utf-8")


def write_csv(name, rows):
    with (HERE / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([f"{value:.6g}" for value in row] for row in rows)


if __name__ == "__main__":
    main()
