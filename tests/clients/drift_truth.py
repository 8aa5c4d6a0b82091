"""Data sets with known drift: their rows, the truth about them, and a model whose monitor sees them.

The rows come from `scripts/fetch.py data`, the truth from tests/data/drift (see the README there).
"""

import csv
import functools
import json
import math
import shutil
from dataclasses import dataclass

import numpy as np
import onnx
import pyarrow.parquet
from onnx import TensorProto, helper

from conftest import ROOT, run_binary

ROWS = ROOT / ".artifacts" / "data"
TRUTH = ROOT / "tests" / "data" / "drift"
# An output may not have an input's name, and the truth is about a column, whichever side of the model it is on.
ANSWERED = "answered_"

ONNX_TYPES = {"FP64": TensorProto.DOUBLE, "INT64": TensorProto.INT64, "BYTES": TensorProto.STRING}


@dataclass(frozen=True)
class Chunk:
    """The truth about one column in one chunk of later rows."""

    number: int
    rows: int
    missing: int
    unseen: int
    # Rows by bin of the reference; the unseen ones are not among them.
    counts: list[int]
    # By the name that the table has for a measure; only those that have a meaning for the column.
    measures: dict[str, float]


@dataclass(frozen=True)
class DataSet:
    name: str
    reference: str
    later: str
    chunk_rows: int
    # The columns and their datatypes.
    columns: dict[str, str]
    # The columns that the model gives back.
    outputs: tuple[str, ...]
    # The columns whose values drift, from which chunk on.
    drifted: frozenset[str] = frozenset()
    drifts_from: int = 5

    @functools.cached_property
    def references(self):
        """The truth about the reference rows, by column."""
        return json.loads((TRUTH / f"{self.name}_reference.json").read_text(encoding="utf-8"))

    @functools.cached_property
    def chunks(self):
        """The truth about the later rows: by column, its chunks in order."""
        found = {column: [] for column in self.columns}
        with open(TRUTH / f"{self.name}_chunks.csv", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["period"] == "analysis":
                    found[row["column"]].append(read_chunk(row))
        return found

    @property
    def chunk_numbers(self):
        """The chunks that the truth knows, which stand in versions 1, 2, … of the model."""
        return [chunk.number for chunk in next(iter(self.chunks.values()))]

    @functools.cached_property
    def rows(self):
        """The later rows as tensors by column: a missing number is NaN, a missing text is empty."""
        read = read_parquet if self.later.endswith(".pq") else read_csv
        found = read(ROWS / self.later, self.columns)
        return {column: to_tensor(values, self.columns[column]) for column, values in found.items()}

    def is_drifted(self, column, chunk):
        return column in self.drifted and chunk >= self.drifts_from

    def model(self):
        """A model that takes every column and gives back the predictions among them."""
        value = lambda name, column: helper.make_tensor_value_info(name, ONNX_TYPES[self.columns[column]], ["N", 1])
        nodes = [helper.make_node("Identity", [column], [ANSWERED + column]) for column in self.outputs]
        inputs = [value(column, column) for column in self.columns]
        outputs = [value(ANSWERED + column, column) for column in self.outputs]
        graph = helper.make_graph(nodes, self.name, inputs, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def write_model(self, repository):
        """The model in a repository: a version for each chunk, all with the profile of the reference rows."""
        versions = [repository / self.name / str(1 + at) for at in range(len(self.chunk_numbers))]
        versions[0].mkdir(parents=True)
        (versions[0] / "model.onnx").write_bytes(self.model())
        made = run_binary("profile", versions[0], "--data", ROWS / self.reference)
        assert made.returncode == 0, made.stderr
        for version in versions[1:]:
            shutil.copytree(versions[0], version)

    def profile(self, repository):
        """The features of the profile that are of one column, by name."""
        profile = json.loads((repository / self.name / "1" / "profile.json").read_text(encoding="utf-8"))
        return {feature["feature"]: feature for feature in profile["features"] if feature["role"] != "joint"}


def column_of(feature):
    """The column whose truth is that of a feature."""
    return feature.removeprefix(ANSWERED)


# === Rows


def read_csv(path, columns):
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        by_column = dict(zip(header, zip(*rows, strict=True), strict=True))
    return {column: by_column[column] for column in columns}


def read_parquet(path, columns):
    table = pyarrow.parquet.read_table(path, columns=list(columns))
    return {column: table.column(column).to_pylist() for column in columns}


def to_tensor(values, datatype):
    match datatype:
        case "FP64":
            array = np.array([math.nan if value in ("", None) else float(value) for value in values])
        case "INT64":
            array = np.array([int(value) for value in values], np.int64)
        case "BYTES":
            array = np.array([(value or "").encode() for value in values], np.object_)
    return array.reshape(-1, 1)


# === Truth

# The measures, by the names that the table and the gateway have for them.
OF_BINS = {
    "psi": "psi",
    "js": "jensen_shannon",
    "hellinger": "hellinger",
    "tvd": "total_variation",
    "chi2": "chi_square",
    "chi2_p": "p_value",
}
OF_VALUES = {"ks_exact": "kolmogorov_smirnov", "wasserstein_over_std": "wasserstein"}


def read_chunk(row):
    counts, unseen = [int(rows) for rows in row["counts"].split()], int(row["unseen"] or 0)
    if unseen:
        assert counts.pop() == unseen
    measures = {name: float(row[name]) for name in OF_BINS | OF_VALUES if row[name]}
    return Chunk(int(row["chunk"]), int(row["n"]), int(row["missing"]), unseen, counts, measures)


# === The sets

CAR_LOAN_COLUMNS = {
    "car_value": "FP64",
    "salary_range": "BYTES",
    "debt_to_income_ratio": "FP64",
    "loan_length": "FP64",
    "repaid_loan_on_prev_car": "BYTES",
    "size_of_downpayment": "BYTES",
    "driver_tenure": "FP64",
    "y_pred_proba": "FP64",
    "y_pred": "INT64",
}
CAR_LOAN_DRIFTED = frozenset(
    ["car_value", "loan_length", "salary_range", "repaid_loan_on_prev_car", "y_pred_proba"],
)
REGRESSION_COLUMNS = {
    "car_age": "FP64",
    "km_driven": "FP64",
    "price_new": "FP64",
    "accident_count": "BYTES",
    "door_count": "BYTES",
    "fuel": "BYTES",
    "transmission": "BYTES",
    "y_pred": "FP64",
}
EMPLOYMENT_COLUMNS = {
    "AGEP": "FP64",
    "SCHL": "BYTES",
    "MIG": "BYTES",
    "ANC": "BYTES",
    "RAC1P": "BYTES",
    "predicted_probability": "FP64",
}

SETS = {
    data_set.name: data_set
    for data_set in [
        DataSet(
            "car_loan",
            "synthetic_car_loan_reference.csv",
            "synthetic_car_loan_analysis.csv",
            5_000,
            CAR_LOAN_COLUMNS,
            ("y_pred_proba", "y_pred"),
            CAR_LOAN_DRIFTED,
        ),
        DataSet(
            "car_loan_dq",
            "synthetic_car_loan_dq_reference.csv",
            "synthetic_car_loan_dq_analysis.csv",
            5_000,
            CAR_LOAN_COLUMNS,
            ("y_pred_proba", "y_pred"),
            CAR_LOAN_DRIFTED,
        ),
        DataSet(
            "regression",
            "regression_synthetic_reference.csv",
            "regression_synthetic_analysis.csv",
            6_000,
            REGRESSION_COLUMNS,
            ("y_pred",),
            frozenset(REGRESSION_COLUMNS),
        ),
        # Nobody knows from which row on; the truth has its distances.
        DataSet(
            "employment_MA",
            "employment_MA_reference.pq",
            "employment_MA_analysis.pq",
            5_000,
            EMPLOYMENT_COLUMNS,
            ("predicted_probability",),
        ),
    ]
}
