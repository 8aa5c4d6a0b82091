"""The metrics, the shipped rules and the shipped dashboards, against a real Prometheus and a fleet of real gateways.

Needs `prometheus` and `promtool` (Debian package `prometheus`), and the car-loan data (`scripts/fetch.py data`).
"""

import contextlib
import csv
import itertools
import json
import math
import re
import shutil
from dataclasses import dataclass

import pytest

import dashboards
from conftest import ANY_PORT, ROOT, Gateway, running
from prometheus_server import Prometheus, eventually, get, prometheus, promtool

DATA = ROOT / ".artifacts" / "data" / "synthetic_car_loan_analysis.csv"
DRIFTS_FROM, ROWS_PER_REQUEST = 25_000, 50
FEATURE = "car_value"
NUMBERS = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
TEXTS = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")
SELECTOR = f'model="car_loan",version="2",feature="{FEATURE}"'

# First row and number of rows for each gateway: half drifted, not drifted, drifted.
SHARES = ((DRIFTS_FROM - 1_500, 3_000), (0, 300), (DRIFTS_FROM, 8_000))


def requests_of(path, start, rows):
    """Inference requests of the rows of the car-loan file from row `start` on."""
    with open(path, encoding="utf-8", newline="") as file:
        chosen = list(itertools.islice(csv.DictReader(file), start, start + rows))
    for at in range(0, rows, ROWS_PER_REQUEST):
        batch = chosen[at : at + ROWS_PER_REQUEST]
        numbers = [column(batch, name, "FP64", float) for name in NUMBERS]
        yield {"inputs": numbers + [column(batch, name, "BYTES", str) for name in TEXTS]}


def column(rows, name, datatype, convert):
    values = [convert(row[name]) for row in rows]
    return {"name": name, "datatype": datatype, "shape": [len(values), 1], "data": values}


@dataclass
class Fleet:
    gateways: list[Gateway]
    prometheus: Prometheus

    def reports(self):
        """What each gateway says of the drift of version 2."""
        for gateway in self.gateways:
            status, text = get(f"http://{gateway.admin}/admin/v1/models/car_loan/drift?version=2")
            assert status == 200, text
            yield json.loads(text)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Three gateways, one Prometheus that watches all, and traffic: rows that drift more and less, a rollout that
    goes on and a shadow on the first, a promotion, and a request that is refused."""
    directory = tmp_path_factory.mktemp("fleet")
    models = directory / "models"
    shutil.copytree(ROOT / "models" / "car_loan", models / "car_loan")
    with contextlib.ExitStack() as stack:
        gateways = [
            stack.enter_context(running(directory / name, *ANY_PORT, models=models)) for name in ("a", "b", "c")
        ]
        server = stack.enter_context(prometheus(directory, *(gateway.metrics for gateway in gateways)))
        fleet = Fleet(gateways, server)
        begin_release(gateways[0], models / "car_loan")
        # `increase` counts from the first sample on: Prometheus must have seen the counters before they grow.
        seen = f"count(count_over_time(tidegate_feature_bin_total{{{SELECTOR}}}[1m]) > 1) by (instance)"
        eventually(lambda: len(server.query(seen)) == len(gateways))
        assert gateways[0].infer("car_loan", next(requests_of(DATA, 0, 1)), version=3)[0] == 200
        eventually(lambda: server.query("tidegate_shadow_compared_rows_total"))
        for gateway, (start, rows) in zip(gateways, SHARES):
            for request in requests_of(DATA, start, rows):
                status, answer = gateway.infer("car_loan", request)
                assert status == 200, answer
        assert gateways[0].infer("car_loan", {"inputs": []})[0] == 400
        for version in ("1", "2"):
            assert gateways[1].cli("promote", "car_loan", version).returncode == 0
        yield fleet


def begin_release(gateway, model):
    """Has version 3, which is 2 again, rolled out beside it, and 1 shadow both."""
    shutil.copytree(model / "2", model.parent / "new", ignore=shutil.ignore_patterns("manifest*"))
    (model.parent / "new").rename(model / "3")
    assert gateway.cli("load", "car_loan", "3").returncode == 0
    started = gateway.cli("rollout", "start", "car_loan", "--version", "3", "--steps", "50,100", "--interval", "1h")
    assert started.returncode == 0, started.stderr
    assert gateway.cli("shadow", "car_loan", "--version", "1", "--percent", "100").returncode == 0


def test_metrics_pass_promtool(fleet):
    status, text = get(f"http://{fleet.gateways[0].metrics}/metrics")
    assert status == 200
    assert promtool("check", "metrics", stdin=text) == ""


def test_targets_are_up(fleet):
    addresses = {gateway.metrics for gateway in fleet.gateways}
    up = 'up{job="tidegate"} == 1'
    eventually(lambda: {labels["instance"] for labels, _ in fleet.prometheus.query(up)} == addresses)


def test_every_name_in_dashboards_and_rules_exists(fleet):
    rules = fleet.prometheus.rules()
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    used = " ".join([rule["query"] for rule in rules] + [query.expression for query in dashboards.queries()])
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\btidegate[:_][\w:]+", used)}


    def unknown():
        return names - recorded - set(re.findall(r"# TYPE (\S+)", get(f"http://{fleet.gateways[0].metrics}/metrics")[1]))

    eventually(lambda: unknown() == set())  # a shadow's scores are there once 500 rows were compared


@pytest.mark.parametrize("query", [pytest.param(query, id=query.place) for query in dashboards.queries()])
def test_every_query_of_the_dashboards_yields_numbers(fleet, query):
    ask = fleet.prometheus.query if query.instant else fleet.prometheus.query_range
    eventually(lambda: any(math.isfinite(value) for _, value in ask(query.expression)))


def test_variables_of_the_dashboards_have_values(fleet):
    for dashboard, name, selector, label in dashboards.variables():
        values = {labels[label] for labels in fleet.prometheus.api("series", **{"match[]": selector})}
        expected = {"model": {"car_loan"}, "version": {"1", "2", "3"}, "feature": {*NUMBERS, *TEXTS}}[name]
        assert values >= expected, f"{dashboard}: {name}"


def test_drift_alert_is_raised_for_the_feature_that_drifted(fleet):
    def raised():
        alerts = [alert["labels"] for alert in fleet.prometheus.api("alerts")["alerts"]]
        drifts = [labels for labels in alerts if labels["alertname"] == "TidegateFeatureDrift"]
        return {labels["feature"] for labels in drifts if labels["version"] == "2"}

    features = eventually(raised)
    assert FEATURE in features
    assert features.isdisjoint({"debt_to_income_ratio", "driver_tenure", "size_of_downpayment"})


def folded(feature):
    """The rows by bin of the PSI: the reference's, and the live ones."""
    bins = {entry["bin"]: (entry["reference"], entry["live"]) for entry in feature["bins"]}
    del bins["missing"]
    if feature["kind"] == "numeric":
        del bins["nonfinite"]
        below, above = bins.pop("below"), bins.pop("above")
        rows = [list(both) for both in bins.values()]
        for inner, outer in ((rows[0], below), (rows[-1], above)):
            inner[:] = map(sum, zip(inner, outer))
    else:
        rows = [both for name, both in bins.items() if name != "unseen" or any(both)]
    return list(zip(*rows))


