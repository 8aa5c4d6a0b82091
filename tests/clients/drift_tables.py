"""Tables for people to read: what the monitor says beside what NumPy and SciPy say. `pytest -s` shows them."""

from drift_truth import OF_BINS, OF_VALUES

SHOWN = {"psi": "PSI", "js": "JS", "ks_exact": "KS", "wasserstein_over_std": "W/σ"}
# Three columns of each set and, where it drifts, a chunk before and the first after.
EXAMPLES = {
    "car_loan": (("car_value", "loan_length", "salary_range"), (0, 5)),
    "car_loan_dq": (("driver_tenure", "salary_range", "size_of_downpayment"), (0, 5)),
    "regression": (("km_driven", "door_count", "y_pred"), (0, 5)),
    "employment_MA": (("AGEP", "ANC", "predicted_probability"), (0, 28)),
}
# From the same study as the truth; it looks at one column of numbers at a time.
ADWIN = {"car_value": "103", "loan_length": "327", "y_pred_proba": "7,431"}


def table(title, header, rows):
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")


def measures(data_set, reports):
    """Ours, the truth and the difference, for the examples of a set."""
    columns, numbers = EXAMPLES[data_set.name]
    rows = []
    for column in columns:
        for chunk in data_set.chunks[column]:
            if chunk.number not in numbers:
                continue
            feature = reports[chunk.number][column]
            for name, title in SHOWN.items():
                if name in chunk.measures:
                    ours, truth = feature["measures"][(OF_BINS | OF_VALUES)[name]], chunk.measures[name]
                    rows.append(
                        (column, chunk.number, title, f"{ours:.6f}", f"{truth:.6f}", f"{ours - truth:+.1e}"),
                    )
    table(f"{data_set.name}: measures", ("column", "chunk", "measure", "ours", "truth", "difference"), rows)


def states(data_set, reports):
    """The corrected PSI of every column and chunk, and the verdict where it is not `ok`."""
    rows = [(number, *(cell(features[column]) for column in data_set.columns)) for number, features in reports.items()]
    table(f"{data_set.name}: PSI corrected, and the verdict where it is not ok", ("chunk", *data_set.columns), rows)


def cell(feature):
    corrected = f"{feature['measures']['psi_corrected']:.4f}"
    return corrected if feature["state"] == "ok" else f"{corrected} {feature['state']}"


def detection(data_set, scenarios, most):
    """Drifted rows until the verdict on a column was `drift`, by scenario, of `most` rows sent."""
    rows = [
        (column, *(f"{found[column]:,}" if column in found else f"> {most:,}" for found in scenarios.values()))
        + (ADWIN.get(column, "not run"),)
        for column in sorted(data_set.drifted)
    ]
    header = ("column", *scenarios, "ADWIN of river 0.26.1, after 75,000 clean rows")
    table(f"{data_set.name}: rows until drift is declared", header, rows)
