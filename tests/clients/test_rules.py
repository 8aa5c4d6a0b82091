"""The shipped rules and runbooks, without a gateway: promtool, unit tests, and what each alert owes its reader.

Needs `promtool` (Debian package `prometheus`), and the gateway's binary for its help.
"""

import functools
import re

import pytest

from conftest import ROOT, run_binary
from prometheus_server import RULES, promtool

RUNBOOKS = ROOT / "docs" / "runbooks"
REPOSITORY = "https://github.com/tidegate/tidegate/blob/main/"
TESTS = sorted((ROOT / "grafana" / "rules" / "tests").glob("*_test.yml"))
ANNOTATIONS = ("summary", "description", "action", "runbook_url")


def rules():
    return "\n".join(path.read_text() for path in RULES)


def blocks(kind):
    """Name and text of each rule of a kind (`record` or `alert`)."""
    for block in re.split(r"\n(?=      - (?:record|alert): |  - name: )", rules()):
        if found := re.match(rf"      - {kind}: (\S+)", block):
            yield found[1], block


def test_rules_pass_promtool():
    assert "SUCCESS" in promtool("check", "rules", *RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_pass_their_unit_tests(path):
    assert "SUCCESS" in promtool("test", "rules", path)


def test_every_rule_has_a_unit_test():
    tests = "\n".join(path.read_text() for path in TESTS)
    records, alerts = (dict(blocks(kind)) for kind in ("record", "alert"))
    assert len(records) > 30 and len(alerts) > 15
    for name in records:
        assert re.search(rf"- expr: .*{name}\b", tests), f"{name} has no unit test"
    for alert in alerts:
        tested = re.findall(rf"alertname: {alert}\n\s*exp_alerts: ?(\[\])?", tests)
        assert "[]" in tested and "" in tested, f"{alert} must be tested firing and not firing: {tested}"


def test_every_alert_says_what_to_do():
    for alert, block in blocks("alert"):
        assert re.search(r"severity: (critical|warning|info)\n", block), alert
        for key in ANNOTATIONS:
            assert f"          {key}: " in block, f"{alert} lacks {key}"
        description = re.search(r"description: (.*)", block)[1]
        assert "$value" in description or "absent(" in block, f"{alert} does not say the value"


def test_drift_rules_are_the_same_over_every_range():
    groups = dict(re.findall(r"  - name: tidegate_drift_(\w+)\n(.*?)(?=\n  - name|\Z)", rules(), re.DOTALL))
    assert set(groups) == {"5m", "1h", "24h"}

    def normal(span):
        code = "\n".join(line for line in groups[span].splitlines() if not line.strip().startswith("#"))
        rule = dict(re.findall(r"      - record: (\S+)\n(.*?)(?=\n      - |\n\n|\Z)", code, re.DOTALL))
        for reference in ("psi_bin", "feature_rows"):
            rule.pop(f"tidegate:{reference}:reference", None)  # the same over every range, so it is there once
        return {name.replace(span, "RANGE"): text.replace(span, "RANGE").strip() for name, text in rule.items()}

    assert len(normal("5m")) == 9
    assert normal("5m") == normal("1h") == normal("24h")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    pages = {path: path.read_text() for path in RUNBOOKS.glob("*.md")}
    linked = set()
    for alert, block in blocks("alert"):
        url = re.search(r"runbook_url: (\S+)", block)[1]
        assert url.startswith(REPOSITORY), url
        path = ROOT / url.removeprefix(REPOSITORY)
        assert alert in pages[path].splitlines()[0], f"the head of {path.name} does not name {alert}"
        linked.add(path)
    assert linked == set(pages)


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_runbook_is_short_and_what_it_names_exists(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 60, "nobody reads more at night"
    for part in ("**What ", "**First look**", "**Likely causes", "**What to do", "**Silence, adjust.**"):
        assert part in text, f"lacks {part}"
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (path.parent / link).is_file(), link
    for alert in re.findall(r"\bTidegate[A-Z]\w+", text):
        assert alert in dict(blocks("alert")), alert
    commands = re.findall(r"`tidegate ([a-z][^`]*)`", text)
    commands += re.findall(r"^tidegate ([a-z][^|#\n]*)", text, re.MULTILINE)
    assert commands
    for command in commands:
        words = command.split()
        nested = 2 if words[0] in ("rollout", "config") else 1
        help_text = help_of(*words[:nested])
        for option in re.findall(r"--[\w-]+", command):
            assert option in help_text, f"`tidegate {command}`: no {option}"


@functools.cache
def help_of(*words):
    """The help of a command; the words must be one."""
    finished = run_binary(*words, "--help")
    assert finished.returncode == 0, f"tidegate {' '.join(words)}: {finished.stderr}"
    return finished.stdout


def test_configuration_on_the_page_is_valid(tmp_path):
    page = (ROOT / "grafana" / "README.md").read_text()
    [example] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(example.replace("/path/to/grafana", str(ROOT / "grafana")))
    assert f"{len(RULES)} rule files found" in promtool("check", "config", configuration)
