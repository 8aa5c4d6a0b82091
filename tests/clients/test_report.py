"""`tidegate drift --report`: the page as HTML, and in a browser where there is one (Debian's package chromium)."""

import html.parser
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT

VOID = {"meta", "br", "rect", "line", "circle"}


class Page(html.parser.HTMLParser):
    """What is checked of a page: that elements close as they opened, what they are, what they name, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.targets, self.words = [], [], set(), set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids.update(value for name, value in attrs if name == "id")
        self.targets.update(value for name, value in attrs if name in ("href", "src"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def report(gateway, tmp_path_factory):
    """The report of a gateway that has seen one loan: as JSON, and the path of the page."""
    status, _ = gateway.infer("car_loan", json.loads((ROOT / "models/car_loan/request.json").read_text()))
    assert status == 200
    path = tmp_path_factory.mktemp("report") / "drift.html"
    result = gateway.cli("drift", "car_loan", "--report", path, "--output", "json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), path


def test_page_has_every_feature_and_needs_nothing_else(report):
    drift, path = report
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open
    text = " ".join(page.words)
    assert f"Drift of car_loan version {drift['version']}" in text
    assert all(text.count(feature["feature"]) >= 2 for feature in drift["features"])
    sections = [tag for tag, attributes in page.tags if attributes.get("class") == "feature"]
    together = 0 if drift["multivariate"] is None else 1
    assert len(sections) == len(drift["features"]) + together
    # Every link leads to a place of the page itself; there is no script, and every picture says what it shows.
    assert page.targets and {target.removeprefix("#") for target in page.targets} <= page.ids
    assert not any(tag in ("script", "link", "img", "iframe") for tag, _ in page.tags)
    assert all(attributes["aria-label"] for tag, attributes in page.tags if tag == "svg")
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_browser_shows_the_page(report, tmp_path):
    _, path = report
    for width in (1280, 400):
        picture = tmp_path / f"{width}.png"
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        options = [f"--window-size={width},800", f"--screenshot={picture}", path.as_uri()]
        subprocess.run(command + options, check=True, capture_output=True, timeout=120)
        # A page without anything on it is compressed to less.
        assert picture.stat().st_size > 20_000
    command += ["--dump-dom", path.as_uri()]
    shown = subprocess.run(command, check=True, capture_output=True, timeout=120, encoding="utf-8").stdout
    assert shown.count('<section class="feature"') == Path(path).read_text().count('<section class="feature"')
