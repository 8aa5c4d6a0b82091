"""The shipped dashboards as files: portable, explained, and sound. Their queries are run in test_prometheus.py."""

import itertools
import re

import pytest

from conftest import ROOT
from dashboards import DASHBOARDS, panels

each = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def test_dashboards_are_those_that_the_page_tells_of():
    assert set(DASHBOARDS) == {"overview", "drift", "release"}
    page = (ROOT / "grafana" / "README.md").read_text()
    assert set(re.findall(r"dashboards/(\w+)\.json", page)) == set(DASHBOARDS)
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@each
def test_dashboard_is_portable(dashboard):
    assert dashboard["id"] is None and dashboard["uid"] and dashboard["schemaVersion"] == 39  # Grafana 10.4
    declared = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert declared[:2] == ["datasource", "model"]
    for panel in panels(dashboard):
        for part in [panel, *panel["targets"]]:
            assert part["datasource"] == SOURCE, panel["title"]
    for entry in dashboard["annotations"]["list"]:
        assert entry["datasource"] == SOURCE or entry["builtIn"], entry["name"]
    used = set(re.findall(r"\$\{?([a-z]\w*)", repr(dashboard)))
    assert used <= {*declared}, used - {*declared}
    assert {*declared} <= used


@each
def test_every_panel_explains_itself(dashboard):
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len({panel["title"] for panel in panels(dashboard)}) == len(panels(dashboard))
    for panel in dashboard["panels"]:
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
    for panel in panels(dashboard):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0, panel["title"]
        for target in panel["targets"]:
            assert target["instant"] != target["range"], panel["title"]


@each
def test_panels_do_not_overlap(dashboard):
    taken = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x, y in itertools.product(range(place["w"]), range(place["h"])):
            other = taken.setdefault((place["x"] + x, place["y"] + y), panel["title"])
            assert other == panel["title"], f"{other} and {panel['title']} overlap"


def test_drift_has_a_heat_map_of_features_and_a_histogram_of_one():
    by_type = {panel["type"]: panel for panel in panels(DASHBOARDS["drift"])}
    [heat] = by_type["status-history"]["targets"]
    assert "by (tensor, feature)" in heat["expr"] and heat["legendFormat"] == "{{feature}}"
    reference, live = (target["expr"] for target in by_type["barchart"]["targets"])
    assert 'feature="$feature"' in reference and 'feature="$feature"' in live
    assert "psi_bin:reference" in reference and "psi_bin:ratio$window" in live


@each
def test_versions_and_rollouts_are_annotations(dashboard):
    names = {entry["name"] for entry in dashboard["annotations"]["list"]}
    assert {"Versions made stable", "Rollouts", "Release changes"} <= names


def test_panels_that_runbooks_name_exist():
    names = {part["title"] for dashboard in DASHBOARDS.values() for part in [dashboard, *dashboard["panels"]]}
    for page in (ROOT / "docs" / "runbooks").glob("*.md"):
        for name in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", page.read_text()):
            assert name in names, f"{page.name}: {name}"