def psi(reference, live):
    """The population stability index, each bin smoothed by half a row."""
    def shares(rows):
        return [(count + 0.5) / (sum(rows) + 0.5 * len(rows)) for count in rows]

    return sum((q - p) * math.log(q / p) for p, q in zip(shares(reference), shares(live)))


@pytest.mark.parametrize("window", ["5m", "1h", "24h"])
def test_recorded_psi_is_that_of_the_sum_of_all_replicas(fleet, window):
    """To 1 %. `increase` extrapolates to the time of evaluation, each replica's rows by up to one scrape in all that it
    has seen: by the same factor in all bins of a replica, which cancels, but not the same in all replicas. After 45
    scrapes their weights are at most 2.2 % apart, which moves the PSI of these rows (nine in ten drifted) by less
    than 1 %."""
    scrapes = 'count_over_time(up{job="tidegate"}[5m])'
    eventually(lambda: min(count for _, count in fleet.prometheus.query(scrapes)) > 45, seconds=60)
    reports = [{feature["feature"]: feature for feature in report["features"]} for report in fleet.reports()]
    counted = fleet.prometheus.value(f"sum(tidegate_feature_observations_total{{{SELECTOR}}})")
    assert sum(report[FEATURE]["rows"] for report in reports) == counted, "all traffic must be in the gateways' window"
    for name in (*NUMBERS, *TEXTS):
        rows = [folded(report[name]) for report in reports]
        scores = [report[name]["measures"]["psi"] for report in reports]
        assert [psi(reference, live) for reference, live in rows] == pytest.approx(scores, rel=1e-9)
        exact = psi(rows[0][0], list(map(sum, zip(*(live for _, live in rows)))))
        labels = f'model="car_loan",version="2",feature="{name}"'
        recorded = fleet.prometheus.value(f"tidegate:feature_psi:{window}{{{labels}}}")
        assert recorded == pytest.approx(exact, rel=0.01, abs=1e-4), name
        if name == FEATURE:
            assert exact > 0.5 and abs(sum(scores) / len(scores) / exact - 1) > 0.2, "a mean of scores is no score"


def test_rules_are_evaluated_without_errors(fleet):
    """Last, so that there is all that they could stumble over."""
    rules = fleet.prometheus.rules()
    assert rules and [rule for rule in rules if rule["health"] != "ok"] == []
