"""The hash chain of the audit log, computed again by another program from what docs/RELEASES.md says of it."""

import hashlib
import json
import sqlite3

COLUMNS = "sequence, model, at_micros, actor, operation, asked, outcome, before, after, detail, reason, attempts"


def test_chain_can_be_computed_from_the_file(fresh_gateway, tmp_path):
    gateway = fresh_gateway()
    gateway.cli("promote", "car_loan", "1", "--reason", "„smaller“ \\ \"faster\"\nby far", "--actor", "ann")
    gateway.cli("promote", "car_loan", "9", "--actor", "ann")
    gateway.cli("canary", "car_loan", "--version", "2", "--percent", "12.5")
    verified = json.loads(gateway.cli("history", "car_loan", "--verify", "--output", "json").stdout)["verification"]
    assert verified["intact"]

    # The gateway has the file for itself while it runs: this reads a copy.
    state = tmp_path / "gateway-1" / "state"
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in state.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    previous = "0" * 64
    with sqlite3.connect(copy / "tidegate.db") as database:
        for *row, written in database.execute(f"SELECT {COLUMNS}, hash FROM history ORDER BY sequence"):
            form = json.dumps([*row, previous], separators=(",", ":"), ensure_ascii=False)
            previous = hashlib.sha256(form.encode()).hexdigest()
            assert previous == written, row
    assert verified["head"] == {"sequence": verified["entries"], "hash": previous}
