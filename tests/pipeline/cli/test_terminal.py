"""The output on a terminal of 80 columns, in a pipe, and for scripts."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from pipeline.__main__ import parser
from pipeline.cli import console as terminal
from pipeline.cli import progress
from pipeline.cli.command_line import EXIT_CODES
from pipeline.cli.console import print_json
from tasks.__main__ import parser as parser_of_tasks

ROOT = Path(__file__).parents[3]
DOC = (ROOT / "docs/terminal.md").read_text()
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


@pytest.fixture
def root(penn):
    penn.converted("fast")
    return Path(penn.root)


def on_a_terminal(*arguments, **environment):
    """What a terminal of 80 columns is sent."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "pipeline", *map(str, arguments)],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "COLUMNS": "80",
            "LANG": "C.UTF-8",
            **environment,
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the process has ended
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def test_status_fits_a_terminal_of_80_columns_and_cuts_no_name_off(root):
    shown = on_a_terminal("status", "--cache", root)
    lines = CODES.sub("", shown).splitlines()
    assert COLOUR.search(shown)
    assert max(map(cell_len, lines)) <= 80
    assert "…" not in shown
    assert sum("penn_action/train (demo data)" in line for line in lines) >= 1
    assert any("resnet50 (untrained)" in line for line in lines)
    tables = [re.split("  +", line.strip()) for line in lines if line.lstrip().startswith("split")]
    assert len(tables) == 2, "one table would be too wide"
    columns = [column for table in tables for column in table if column != "split"]
    assert len(set(columns)) == len(columns), "both tables together have each column once"
    assert (columns[0], columns[-1]) == ("videos", "next run")


def test_a_bar_is_gone_when_the_work_is_done_and_needs_no_colour(root):
    shown = on_a_terminal("verify", "--cache", root, NO_COLOR="1")
    assert not COLOUR.search(shown)
    assert "\x1b[?25l" in shown, "the cursor is hidden while there is a bar"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert CODES.sub("", shown).splitlines()[-1].startswith("✓ intact: ")


def test_a_dumb_terminal_is_sent_no_control_codes():
    sent = io.StringIO()
    console = Console(file=sent, force_terminal=True, _environ={"TERM": "dumb"})
    with progress.bar("verify", console) as report:
        report(1, 2)
    console.print(f"{terminal.DONE} intact")
    assert sent.getvalue() == "✓ intact\n"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress.time, "monotonic", made)
    return made


def test_in_a_pipe_long_work_prints_a_line_now_and_then(clock, capsys):
    with progress.bar("convert penn_action/train", terminal.err, unit="video") as report:
        for done in range(100, 280):  # 100 were done by an earlier run, and are in no rate
            report(done, 1000, f"clip [{done}]")
            clock.now += 1
        report(1000, 1000)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "convert penn_action/train: 160/1,000 videos, 1.0 videos/s, 14 min left  clip [160]",
        "convert penn_action/train: 220/1,000 videos, 1.0 videos/s, 13 min left  clip [220]",
    ]


def test_the_rate_is_that_of_the_last_lines_of_one_stage(clock, capsys):
    with progress.bar("train VIBE", terminal.err, unit="step") as report:
        report(0, 50_000, "features in memory", unit="row")
        for minute in (1, 2):
            clock.now += 60
            report(minute * 6000, 50_000, "features in memory", unit="row")
        report(0, 600)
        clock.now += 600  # the network is loaded: no step
        report(0, 600)
        clock.now += 60
        report(1, 600)  # the first step takes long, and is in no rate
        for n_done in (61, 121, *[122 + minute for minute in range(12)]):
            clock.now += 60
            report(n_done, 600, "loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:6] == [
        "train VIBE: 6,000/50,000 rows  features in memory",
        "train VIBE: 12,000/50,000 rows, 100 rows/s, 6 min left  features in memory",
        "train VIBE: 0/600 steps",
        "train VIBE: 1/600 steps",
        "train VIBE: 61/600 steps, 1.0 steps/s, 9 min left  loss 0.5",
        "train VIBE: 121/600 steps, 1.0 steps/s, 8 min left  loss 0.5",
    ]
    assert lines[-1] == "train VIBE: 133/600 steps, 60 s/step, 7.8 h left  loss 0.5"


