"""A real Prometheus with the shipped rules (Debian package `prometheus`), and its HTTP API."""

import contextlib
import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from conftest import ROOT

RULES = sorted((ROOT / "grafana" / "rules").glob("*.yml"))
STOP = 20  # seconds until Prometheus must be gone after SIGTERM


def eventually(probe, seconds=30.0):
    """The first true answer of `probe`, asked again and again; a failed assertion in it means not yet.

    After `seconds` the last failure is raised."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := probe():
                return answer
            failure = AssertionError(f"not so within {seconds} s")
        except (AssertionError, OSError) as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure
        time.sleep(0.2)


def promtool(*arguments, stdin=None):
    """What promtool says; it must be content."""
    finished = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=120)
    said = finished.stdout + finished.stderr
    assert finished.returncode == 0, said
    return said


def get(url):
    """Status and text of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


class Prometheus:
    """A running Prometheus, by its address `host:port`."""

    def __init__(self, address):
        self._url = f"http://{address}/api/v1"

    def api(self, path, **parameters):
        status, text = get(f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}")
        assert status == 200, f"{path} {parameters}: {text}"  # 503 while it starts
        answer = json.loads(text)
        assert answer["status"] == "success", f"{path} {parameters}: {text}"
        return answer["data"]

    def query(self, expression):
        """Labels and value of each sample of an instant vector."""
        data = self.api("query", query=expression)
        assert data["resultType"] == "vector", f"{expression} is a {data['resultType']}"
        return [(sample["metric"], float(sample["value"][1])) for sample in data["result"]]

    def query_range(self, expression):
        """Labels and value of each sample of the last minutes, every 5 seconds, as a panel over time asks."""
        now = time.time()
        data = self.api("query_range", query=expression, start=now - 120, end=now, step=5)
        return [(series["metric"], float(value)) for series in data["result"] for _, value in series["values"]]

    def rules(self):
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def value(self, expression):
        """The value of an expression that must have exactly one sample."""
        samples = self.query(expression)
        assert len(samples) == 1, f"{expression}: {samples}"
        return samples[0][1]


@contextlib.contextmanager
def prometheus(directory, *targets):
    """Runs a Prometheus that scrapes `targets` twice a second, and evaluates the shipped rules every second: groups that
    have an interval of their own, for what is too dear to compute often, do not keep it here."""
    rules = directory / "rules"
    rules.mkdir()
    for path in RULES:
        shipped = path.read_text()
        (rules / path.name).write_text(re.sub(r"^    interval: \w+\n", "", shipped, flags=re.MULTILINE))
    configuration, log = directory / "prometheus.yml", directory / "prometheus.log"
    configuration.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s}\n"
        f"rule_files: [{json.dumps(str(rules / '*.yml'))}]\n"
        f"scrape_configs: [{{job_name: tidegate, static_configs: [{{targets: {json.dumps(targets)}}}]}}]\n"
    )
    command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={directory / 'tsdb'}"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stdout=output, stderr=output)
    try:
        yield Prometheus(eventually(lambda: listening(process, log)))
    finally:
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listening(process, log):
    """The address that Prometheus says it listens on."""
    if process.poll() is not None:
        pytest.fail(f"Prometheus ended with exit code {process.returncode}:\n{log.read_text()}")
    said = re.search(r'msg="Listening on" address=(\S+)', log.read_text())
    return said and said[1]
