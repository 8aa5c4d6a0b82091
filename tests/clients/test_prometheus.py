"""The metrics, the shipped rules and the shipped dashboard, against a real Prometheus and a real gateway.

Needs `prometheus` and `promtool` (Debian package `prometheus`), and the car-loan data (`scripts/fetch.py data`).
"""

import csv
import itertools
import json
import math
import re
import subprocess

import pytest

from conftest import ANY_PORT, ROOT, running
from prometheus_server import RULES, eventually, get, prometheus

DASHBOARD = json.loads((ROOT / "grafana" / "dashboards" / "tidegate.json").read_text())
DATA = ROOT / ".artifacts" / "data" / "synthetic_car_loan_analysis.csv"
DRIFTS_FROM, ROWS, ROWS_PER_REQUEST = 25_000, 3_000, 50
FEATURE = "car_value"
NUMBERS = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
TEXTS = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")
SELECTOR = f'model="car_loan",version="2",feature="{FEATURE}"'

# What Grafana puts in for the variables of the dashboard.
VARIABLES = {"model": "car_loan", "version": ".*", "feature": FEATURE, "__rate_interval": "1m", "__interval": "15s"}


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries():
    """Every query of the dashboard: the title it stands under, and the query with the variables put in."""
    found = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    found += [(entry["name"], entry["expr"]) for entry in DASHBOARD["annotations"]["list"] if "expr" in entry]
    return [(title, substitute(query)) for title, query in found]


def substitute(query):
    query = re.sub(r"\$\{?(\w+)\}?", lambda match: VARIABLES[match[1]], query)
    assert "$" not in query
    return query


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


def promtool(*arguments, stdin=None):
    finished = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=120)
    said = finished.stdout + finished.stderr
    assert finished.returncode == 0, said
    return said


def test_rules_pass_promtool():
    assert "SUCCESS" in promtool("check", "rules", RULES)


def test_rules_pass_their_unit_tests():
    assert "SUCCESS" in promtool("test", "rules", RULES.with_name("tidegate_test.yml"))


def test_every_rule_has_a_unit_test_and_every_alert_says_what_to_do():
    rules, tests = RULES.read_text(), RULES.with_name("tidegate_test.yml").read_text()
    records, alerts = (re.findall(rf"- {kind}: (\S+)", rules) for kind in ("record", "alert"))
    assert records and alerts
    assert [name for name in records if name not in tests] == []
    for alert in alerts:
        tested = re.findall(rf"alertname: {alert}\n\s*exp_alerts: ?(\[\])?", tests)
        assert "[]" in tested and "" in tested, f"{alert} must be tested firing and not firing: {tested}"
    for block in re.split(r"- alert: ", rules)[1:]:
        for key in ("severity:", "summary:", "description:", "action:"):
            assert key in block, f"{block.split()[0]} lacks {key}"
        assert "$value" in block or "absent(" in block, f"{block.split()[0]} does not say the value"


def test_dashboard_is_portable_and_explains_itself():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({panel["title"] for panel in panels()}) == len(panels())
    for panel in panels():
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for part in [panel, *panel["targets"]]:
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


def test_panels_do_not_overlap():
    taken = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x, y in itertools.product(range(place["w"]), range(place["h"])):
            other = taken.setdefault((place["x"] + x, place["y"] + y), panel["title"])
            assert other == panel["title"], f"{other} and {panel['title']} overlap"