@pytest.mark.parametrize("columns", [80, 140])
def test_a_bar_shows_what_how_much_and_how_fast_within_the_terminal(columns):
    sent, clock = io.StringIO(), Clock()
    console = Console(file=sent, force_terminal=True, width=columns, get_time=clock)
    with progress.bar("convert insta_variety/train", console, unit="video") as report:
        for done in (0, 100, 1200):
            clock.now += 50
            report(done, 12_345, "a clip with a long name [red] " * 4)
    lines = [CODES.sub("", line) for line in re.split(r"[\r\n]", sent.getvalue())]
    last = [line for line in lines if "/12,345" in line][-1]
    assert "convert insta_variety/train" in last
    assert "1,200/12,345" in last
    assert " 22 videos/s " in last, (
        "1,100 in 50 s: what was done before the first news is in no rate"
    )
    assert "0:08:27" in last, "11,145 at 22 a second"
    assert "a clip" in last
    assert max(map(cell_len, lines)) <= columns


def test_a_bar_goes_on_with_another_unit():
    sent, clock = io.StringIO(), Clock()
    console = Console(file=sent, force_terminal=True, width=100, get_time=clock)
    with progress.bar("train VIBE", console, unit="step") as report:
        for done in (0, 25_000, 50_000):
            clock.now += 10
            report(done, 50_000, "features in memory", unit="row")
        for done in (0, 20, 40):
            clock.now += 10
            report(done, 600)
    shown = CODES.sub("", sent.getvalue())
    last = [line for line in re.split(r"[\r\n]", shown) if line.strip()][-1]
    assert "40/600" in last
    assert " 2.0 steps/s " in last, "rows are in no rate of steps"
    assert "features in memory" not in last


DOCUMENTS = {
    "status": ("--cache", "{root}"),
    "plan": ("penn_action/train",),
    "verify": ("--cache", "{root}"),
    "doctor": ("penn_action", "--raw", "{raw}/.."),
    "gc": ("--cache", "{root}"),
}


def documented(name):
    """The keys that docs/terminal.md gives a command's document."""
    (table,) = re.findall(rf"### JSON of .*\b{name}\b.*\n((?:.*\n)*?)#", DOC)
    return {*re.findall(r"^\| `(\w+)` \| \S", table, re.MULTILINE)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_is_one_document_with_the_documented_keys_and_nothing_else(
    name, root, penn, luigi_cfg, ran
):
    luigi_cfg(more="[resnet50]\nweights = untrained:0\nprecision = fast")
    options = [word.format(root=root, raw=penn.raw) for word in DOCUMENTS[name]]
    printed = ran(name, *options, "--json").out
    document = json.loads(printed, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    rows = document if isinstance(document, list) else [document]
    assert rows
    for row in rows:
        assert {*row} == documented(name) | ({"runs"} if name == "status" else set())


def test_the_totals_of_a_split_are_those_of_the_page(penn):
    penn.converted("fast")
    table = DOC.partition("### Totals of a split")[2]
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    only_of_some = {"rows_some_3d"}
    assert {*penn.split.manifest["sums"]} == {*listed} - only_of_some


def test_with_json_the_text_goes_to_standard_error_and_numbers_that_json_does_not_have_are_null(
    capsys,
):
    with terminal.text_to_stderr(wanted=True):
        terminal.out.print("text")
        print_json({"a": float("nan"), "b": [1.5, float("inf")], "c": (Path("x"),)})
    terminal.out.print("text again")
    shown = capsys.readouterr()
    assert json.loads(shown.out.removesuffix("text again\n")) == {
        "a": None,
        "b": [1.5, None],
        "c": ["x"],
    }
    assert shown.err == "text\n"


@pytest.mark.parametrize("make", [parser, parser_of_tasks], ids=["pipeline", "tasks"])
def test_help_explains_every_exit_code(make):
    shown = " ".join(make().format_help().split())
    assert all(f"{code} {meaning}" in shown for code, meaning in EXIT_CODES.items())


def test_luigis_exit_codes_are_documented_as_luigi_cfg_sets_them():
    section = (ROOT / "luigi.cfg").read_text().partition("[retcode]")[2].partition("\n[")[0]
    set_there = re.findall(r"^[a-z_]+ = (\d+)$", section, re.MULTILINE)
    theirs = DOC.partition("Luigi's exit codes")[2].partition("## Ctrl-C")[0]
    assert ["0", "1", "2", *set_there, "129", "143"] == re.findall(
        r"^\| (\d+) \|", theirs, re.MULTILINE
    )
