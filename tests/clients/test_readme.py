"""The commands of README.md, docs/RELEASES.md, docs/MONITOR.md, docs/ROLLOUT.md and docs/SERVE.md, run as a reader would run
them, and their output compared with what the page shows.

A fenced block marked `console` holds lines `$ command`, each followed by the output to expect. In the expected output

- a line that is only `...` or `…` stands for any lines, or none;
- `…` within a line stands for anything within that line;
- a number with six decimals or more need only be close (one in ten thousand).

A command that ends in `\\`, `|` or `&&`, or inside quotes, goes on in the next line. It has a shell of
its own, in the repository's root, with `tidegate` and our Python on the path. Its error output counts as output, and it
must succeed, unless the expected output has a line that begins with `error:`.

Right before each block stands `<!-- test: run -->`, or `<!-- test: no (reason) -->` where it cannot be run here.
The blocks of README.md, docs/RELEASES.md and docs/MONITOR.md run in order against one gateway for each page, which starts with an
empty state on the default ports; the one command of docs/ROLLOUT.md starts its own. Those of docs/SERVE.md run in a copy of
examples/iris, and the block marked `<!-- test: serve -->` starts the gateway there.
"""

import contextlib
import math
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import BINARY, ROOT, environment, running, runtime_library

PAGES = [ROOT / "README.md", ROOT / "docs/RELEASES.md", ROOT / "docs/MONITOR.md"]
COMMAND_LIMIT = 120  # seconds that one command may take
PLANES = {"http": 8000, "grpc": 8001, "metrics": 8002, "admin": 8003}
DEFAULT_PORTS = [word for plane, port in PLANES.items() for word in (f"--{plane}", f"127.0.0.1:{port}")]


# === Blocks and their commands


@dataclass
class Block:
    line: int  # of the opening fence, from 1
    marker: str | None  # what the comment before it says: "run", "no (reason)", or None
    lines: list[str]


@dataclass
class Step:
    line: int
    command: str
    expected: list[str]


FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*([^\s`]*).*$")
MARKER = re.compile(r"^\s*<!-- test: (.*?) -->\s*$")


def blocks(text):
    """The console blocks of a Markdown text."""
    found = []
    fence, block, marker = None, None, None
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if fence is None and match:
            fence = match
            block = Block(number, marker, []) if match[3] == "console" else None
            if block:
                found.append(block)
        elif fence is not None and re.match(rf"^\s*{fence[2]}{fence[2][0]}*\s*$", line):
            fence, block, marker = None, None, None
        elif fence is not None and block:
            block.lines.append(without_indent(line, fence[1]))
        elif fence is None and line.strip():
            comment = MARKER.match(line)
            marker = comment[1] if comment else None
    if fence is not None:
        raise ValueError(f"line {number}: the last code block is not closed")
    return found


def without_indent(line, indent):
    return line[len(indent) :] if line.startswith(indent) else line.lstrip()


def steps(block):
    """The commands of a block, each with its expected output."""
    found = []
    for number, line in enumerate(block.lines, block.line + 1):
        if found and goes_on(found[-1].command):
            found[-1].command += "\n" + line
        elif line.startswith("$ "):
            found.append(Step(number, line[2:], []))
        elif found:
            found[-1].expected.append(line)
        elif line.strip():
            raise ValueError(f"line {number}: output before the first command: {line}")
    if not found:
        raise ValueError(f"line {block.line}: a console block without a command")
    return found


def goes_on(command):
    if command.rstrip(" ").endswith(("\\", "|", "&&")):
        return True
    try:
        shlex.split(command)
        return False
    except ValueError:  # no closing quotation
        return True


# === Comparing

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
PARTS = re.compile(r"(?P<any>…)|(?P<number>-?\d+\.\d{6,}(?:[eE][-+]?\d+)?)|(?P<text>.)")


def same_text(expected, printed):
    """Whether the lines printed are those expected."""
    expected, printed = trimmed(expected), trimmed(printed)
    reached = {0}  # how many lines of `printed` the lines of `expected` so far can stand for
    for line in expected:
        if line.strip() in ("…", "..."):
            reached = set(range(min(reached), len(printed) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(printed) and same_line(line, printed[at])}
        if not reached:
            return False
    return len(printed) in reached


def trimmed(lines):
    """Without spaces at the ends of lines, and without empty lines at the end."""
    lines = [line.rstrip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def same_line(expected, printed):
    reached = {0}  # how many characters of `printed` the parts of `expected` so far can stand for
    for part in PARTS.finditer(expected):
        if part["any"]:
            reached = set(range(min(reached), len(printed) + 1))
        elif part["number"]:
            numbers = [NUMBER.match(printed, at) for at in reached]
            reached = {number.end() for number in numbers if number and close(part[0], number[0])}
        else:
            reached = {at + 1 for at in reached if printed.startswith(part[0], at)}
        if not reached:
            return False
    return len(printed) in reached


def close(expected, printed):
    return math.isclose(float(expected), float(printed), rel_tol=1e-4)


# === The pages


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.name)
def page(request):
    if not request.param.exists():
        pytest.fail(f"{request.param} is missing")
    return request.param.name, blocks(request.param.read_text(encoding="utf-8"))


def test_every_console_block_says_whether_it_is_run(page):
    name, found = page
    unclear = [block.line for block in found if not is_clear(block.marker)]
    assert not unclear, (
        f"{name}: before the console blocks at the lines {unclear} there is neither "
        "`<!-- test: run -->` nor `<!-- test: no (reason) -->`"
    )


def test_commands_of_the_rollout_page_print_what_it_says():
    page = blocks((ROOT / "docs/ROLLOUT.md").read_text(encoding="utf-8"))
    to_run = [(block, Step(block.line + 1, block.lines[0].removeprefix("$ "), block.lines[1:])) for block in page]
    assert to_run and all(block.marker == "run" for block, _ in to_run)
    # The one command shows others, each as a line of its output.
    faults = [fault for _, step in to_run if (fault := run(step))]
    assert not faults, "\n\n".join(faults)


def test_commands_of_the_page_on_ones_own_model_print_what_it_says(tmp_path):
    name, place = "SERVE.md", tmp_path / "iris"
    ignored = shutil.ignore_patterns("models", "state", "incoming")
    shutil.copytree(ROOT / "examples/iris", place, ignore=ignored)
    found = blocks((ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert all(is_clear(block.marker) or block.marker == "serve" for block in found)
    assert [block.marker for block in found].count("serve") == 1
    refuse_taken_ports()
    faults = []
    with contextlib.ExitStack() as stack:
        for block in found:
            if block.marker == "serve":
                assert block.lines == ["$ tidegate serve --models models --state state"]
                stack.enter_context(running(tmp_path / "gateway", *DEFAULT_PORTS, models=place / "models"))
            elif block.marker == "run":
                faults += [fault for step in steps(block) if (fault := run(step, name, place))]
        assert not faults, "\n\n".join(faults)


def is_clear(marker):
    return marker == "run" or (marker is not None and re.fullmatch(r"no \(.+\)", marker) is not None)


def test_commands_print_what_the_page_says(page, tmp_path):
    name, found = page
    to_run = [step for block in found if block.marker == "run" for step in steps(block)]
    assert to_run, f"{name} has no console block that is run: put `<!-- test: run -->` before one"
    refuse_taken_ports()
    with running(tmp_path, *DEFAULT_PORTS):
        faults = [fault for step in to_run if (fault := run(step, name))]
    assert not faults, "\n\n".join(faults)


def refuse_taken_ports():
    for plane, port in PLANES.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                pytest.fail(f"port {port} ({plane}) is taken: the pages' commands need the default ports 8000-8003")


def run(step, page="README.md", place=ROOT):
    """Runs a command of a page; answers with what is wrong, or nothing."""
    path = os.pathsep.join([str(BINARY.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    try:
        result = subprocess.run(
            ["bash", "-c", step.command],
            cwd=place,
            env=environment(ORT_DYLIB_PATH=runtime_library(), PATH=path, LC_ALL="C.UTF-8"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"{page} line {step.line}: still running after {COMMAND_LIMIT} s: {step.command}"
    printed = result.stdout.decode("utf-8", "replace").splitlines()
    may_fail = any(line.startswith("error:") for line in step.expected)
    if same_text(step.expected, printed) and (result.returncode == 0 or may_fail):
        return None
    return "\n".join(
        [f"{page} line {step.line}, exit code {result.returncode}: $ {step.command}", "--- expected"]
        + trimmed(step.expected)
        + ["--- printed"]
        + trimmed(printed)
    )


# === The matcher itself


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("", ""),
        ("one\ntwo", "one\ntwo\n"),
        ("one  \n\n", "one\n"),
        ("…", ""),
        ("...", "any\nnumber\nof lines"),
        ("first\n…\nlast", "first\nlast"),
        ("first\n  ...\nlast", "first\na\nlast\nb\nlast"),
        ("…\nmiddle\n…", "a\nmiddle\nb"),
        ('{"id":"…","x":1}', '{"id":"01a20a4f","x":1}'),
        ("a…", "a"),
        ("…b…d", "abcd"),
        ("0.924082", "0.9240819"),
        ("[0.07591808,0.9240819]", "[0.07591812,0.92408]"),
        ("-0.500000", "-0.50001"),
        ("1.000000e-7 s", "1.00001e-07 s"),
        ("… took 0.123456 s", "it took 0.123457 s"),
        ("1.000000", "1"),
        ("1.5", "1.5"),
    ],
)
def test_matches(expected, printed):
    assert same_text(expected.splitlines(), printed.splitlines())


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("", "something"),
        ("something", ""),
        ("one\ntwo", "two\none"),
        ("one", "one\ntwo"),
        ("first\n…\nlast", "first\na"),
        ("a…b", "a\nb"),
        ("wait...", "wait, and more"),
        ("0.924082", "0.9250"),
        ("0.924082", "-0.924082"),
        ("0.924082", "0.924082 or so"),
        ("0.924082", "nothing"),
        ("1.5", "1.50001"),
        ("1.50001", "1.50002"),
        ("  indented", "indented"),
        ("a.c", "abc"),
    ],
)
def test_does_not_match(expected, printed):
    assert not same_text(expected.splitlines(), printed.splitlines())


def test_many_wildcards_are_matched_quickly():
    assert not same_text(["…a" * 50 + "b"], ["a" * 400])
    assert not same_text(["…", "a"] * 30 + ["b"], ["a"] * 300)


def test_long_texts_match():
    assert same_text(["x" * 5000 + "…", *["line"] * 3000], ["x" * 5000 + "y", *["line"] * 3000])


PAGE = """\
# Title

<!-- test: run -->
```console
$ first \\
    --option
one

two
$ second | \\
  sort
$ printf '%s
' three
three
```

```sh
$ not a console block
```

<!-- test: no (it never ends) -->

````console
$ tidegate serve
```
````

- In a list

  <!-- test: run -->
  ```console
  $ fourth
    four
  ```

<!-- test: run -->
Text in between.

```console
$ fifth
```
"""


def test_blocks_are_found_with_their_markers():
    found = [(block.line, block.marker) for block in blocks(PAGE)]
    assert found == [(4, "run"), (23, "no (it never ends)"), (31, "run"), (39, None)]


def test_commands_are_found_with_their_output():
    first, second, third, fourth = blocks(PAGE)
    assert steps(first) == [
        Step(5, "first \\\n    --option", ["one", "", "two"]),
        Step(10, "second | \\\n  sort", []),
        Step(12, "printf '%s\n' three", ["three"]),
    ]
    assert steps(second) == [Step(24, "tidegate serve", ["```"])]
    assert steps(third) == [Step(32, "fourth", ["  four"])]
    assert steps(fourth) == [Step(40, "fifth", [])]


@pytest.mark.parametrize("text", ["```console\noutput first\n$ command\n```", "```console\n```"])
def test_blocks_without_a_command_first_are_refused(text):
    with pytest.raises(ValueError, match="line"):
        [steps(block) for block in blocks(text)]


def test_an_open_block_is_refused():
    with pytest.raises(ValueError, match="not closed"):
        blocks("```console\n$ command\n")


@pytest.mark.parametrize(
    ("marker", "clear"), [("run", True), ("no (needs a GPU)", True), ("no", False), ("no ()", False), (None, False)]
)
def test_markers(marker, clear):
    assert is_clear(marker) is clear


def test_commands_run_in_the_root_with_our_programs():
    assert run(Step(1, "ls models/car_loan/model.toml", ["models/car_loan/model.toml"])) is None
    programs = [str(BINARY), str(Path(sys.executable).parent / "python3")]
    assert run(Step(1, "command -v tidegate python3", programs)) is None
    assert run(Step(1, "python3 -c 'import tritonclient'", [])) is None


def test_a_wrong_output_shows_both_texts():
    fault = run(Step(7, "echo printed; echo fault >&2", ["expected"]))
    assert fault == "README.md line 7, exit code 0: $ echo printed; echo fault >&2\n" + (
        "--- expected\nexpected\n--- printed\nprinted\nfault"
    )


def test_a_failing_command_must_be_announced():
    assert "exit code 1" in run(Step(1, "false", []))
    assert run(Step(1, "echo 'error: no'; false", ["error: no"])) is None