@pytest.fixture(scope="module")
def drifted(tmp_path_factory):
    """A gateway and the Prometheus that watches it, after drifted rows, a promotion and a refused request."""
    directory = tmp_path_factory.mktemp("prometheus")
    with running(directory, *ANY_PORT) as gateway, prometheus(directory, gateway.metrics) as server:
        # `increase` counts from the first sample on: Prometheus must have seen the counters at 0.
        eventually(lambda: server.query(f"count_over_time(tidegate_feature_bin_total{{{SELECTOR}}}[1m]) > 1"))
        for request in requests_of(DATA, DRIFTS_FROM, ROWS):
            status, answer = gateway.infer("car_loan", request)
            assert (status, answer.get("model_version")) == (200, "2"), answer
        assert gateway.infer("car_loan", {"inputs": []})[0] == 400
        for version in ("1", "2"):
            assert gateway.cli("promote", "car_loan", version).returncode == 0
        eventually(lambda: server.value(f"tidegate:feature_rows:increase5m{{{SELECTOR}}}") > 0.95 * ROWS)
        yield gateway, server


def test_metrics_pass_promtool(drifted):
    status, text = get(f"http://{drifted[0].metrics}/metrics")
    assert status == 200
    assert promtool("check", "metrics", stdin=text) == ""


def test_target_is_up(drifted):
    gateway, server = drifted
    assert server.query("up") == [({"__name__": "up", "instance": gateway.metrics, "job": "tidegate"}, 1.0)]


def test_rules_are_evaluated_without_errors(drifted):
    _, server = drifted
    rules = [rule for group in server.api("rules")["groups"] for rule in group["rules"]]
    assert rules and [rule for rule in rules if rule["health"] != "ok"] == []


def test_every_name_in_dashboard_and_rules_exists(drifted):
    gateway, server = drifted
    rules = [rule for group in server.api("rules")["groups"] for rule in group["rules"]]
    known = set(re.findall(r"# TYPE (\S+)", get(f"http://{gateway.metrics}/metrics")[1]))
    known |= {rule["name"] for rule in rules if rule["type"] == "recording"}
    used = " ".join([rule["query"] for rule in rules] + [query for _, query in queries()])
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\btidegate[:_][\w:]+", used)}
    assert names - known == set()


@pytest.mark.parametrize("query", [pytest.param(query, id=title) for title, query in queries()])
def test_every_query_of_the_dashboard_yields_numbers(drifted, query):
    _, server = drifted
    eventually(lambda: any(math.isfinite(value) for _, value in server.query(query)))


def test_variables_of_the_dashboard_have_values(drifted):
    _, server = drifted
    found = {}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
            series = server.api("series", **{"match[]": substitute(selector)})
            found[variable["name"]] = {labels[label] for labels in series}
    assert found["model"] == {"car_loan", "magika"}
    assert found["version"] == {"1", "2"}
    assert found["feature"] >= {*NUMBERS, *TEXTS}


def test_recorded_psi_agrees_with_the_gateway(drifted):
    gateway, server = drifted

    def agrees():
        status, text = get(f"http://{gateway.admin}/admin/v1/models/car_loan/drift?version=2")
        assert status == 200, text
        report = {feature["feature"]: feature for feature in json.loads(text)["features"]}
        assert report[FEATURE]["rows"] == ROWS, "all traffic must be in the gateway's window"
        for name in (*NUMBERS, *TEXTS):
            labels = f'model="car_loan",version="2",feature="{name}"'
            recorded = server.value(f"tidegate:feature_psi:5m{{{labels}}}")
            assert recorded == pytest.approx(report[name]["measures"]["psi"], rel=0.05, abs=0.001), name
        assert server.value(f"tidegate:feature_psi:5m{{{SELECTOR}}}") > 1
        return True

    eventually(agrees)


def test_drift_alert_is_raised_for_the_features_that_drifted(drifted):
    _, server = drifted

    def raised():
        alerts = [alert for alert in server.api("alerts")["alerts"] if alert["state"] in ("pending", "firing")]
        labels = [alert["labels"] for alert in alerts if alert["labels"]["alertname"] == "TidegateFeatureDrift"]
        return {drift["feature"] for drift in labels if drift["version"] == "2"}

    features = eventually(raised)
    assert FEATURE in features
    assert features.isdisjoint({"debt_to_income_ratio", "driver_tenure", "size_of_downpayment"})
