"""The shipped dashboards, and their queries as Grafana would send them."""

import json
import re
from dataclasses import dataclass

from conftest import ROOT

DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))}

# What Grafana puts in for the variables.
VARIABLES = {
    "model": "car_loan",
    "version": "2",
    "feature": "car_value",
    "window": "5m",
    "__rate_interval": "1m",
    "__interval": "15s",
}


@dataclass(frozen=True)
class Query:
    place: str  # dashboard, title, and where there are several the letter of the query
    expression: str  # with the variables put in
    instant: bool  # asked for now; otherwise for a span of time


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries():
    """Every query of every dashboard: of its panels and of its annotations."""
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                place = f"{name}: {panel['title']} {target['refId'] if len(panel['targets']) > 1 else ''}"
                yield Query(place.strip(), substitute(target["expr"]), target["instant"])
        for entry in dashboard["annotations"]["list"]:
            if "expr" in entry:
                yield Query(f"{name}: {entry['name']}", substitute(entry["expr"]), instant=False)


def variables():
    """Dashboard, name, and the selector and label that each queried variable takes its values from."""
    for name, dashboard in DASHBOARDS.items():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
                yield name, variable["name"], substitute(selector), label


def substitute(query):
    query = re.sub(r"\$\{?(\w+)\}?", lambda match: VARIABLES[match[1]], query)
    assert "$" not in query
    return query
