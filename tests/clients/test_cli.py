"""The work of an operator, through the command line alone."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib

import pytest

from conftest import BINARY, ROOT, environment, run_binary

NUMERIC = ["car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"]
CATEGORICAL = ["salary_range", "repaid_loan_on_prev_car", "size_of_downpayment"]


def printed(result):
    """What a command printed that went well, and silently otherwise, but for warnings."""
    assert result.returncode == 0, f"{result.args}: {result.stderr}"
    assert all(line.startswith("warning: ") for line in result.stderr.splitlines()), result.stderr
    return result.stdout


def parsed(result):
    return json.loads(printed(result))


def complaint(result, code):
    """The one clear line of a command that failed."""
    assert result.returncode == code, f"{result.args}: {result.stdout}{result.stderr}"
    assert result.stdout == ""
    return result.stderr


def one_line(result):
    text = complaint(result, 1)
    assert text.startswith("error: ") and text.count("\n") == 1, text
    return text


def release(gateway, model="car_loan"):
    return parsed(gateway.cli("status", model, "--output", "json"))["release"]


def rows(table):
    """The cells of each row of a printed table, by its header."""
    header, *lines = [line.split() for line in table.splitlines() if line]
    return [dict(zip(header, line)) for line in lines]


# === Releases


def test_models_lists_every_model(gateway):
    table = {row["MODEL"]: row for row in rows(printed(gateway.cli("models")))}
    assert set(table) == {"car_loan", "magika"}
    assert table["car_loan"]["STABLE"] == "2"
    assert table["magika"]["STABLE"] == "1"

    answer = parsed(gateway.cli("models", "--output", "json"))
    assert [entry["model"] for entry in answer["models"]] == ["car_loan", "magika"]


def test_status_shows_release_and_versions(gateway):
    head, table, runs, *admissions = printed(gateway.cli("status", "car_loan")).split("\n\n")
    assert head == "car_loan: stable 2, previous -, canary -, shadow -, generation 1"
    versions = {row["VERSION"]: row["STATE"] for row in rows(table)}
    assert versions == {"1": "ready", "2": "ready"}
    header, *lines = runs.splitlines()
    assert header.split("  ")[:3] == ["VERSION", "RUNS ON", "ONE RUN"]
    measured = re.compile(r" +(\d) +(?:request|pool) +[\d.]+ [mµn]?s ")
    assert [match[1] for match in map(measured.match, lines) if match] == ["1", "2"]
    assert all(len(line) <= 100 for line in (header, *lines)), runs
    [short] = admissions
    line = re.compile(r"admission of version (\d): (\d) steps passed, (\d) skipped, [\d.]+ m?s")
    found = [line.fullmatch(text).groups() for text in short.strip().splitlines()]
    assert [version for version, *_ in found] == ["1", "2"], short
    assert all(int(passed) + int(skipped) == 8 for _, passed, skipped in found), short

    verbose = printed(gateway.cli("status", "car_loan", "--verbose")).split("\n\n")[3:]
    titles, tables = verbose[::2], verbose[1::2]
    assert [title.strip() for title in titles] == ["admission of version 1", "admission of version 2"]
    # A step may have several lines of causes below its own.
    outcomes = [re.findall(r"^ *\w+ +(passed|skipped|failed)\b", table, re.MULTILINE) for table in tables]
    assert [len(found) for found in outcomes] == [8, 8] and "failed" not in {*outcomes[0], *outcomes[1]}, tables

    answer = parsed(gateway.cli("status", "car_loan", "--output", "json"))
    assert answer["model"] == "car_loan"
    expected = {"generation": 1, "stable": 2, "previous": None, "canary": None, "shadow": None, "labels": {}}
    assert answer["release"] == expected
    assert [(entry["version"], entry["state"]) for entry in answer["versions"]] == [(1, "ready"), (2, "ready")]
    assert all(entry["digest"].startswith("sha256:") for entry in answer["versions"])


def test_canary_promotion_and_rollback(fresh_gateway):
    gateway = fresh_gateway()

    text = printed(gateway.cli("canary", "car_loan", "--version", "1", "--percent", "20"))
    assert "1 at 20%" in text
    assert release(gateway)["canary"] == {"version": 1, "percent": 20}
    # The draw hangs on the request id, and ours are fixed: the same counts each time, near 80 of 400.
    versions = answered_by(gateway, 400)
    assert set(versions) == {"1", "2"} and 60 <= versions["1"] <= 100, versions

    text = printed(gateway.cli("promote", "car_loan", "1", "--reason", "simpler to explain", "--actor", "ada"))
    assert "stable 2 → 1" in text
    after = release(gateway)
    assert (after["stable"], after["previous"], after["canary"]) == (1, 2, None)
    assert answered_by(gateway, 10) == {"1": 10}

    text = printed(gateway.cli("rollback", "car_loan", "--reason", "worse after all", "--actor", "ada"))
    assert "stable 1 → 2" in text
    after = release(gateway)
    assert (after["stable"], after["previous"], after["generation"]) == (2, 1, 4)
    assert answered_by(gateway, 10) == {"2": 10}

    table = printed(gateway.cli("history", "car_loan"))
    newest = table.splitlines()[1]
    for word in ("ada", "rollback", "stable 1 → 2", "worse after all"):
        assert word in newest
    entries = parsed(gateway.cli("history", "car_loan", "--output", "json"))["entries"]
    story = [(entry["operation"], entry["actor"], entry["reason"]) for entry in entries[:2]]
    assert story == [("rollback", "ada", "worse after all"), ("promote", "ada", "simpler to explain")]
    assert (entries[1]["from"]["stable"], entries[1]["to"]["stable"]) == (2, 1)
    assert len(parsed(gateway.cli("history", "car_loan", "--limit", "2", "--output", "json"))["entries"]) == 2


def answered_by(gateway, count):
    """How many of `count` requests each version answered."""
    request = json.loads((ROOT / "models/car_loan/request.json").read_text())
    versions = {}
    for number in range(count):
        status, answer = gateway.infer("car_loan", request | {"id": f"request-{number}"})
        assert status == 200, answer
        versions[answer["model_version"]] = versions.get(answer["model_version"], 0) + 1
    return versions


def test_canary_ends_when_cleared(fresh_gateway):
    gateway = fresh_gateway()
    printed(gateway.cli("canary", "car_loan", "--version", "1", "--percent", "100"))
    assert answered_by(gateway, 5) == {"1": 5}
    printed(gateway.cli("canary", "car_loan", "--clear"))
    assert release(gateway)["canary"] is None
    assert answered_by(gateway, 5) == {"2": 5}


def test_shadow_answers_nobody(fresh_gateway):
    gateway = fresh_gateway()
    assert "1 at 100%" in printed(gateway.cli("shadow", "car_loan", "--version", "1", "--percent", "100"))
    assert release(gateway)["shadow"] == {"version": 1, "percent": 100}
    assert answered_by(gateway, 20) == {"2": 20}
    printed(gateway.cli("shadow", "car_loan", "--clear"))
    assert release(gateway)["shadow"] is None


def test_label_stands_for_a_version(fresh_gateway):
    gateway = fresh_gateway()
    printed(gateway.cli("label", "car_loan", "simple", "--version", "1"))
    assert release(gateway)["labels"] == {"simple": 1}
    request = json.loads((ROOT / "models/car_loan/request.json").read_text())
    status, answer = gateway.infer("car_loan/labels/simple", request)
    assert (status, answer["model_version"]) == (200, "1")

    printed(gateway.cli("label", "car_loan", "simple", "--clear"))
    assert release(gateway)["labels"] == {}
    assert gateway.infer("car_loan/labels/simple", request)[0] == 404


def test_dry_run_changes_nothing(fresh_gateway):
    gateway = fresh_gateway()
    printed(gateway.cli("promote", "car_loan", "1", "--dry-run"))
    assert (release(gateway)["stable"], release(gateway)["generation"]) == (2, 1)


def test_stale_generation_is_refused(fresh_gateway):
    gateway = fresh_gateway()
    assert "generation" in one_line(gateway.cli("promote", "car_loan", "1", "--if-generation", "7"))
    assert release(gateway)["stable"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["canary", "car_loan", "--version", "1", "--percent", "20"],
        ["promote", "car_loan", "1"],
        ["rollback", "car_loan"],
        ["shadow", "car_loan", "--version", "1", "--percent", "5"],
        ["label", "car_loan", "old", "--version", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_changes_print_the_release_as_json(fresh_gateway, arguments):
    gateway = fresh_gateway()
    if arguments[0] == "rollback":
        printed(gateway.cli("promote", "car_loan", "1"))
    before = release(gateway)["generation"]
    text = printed(gateway.cli(*arguments, "--output", "json"))
    assert f'"generation":{before + 1}' in json.dumps(json.loads(text), separators=(",", ":"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["status", "no_such_model"], "no_such_model"),
        (["promote", "car_loan", "99"], "99"),
        (["canary", "car_loan", "--version", "99", "--percent", "1"], "99"),
        (["rollback", "magika"], "previous"),
        (["history", "no_such_model"], "no_such_model"),
        (["drift", "no_such_model"], "no_such_model"),
    ],
)
def test_refusals_of_the_gateway_are_one_clear_line(gateway, arguments, word):
    assert word in one_line(gateway.cli(*arguments))


def test_load_and_unload(fresh_gateway):
    gateway = fresh_gateway()

    def states():
        versions = parsed(gateway.cli("status", "car_loan", "--output", "json"))["versions"]
        return {entry["version"]: entry["state"] for entry in versions}

    printed(gateway.cli("unload", "car_loan", "1"))
    deadline = time.monotonic() + 20
    while states()[1] != "unloaded" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert states() == {1: "unloaded", 2: "ready"}
    printed(gateway.cli("load", "car_loan", "1"))
    assert states() == {1: "ready", 2: "ready"}
    assert "2" in one_line(gateway.cli("unload", "car_loan", "2"))


# === Drift


def test_drift_shows_every_feature(fresh_gateway):
    gateway = fresh_gateway()
    sent = 300
    assert answered_by(gateway, sent) == {"2": sent}

    report = wait_for_rows(gateway, sent)
    assert (report["model"], report["version"]) == ("car_loan", 2)
    features = {feature["feature"]: feature for feature in report["features"]}
    assert set(NUMERIC + CATEGORICAL) <= set(features)
    assert len(features) > len(NUMERIC + CATEGORICAL), "outputs are listed like features"
    # One customer 300 times is not what the model was trained on.
    assert report["state"] == "drift"
    assert features["car_value"]["state"] == "drift"
    assert features["car_value"]["rows"] == sent
    assert sum(each["live"] for each in features["car_value"]["bins"]) == sent

    head, _, table = printed(gateway.cli("drift", "car_loan")).partition("\n")
    assert head.startswith("car_loan version 2: drift, ")
    assert f"{sent} rows" in head
    listed = {row["FEATURE"] for row in rows(table)}
    assert set(NUMERIC + CATEGORICAL) <= listed


def wait_for_rows(gateway, count):
    """The drift report, once the monitor has counted what was sent."""
    deadline = time.monotonic() + 20
    while True:
        report = parsed(gateway.cli("drift", "car_loan", "--window", "5m", "--output", "json"))
        if report["rows"] >= count or time.monotonic() > deadline:
            assert report["rows"] == count
            return report
        time.sleep(0.1)


def test_drift_of_a_chosen_version(gateway):
    report = parsed(gateway.cli("drift", "car_loan", "--version", "1", "--output", "json"))
    assert report["version"] == 1


def test_self_test_replays_the_profile_and_finds_nothing(gateway):
    test = parsed(gateway.cli("drift", "car_loan", "--self-test", "--window", "5m", "--output", "json"))
    assert (test["version"], test["window"], test["false_warnings"], test["false_drifts"]) == (2, "5m", 0, 0)
    assert (test["looks"], test["draws"], test["miscounted"]) == (400, 100, 0)
    assert test["rows"] == max(200, math.ceil(test["live_rows"] / 4) * 4)
    assert test["chance_rate"] <= test["chance_alpha"] * 1.5
    head, _, table = printed(gateway.cli("drift", "car_loan", "--self-test")).partition("\n\n")
    assert "drawn from its profile" in head
    assert set(NUMERIC + CATEGORICAL) <= {row["FEATURE"] for row in rows("\n" + table)}


# === Offline


def test_check_admits_the_models_of_this_repository():
    text = printed(run_binary("check", "models"))
    assert "models/car_loan/2" in text and "FAILED" not in text
    report = parsed(run_binary("check", "models", "--output", "json"))
    assert all(entry["ok"] for entry in report)


def test_check_says_all_that_is_wrong(models_copy):
    model = models_copy / "car_loan/2/model.onnx"
    model.write_bytes(model.read_bytes()[:60_000])
    (models_copy / "car_loan/model.toml").write_text('[release]\npolicy = "sometimes"\n')
    (models_copy / "magika/1/model.onnx").unlink()

    result = run_binary("check", models_copy)
    assert result.returncode == 1
    text = result.stdout + result.stderr
    faults = ["car_loan/2", "not an ONNX model", "model.toml", "line 2", "sometimes", "magika/1", "model.onnx"]
    assert [fault for fault in faults if fault not in text] == [], text

    result = run_binary("check", models_copy, "--output", "json")
    assert result.returncode == 1
    faulty = {entry["path"] for entry in json.loads(result.stdout) if not entry["ok"]}
    assert {str(models_copy / "car_loan/2"), str(models_copy / "magika/1")} <= faulty


def test_check_of_one_broken_version(models_copy):
    (models_copy / "car_loan/1/model.onnx").write_bytes(b"not a model")
    result = run_binary("check", models_copy / "car_loan/1", models_copy / "car_loan/2")
    assert result.returncode == 1
    text = result.stdout + result.stderr
    failed = [line for line in text.splitlines() if line.startswith("FAILED")]
    assert "not an ONNX model: it may have been cut short" in text and len(failed) == 1 and "1 FAILED" in text.splitlines()[-1]


def test_check_of_what_is_not_there(tmp_path):
    result = run_binary("check", tmp_path / "nothing")
    assert result.returncode == 1
    assert "does not exist" in result.stdout + result.stderr


def test_config_show_prints_toml_with_every_default():
    shown = tomllib.loads(printed(run_binary("config", "show")))
    documented = tomllib.loads((ROOT / "config/tidegate.toml").read_text(encoding="utf-8"))
    assert shown == documented


def test_config_show_applies_file_then_environment(tmp_path):
    file = tmp_path / "tidegate.toml"
    file.write_text('[server]\nhttp = "127.0.0.1:1000"\ngrpc = "127.0.0.1:1001"\n')
    result = run_binary("config", "show", "--config", file, TIDEGATE_SERVER__HTTP="127.0.0.1:2000")
    server = tomllib.loads(printed(result))["server"]
    assert (server["http"], server["grpc"]) == ("127.0.0.1:2000", "127.0.0.1:1001")


def test_config_with_an_unknown_key_is_refused_with_file_and_line(tmp_path):
    file = tmp_path / "tidegate.toml"
    file.write_text('[server]\nhtpp = "127.0.0.1:1000"\n')
    text = complaint(run_binary("config", "show", "--config", file), 2)
    for word in (str(file), "line 2", "htpp", "`http`"):
        assert word in text


def test_config_schema_is_json():
    schema = json.loads(printed(run_binary("config", "schema")))
    assert "server" in schema["properties"]


def test_profile_schema_has_the_keys_of_a_profile():
    schema = json.loads(printed(run_binary("config", "schema", "--profile")))
    profile = json.loads((ROOT / "models/car_loan/2/profile.json").read_text(encoding="utf-8"))
    assert profile.keys() <= schema["properties"].keys() and set(schema["required"]) <= profile.keys()
    of_feature = schema["$defs"]["FeatureProfile"]
    assert of_feature["additionalProperties"] is False
    for feature in profile["features"]:
        assert set(of_feature["required"]) <= feature.keys() <= of_feature["properties"].keys(), feature["feature"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_completions(shell):
    text = printed(run_binary("completions", shell))
    assert "tidegate" in text and "TIDEGATE_COMPLETE" in text


COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
_clap_complete_tidegate tidegate "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_models_and_versions(gateway, tmp_path):
    script = tmp_path / "completions"
    script.write_text(printed(run_binary("completions", "bash")))

    def completed(*words, admin=gateway.admin):
        path = f"{BINARY.parent}:{os.environ['PATH']}"
        result = subprocess.run(
            ["bash", "-c", COMPLETE, "bash", script, *words],
            env=environment(PATH=path, TIDEGATE_ADMIN_URL=f"http://{admin}"),
            check=True,
            capture_output=True,
            encoding="utf-8",
            timeout=20,
        )
        return result.stdout.split()

    assert completed("tidegate", "roll") == ["rollback", "rollout"]
    assert completed("tidegate", "rollout", "pause", "mag") == ["magika"]
    assert completed("tidegate", "rollout", "start", "car_loan", "--version", "") == ["1", "2"]
    assert completed("tidegate", "promote", "")[:2] == ["car_loan", "magika"]
    assert completed("tidegate", "status", "mag") == ["magika"]
    assert completed("tidegate", "promote", "car_loan", "")[:2] == ["1", "2"]
    assert completed("tidegate", "canary", "car_loan", "--version", "") == ["1", "2"]
    # Without a gateway there is nothing to offer, and no noise.
    assert completed("tidegate", "status", "mag", admin="127.0.0.1:1") == []
    url = f"http://{gateway.admin}"
    assert completed("tidegate", "status", "--admin-url", url, "mag", admin="127.0.0.1:1") == ["magika"]


def test_watch_repeats_the_status_until_nobody_reads(gateway):
    command = [BINARY, "status", "car_loan", "--watch", "--interval", "100ms"]
    variables = environment(TIDEGATE_ADMIN_URL=f"http://{gateway.admin}")
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, encoding="utf-8") as process:
        heads = [line for line in read_lines(process.stdout, 80) if line.startswith("car_loan: stable 2")]
        process.stdout.close()
        assert process.wait(20) == 0
    assert len(heads) >= 2


def read_lines(stream, count):
    return [stream.readline() for _ in range(count)]


def test_watch_of_no_model_fails(gateway):
    assert "none" in one_line(gateway.cli("status", "none", "--watch"))


def test_every_command_has_help_with_an_example():
    help_text = printed(run_binary("--help"))
    listed = help_text.split("Commands:")[1].split("Options:")[0].splitlines()
    commands = [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "]
    assert {"serve", "check", "models", "drift", "rollback"} <= set(commands)
    for command in set(commands) - {"help"}:
        text = printed(run_binary(command, "--help"))
        assert f"tidegate {command}" in text.split("Examples:")[1], command


def test_status_history_and_drift_are_of_all_models_without_a_name(gateway):
    text = printed(gateway.cli("status"))
    assert [head.split(":")[0] for head in text.splitlines() if ": stable " in head] == ["car_loan", "magika"]
    assert [entry["model"] for entry in parsed(gateway.cli("status", "-o", "json"))["models"]] == ["car_loan", "magika"]
    table = printed(gateway.cli("history"))
    assert table.split()[:3] == ["SEQUENCE", "AT", "MODEL"] and {"car_loan", "magika"} <= set(table.split())
    table = printed(gateway.cli("drift"))
    assert [line.split()[0] for line in table.splitlines()] == ["MODEL", "car_loan", "magika"]


def test_drift_has_an_exit_code_for_pipelines(fresh_gateway):
    gateway = fresh_gateway()
    assert gateway.cli("drift", "car_loan", "--exit-code").returncode == 5, "no rows, no verdict"
    assert answered_by(gateway, 300) == {"2": 300}
    wait_for_rows(gateway, 300)
    result = gateway.cli("drift", "car_loan", "--window", "5m", "--exit-code")
    assert (result.returncode, result.stderr) == (3, "") and "car_loan version 2: drift" in result.stdout


def test_names_that_were_perhaps_meant_are_told(gateway):
    assert "did you mean 'car_loan'?" in one_line(gateway.cli("drift", "car_laon"))
    assert "it has 1, 2" in one_line(gateway.cli("load", "car_loan", "9"))


def test_gateway_that_hangs_is_given_up_and_the_change_can_be_repeated(fresh_gateway):
    gateway = fresh_gateway()
    os.kill(gateway.pid, signal.SIGSTOP)
    try:
        assert "nothing was changed" in one_line(gateway.cli("rollback", "car_loan", "--timeout", "1s"))
        text = one_line(gateway.cli("promote", "car_loan", "1", "--timeout", "1s", "-o", "json"))
        assert "no answer" in text and "`tidegate history car_loan`" in text
    finally:
        os.kill(gateway.pid, signal.SIGCONT)
    key = re.search(r"--idempotency-key (\S+)", text)[1]
    # Made by the first request or by this one, and by one of them only.
    result = gateway.cli("promote", "car_loan", "1", "--idempotency-key", key, "-o", "json")
    assert result.returncode == 0, result.stderr
    assert (json.loads(result.stdout)["stable"], json.loads(result.stdout)["generation"]) == (1, 2)
    assert release(gateway)["generation"] == 2


def test_version_names_target_and_runtime():
    first, second = printed(run_binary("--version")).splitlines()
    assert re.fullmatch(r"tidegate \d+\.\d+\.\d+ \((commit [0-9a-f]{12}, )?\w+(-\w+)+\)", first), first
    assert second.startswith("ONNX Runtime "), second


def test_what_looks_like_configuration_and_is_ignored_is_told(tmp_path):
    result = run_binary("config", "show", TIDEGATE_SERVER_HTTP="127.0.0.1:2000")
    assert result.returncode == 0 and "did you mean TIDEGATE_SERVER__HTTP" in result.stderr
    file = tmp_path / "named.toml"
    file.write_text('[server]\nhttp = "127.0.0.1:1000"\n')
    named = printed(run_binary("config", "show", TIDEGATE_CONFIG=str(file)))
    assert tomllib.loads(named)["server"]["http"] == "127.0.0.1:1000"


def test_serve_says_all_that_is_wrong_with_its_file(tmp_path):
    file = tmp_path / "tidegate.toml"
    file.write_text('[server]\nhtpp = "127.0.0.1:1000"\n[monitor]\nsave_interval = "soon"\n[nonsense]\na = 1\n')
    text = complaint(run_binary("serve", "--config", file), 2)
    for word in ("line 2", "htpp", "line 4", "soon", "line 5", "nonsense"):
        assert word in text, text


def test_open_admin_plane_is_refused_with_the_way_out():
    text = complaint(run_binary("serve", "--admin", "0.0.0.0:0", "--http", "127.0.0.1:0"), 2)
    assert "--insecure-admin" in text and "no authentication" in text


# === Bad usage, and nobody there


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["drift", "--version", "2"],
        ["models", "--timeout", "0s"],
        ["models", "--token", "secret"],
        ["serve", "--admin", "0.0.0.0:0"],
        ["status", "car_loan", "--frobnicate"],
        ["promote", "car_loan"],
        ["promote", "car_loan", "newest"],
        ["promote", "car_loan", "0"],
        ["canary", "car_loan"],
        ["canary", "car_loan", "--version", "1"],
        ["canary", "car_loan", "--version", "1", "--percent", "101"],
        ["canary", "car_loan", "--version", "1", "--percent", "5", "--clear"],
        ["drift", "car_loan", "--window", "soon"],
        ["models", "--output", "xml"],
        ["serve", "--http", "nowhere"],
        ["completions", "tcsh"],
        ["check"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_code_2(arguments):
    assert complaint(run_binary(*arguments), 2)


@pytest.mark.parametrize("command", ["models", "status car_loan", "rollback car_loan", "drift car_loan"])
def test_no_gateway_is_one_clear_line(command):
    # Port 1 of this machine: nobody listens there.
    text = one_line(run_binary(*command.split(), TIDEGATE_ADMIN_URL="http://127.0.0.1:1"))
    assert "http://127.0.0.1:1" in text and "tidegate serve" in text
