"""Counters over everything that ends or replaces a version's monitor, as a real Prometheus with the shipped rules sees them.

Needs `prometheus` (Debian package `prometheus`), and the car-loan data (`scripts/fetch.py data`).
"""

import json
import shutil
import signal
import subprocess
import time

import pytest

from conftest import ANY_PORT, BINARY, ROOT, STOP, Gateway, environment, wait_until_ready
from prometheus_server import eventually, get, prometheus
from test_prometheus import DATA, requests_of

VERSION, FEATURE = "3", "car_value"
SERIES = f'tidegate_feature_observations_total{{model="car_loan",version="{VERSION}",feature="{FEATURE}"}}'
BINS = f'tidegate_feature_bin_total{{model="car_loan",version="{VERSION}",feature="{FEATURE}"}}'
ANSWERS = f'tidegate_requests_total{{model="car_loan",version="{VERSION}",code="ok"}}'
# A gateway that is killed is down for a moment, and says so.
PENDING = 'count_over_time(ALERTS{alertname!~"TidegateGatewayDown|TidegateAbsent|TidegateFilesChanged"}[15m])'


class Life:
    """A gateway that is ended and started again on the same ports, and what was sent to it."""

    def __init__(self, directory):
        self.directory, self.models, self.ports = directory, directory / "models", ANY_PORT
        self.version = self.models / "car_loan" / VERSION
        shutil.copytree(ROOT / "models" / "car_loan", self.models / "car_loan")
        self.rows, self.requests, self.lives = 0, 0, 0
        self.start()
        # It comes later, so that no release names it and it may be unloaded.
        shutil.copytree(self.models / "car_loan" / "2", self.directory / "new", ignore=shutil.ignore_patterns("manifest*"))
        (self.directory / "new").rename(self.version)
        assert self.gateway.cli("load", "car_loan", VERSION).returncode == 0

    def start(self):
        self.lives += 1
        addresses, log = self.directory / f"addresses-{self.lives}.json", self.directory / f"log-{self.lives}"
        command = [BINARY, "serve", "--models", self.models, "--state", self.directory / "state"]
        command += ["--addresses-file", addresses, *self.ports]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*map(str, command)],
                cwd=ROOT,
                env=environment(TIDEGATE_MONITOR__SAVE_INTERVAL="1s"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.gateway = Gateway(self.process, wait_until_ready(self.process, addresses, log), log)
        planes = ("http", "grpc", "metrics", "admin")
        self.ports = [word for plane in planes for word in (f"--{plane}", getattr(self.gateway, plane))]

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(STOP)

    def restart(self, how, saved=None):
        """`saved`: the counts that the file has, of a time before."""
        self.end(how)
        if saved:
            self.saved().write_bytes(saved)
        self.start()
        self.load()

    def load(self):
        assert self.gateway.cli("load", "car_loan", VERSION).returncode == 0

    def send(self, rows):
        """Rows as in the reference: from all over the part of the data that does not drift."""
        for request in requests_of(DATA, self.rows, rows):
            status, answer = self.gateway.infer("car_loan", request, version=VERSION)
            assert status == 200, answer
            self.requests += 1
        self.rows += rows

    def saved(self):
        """The file with the counts of the version, which is written every second."""
        return next(iter((self.directory / "state").rglob(f"car_loan/{VERSION}.counts")), None)

    def window(self):
        """Rows of the feature in the last hour, as the gateway reports them."""
        path = f"/admin/v1/models/car_loan/drift?version={VERSION}&window=1h"
        status, text = get(f"http://{self.gateway.admin}{path}")
        assert status == 200, text
        report = json.loads(text)
        [rows] = [feature["rows"] for feature in report["features"] if feature["feature"] == FEATURE]
        return rows


@pytest.fixture
def life(tmp_path):
    life = Life(tmp_path)
    yield life
    if life.process.poll() is None:
        life.process.kill()
        life.process.wait()


def test_counters_count_what_was_sent_whatever_becomes_of_the_gateway(life, tmp_path):
    with prometheus(tmp_path, life.gateway.metrics) as server:

        def scraped():
            """The last sample, which is of no life before."""
            samples = server.query(SERIES)
            return samples[0][1] if samples else None

        def settle():
            """Waits until two scrapes found the counters as they are now."""
            shown = None

            def is_settled():
                nonlocal shown
                before, shown = shown, scraped()
                time.sleep(0.6)
                return shown is not None and before == shown

            eventually(is_settled)

        def check(event):
            settle()
            # `increase` extrapolates by up to one scrape in all that it has seen.
            eventually(lambda: server.value('count_over_time(up{job="tidegate"}[15m])') > 45, seconds=60)
            for name in (SERIES, f"sum({BINS})"):
                inner = name.removeprefix("sum(").removesuffix(")")
                seen = server.value(f"sum(increase({inner}[15m]))")
                assert seen == pytest.approx(life.rows, rel=0.05), f"{name} after {event}"
            answers = server.value(f"sum(increase({ANSWERS}[15m]))")
            assert answers == pytest.approx(life.requests, rel=0.05), f"requests after {event}"

        eventually(lambda: server.query(f"count_over_time({SERIES}[1m]) > 2"))
        life.send(1000)
        check("the start")

        # A gateway that is killed has shown more than it has saved.
        before = eventually(life.saved).read_bytes()
        lost = 50
        life.send(lost)
        settle()
        life.restart(signal.SIGKILL, before)
        settle()
        assert scraped() == 0
        life.send(200)
        check("kill -9")
        assert life.window() == life.rows - lost, "the window goes on"

        life.restart(signal.SIGTERM)
        settle()
        life.send(100)
        check("SIGTERM")
        assert life.window() == life.rows - lost

        assert life.gateway.cli("unload", "car_loan", VERSION).returncode == 0
        eventually(lambda: scraped() is None)
        life.load()
        settle()
        life.send(100)
        check("unload and load")
        assert life.window() == life.rows - lost

        # Files that are other ones: the version is loaded again, and counts go on.
        labels = life.version / "labels.txt"
        labels.write_text("repaid\nnot repaid\n")
        reloaded(life)
        life.send(100)
        check("a reload")

        counted = life.rows
        profile = life.version / "profile.json"
        profile.write_text(profile.read_text().replace('"min":', '"min": ', 1))
        content = json.loads(profile.read_text())
        content["features"][0]["rows"] += 1
        content["features"][0]["missing"] += 1
        profile.write_text(json.dumps(content))
        reloaded(life)
        settle()
        life.send(100)
        check("a new profile")
        assert life.window() == life.rows - counted, "nothing is known in the new bins"

        assert server.query(PENDING) == [], "no alert was raised"


def reloaded(life):
    """Waits until the version was loaded once more."""
    def loaded_at():
        status, text = get(f"http://{life.gateway.admin}/admin/v1/models/car_loan")
        assert status == 200, text
        [version] = [version for version in json.loads(text)["versions"] if version["version"] == int(VERSION)]
        return version["state"] == "ready" and version["loaded_at"]

    before = loaded_at()
    eventually(lambda: loaded_at() not in (False, before))
