"""A rollout that takes itself back, and one that completes, as an operator sees them.

Serves car_loan version 2 from a temporary directory and sends it loans of the reference data. Version 3 is made here and
is bad the way real ones are: it reads two input columns in each other's place. It loads, answers in time, and its
answers look like answers. (A golden request in its directory would have kept it from being admitted.) Version 4 is good.

Needs Python's standard library, the data (`python3 scripts/fetch.py data`), and the built program.
"""

import csv
import http.client
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / ".artifacts/data/synthetic_car_loan_reference.csv"
BINARY = Path(
    os.environ.get("TIDEGATE_BINARY") or shutil.which("tidegate") or ROOT / "target/release/tidegate"
).absolute()
NUMBERS = ["car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"]
WORDS = ["salary_range", "repaid_loan_on_prev_car", "size_of_downpayment"]
PATIENCE = 120  # seconds that anything here may take


def with_columns_exchanged(model):
    """The model with loan_length and car_value in each other's place: in the list of inputs of its first node."""

    def listed(names):
        return b"".join(b"\x0a" + bytes([len(name)]) + name.encode() for name in names)

    exchanged = [{"car_value": "loan_length", "loan_length": "car_value"}.get(name, name) for name in NUMBERS]
    assert model.count(listed(NUMBERS)) == 1, "car_loan's model is not what this script knows"
    return model.replace(listed(NUMBERS), listed(exchanged))


def loans():
    """Infer requests of one loan each, in the order of the data, again and again."""
    with DATA.open(encoding="utf-8") as file:
        rows = list(itertools.islice(csv.DictReader(file), 20_000))
    for row in itertools.cycle(rows):
        numbers = [tensor(name, "FP64", float(row[name])) for name in NUMBERS]
        yield json.dumps({"inputs": numbers + [tensor(name, "BYTES", row[name]) for name in WORDS]})


def tensor(name, datatype, value):
    return {"name": name, "datatype": datatype, "shape": [1, 1], "data": [value]}


class Gateway:
    def __init__(self, directory):
        self.models = directory / "models/car_loan"
        shutil.copytree(ROOT / "models/car_loan/2", self.models / "2")
        self.addresses = directory / "addresses.json"
        command = [BINARY, "serve", "--models", self.models.parent, "--state", directory / "state"]
        ports = [word for plane in ("http", "grpc", "metrics", "admin") for word in (f"--{plane}", "127.0.0.1:0")]
        self.log = (directory / "log").open("wb")
        command = [*map(str, command), *ports, "--addresses-file", str(self.addresses)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=self.log, stderr=self.log)
        bound = wait_for("the gateway", self.bound)
        self.client = http.client.HTTPConnection(bound["http"])
        self.url = f"http://{bound['admin']}"
        wait_for("version 2", lambda: self.state("2") == "ready")

    def bound(self):
        return json.loads(self.addresses.read_text()) if self.addresses.exists() else None

    def get(self, path):
        try:
            with urllib.request.urlopen(f"{self.url}{path}") as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            return None

    def state(self, version):
        model = self.get("/admin/v1/models/car_loan") or {"versions": []}
        return next((one["state"] for one in model["versions"] if str(one["version"]) == version), None)

    def publish(self, version, change=lambda model: model):
        """As operators are told to: written beside, renamed into place."""
        beside = Path(shutil.copytree(ROOT / "models/car_loan/2", self.models.parent.parent / f"publishing-{version}"))
        shutil.rmtree(beside / "golden")
        (beside / "model.onnx").write_bytes(change((beside / "model.onnx").read_bytes()))
        beside.rename(self.models / version)
        wait_for(f"version {version}", lambda: self.state(version) == "ready")

    def tidegate(self, line, code=0):
        """Runs a command as an operator would, and shows it with its output. It must exit with `code`."""
        print(f"$ tidegate {line}", flush=True)
        environment = {**os.environ, "TIDEGATE_ADMIN_URL": self.url, "USER": "ada"}
        exited = subprocess.run([BINARY, *shlex.split(line)], env=environment).returncode
        if exited != code:
            sys.exit(f"it exited with {exited}, not {code}")
        print(flush=True)

    def infer(self, body):
        try:
            self.client.request("POST", "/v2/models/car_loan/infer", body)
            self.client.getresponse().read()
        except http.client.RemoteDisconnected:  # nothing was sent for so long that the gateway hung up
            self.client.close()
            self.infer(body)

    def serve_loans_until(self, state, requests):
        """Sends loans until the rollout has ended that way."""

        def ended():
            for body in itertools.islice(requests, 100):
                self.infer(body)
            rollout = self.get("/admin/v1/models/car_loan/rollout")
            if rollout["state"] not in ("running", state):
                sys.exit(f"the rollout is {rollout['state']}: {rollout['note']}")
            return rollout["state"] == state

        wait_for(f"the rollout to be {state}", ended)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def wait_for(what, ask):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.05)
    sys.exit(f"waited for {what} in vain")


def show(gateway):
    requests = loans()
    gateway.publish("3", with_columns_exchanged)
    gateway.tidegate('rollout start car_loan --version 3 --steps 5,25,50,100 --reason "retrained in November"')
    gateway.serve_loans_until("rolled_back", requests)
    # A rollout that was taken back is a failure to a pipeline.
    gateway.tidegate("rollout status car_loan", code=1)
    gateway.tidegate("models")
    gateway.publish("4")
    # A rare false alarm is no good in a demonstration that must end the same way each time.
    gateway.tidegate("rollout start car_loan --version 4 --steps 10,50,100 --interval 1s --min-requests 50 --alpha 1e-6")
    gateway.serve_loans_until("completed", requests)
    gateway.tidegate("history car_loan")


def main():
    for path, how in [(BINARY, "make build"), (DATA, "python3 scripts/fetch.py data")]:
        if not path.exists():
            sys.exit(f"{path} is missing: {how}")
    with tempfile.TemporaryDirectory(prefix="tidegate-rollout-") as directory:
        gateway = Gateway(Path(directory))
        try:
            show(gateway)
        finally:
            gateway.stop()


if __name__ == "__main__":
    main()
