"""What a run says without a terminal: header, start, each error, last line."""

import errno
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import cache
from cache.write import parts
from cache.write.parts import Part
from pipeline.cli import console, progress
from pipeline.cli.system_errors import error_text
from tests.waiting import await_that

ROOT = Path(__file__).parents[3]
MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"


def log_of(*words):
    """Exit code and lines of a process; standard error, and output, are one file."""
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return ended.returncode, ended.stdout.splitlines()


def test_a_log_has_a_header_the_start_of_each_task_and_a_last_line(penn):
    words = ["convert", penn.name, *penn.places, "--part", "1/2"]
    code, (header, started, *_, last) = log_of(*words)
    host = re.escape(socket.gethostname())
    process = re.match(rf"{MOMENT} {host} process \d+: ", header)
    assert re.search(r"vibe-pipeline [\d.]+ \(.*\bcode [0-9a-f]+", header)
    assert header.endswith(f" -m pipeline convert {' '.join(map(str, words[1:]))}, in {ROOT}")
    assert re.fullmatch(rf"{MOMENT} convert penn_action/train part 1/2: started", started)
    assert (code, re.sub(r"\d+ (s|min)$", "N s", last[19:])) == (
        0,
        f"{process[0][19:]}success after N s",
    )
    code, lines = log_of("convert", penn.name, "--raw", "/nowhere", "--cache", penn.root)
    (_,) = [line for line in lines[:-1] if line.startswith("error: ")]
    last = rf"error: {MOMENT} {host} process \d+: exit code 2 after \d+ s, 1 error line above"
    assert code == 2
    assert re.fullmatch(last, lines[-1])


@pytest.mark.parametrize(
    ("n_after", "seconds", "is_repeated"), [(20, 1, 0), (21, 1, 1), (0, 61, 1)]
)
def test_the_last_line_repeats_a_problem_that_is_far_above_or_long_ago(
    n_after, seconds, is_repeated, monkeypatch, capsys
):
    began = progress.time.monotonic()
    monkeypatch.setattr(type(console.err), "n_after_problem", 0)
    monkeypatch.setattr(console, "explanations", [])
    progress.begin_run("a command", lambda: "a version")
    console.err.show_problem("no such folder")
    console.explanations.insert(0, (console.BUSY, "another process"))
    for _ in range(n_after):
        console.out.print("a line")
    monkeypatch.setattr(progress.time, "monotonic", lambda: began + seconds)
    progress.end_run(1)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("2 error lines above" + ": no such folder" * is_repeated)


def test_each_line_of_a_problem_begins_with_error_and_a_terminal_has_a_mark(capsys):
    console.err.print(f"  {console.WRONG} convert    3dpw/train  no rows\n3dpw/train: lost")
    console.err.print(f"{console.DOUBT} {console.plain('a note')}")
    assert capsys.readouterr().err.splitlines() == [
        "error: convert    3dpw/train  no rows",
        "error: 3dpw/train: lost",
        "! a note",
    ]


@pytest.fixture
def shards_of_a_video(monkeypatch):
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_SHARD", 8)
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_CHUNK", 8)


def test_a_terminated_conversion_says_what_is_on_the_disk(
    penn, types, monkeypatch, shards_of_a_video
):
    append = cache.NextCommit.append
    appended = []

    def append_two(commit, entry, tracks):
        if len(appended) == 2:
            signal.raise_signal(signal.SIGTERM)
        appended.append(entry)
        append(commit, entry, tracks)

    monkeypatch.setattr(cache.NextCommit, "append", append_two)
    convert = f"convert {penn.name} --raw RAW/penn_action --cache CACHE"
    types(
        convert, "error: terminated: saved: 1 finished shard beside what is in the cache", code=143
    )


def test_an_error_after_the_start_of_a_task_says_what_is_kept(penn):
    small = 'ulimit -f 16; exec "$@"'  # KiB of a file: less than a chunk of kp_2d
    words = ["convert", penn.name, *penn.places, "--set", "convert.workers=1"]
    ended = subprocess.run(
        ["bash", "-c", small, "bash", sys.executable, "-m", "pipeline", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 2, ended.stdout
    error, kept, last = ended.stdout.splitlines()[-3:]
    assert error.startswith("error: ")
    assert (
        kept == "  what is in the cache is kept; the same command begins the unfinished step again"
    )
    assert "exit code 2 after" in last


def test_work_that_reports_nothing_says_so_in_each_while(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENT", 0.01)
    progress.begin_run("a command", lambda: "a version")
    shown = []

    def has_shown(words):
        shown.append(capsys.readouterr().err)
        return words in "".join(shown)

    with progress.bar("extract  3dpw/train", console.err, unit="row") as report:
        await_that(lambda: has_shown("extract 3dpw/train: started, nothing new for 0 s"))
        monkeypatch.setattr(progress, "EVERY", 0.0)
        report(5, 10)
        await_that(lambda: has_shown("extract 3dpw/train: 5/10, nothing new for 0 s"))
    progress.end_run(0)


def test_busy_has_a_code_of_its_own_only_if_nothing_else_failed(penn, types, network, monkeypatch):
    monkeypatch.setattr(parts, "RENEW", 0.01)
    prepare = "prepare penn_action --raw RAW/penn_action --cache CACHE"
    with Part(2, 3).running(penn.root, f"{penn.name}/.writing"):
        shown = types(prepare, "busy: convert penn_action/train ", code=75)
        assert "error:" not in shown
        penn.label("0011").write_bytes(b"broken")
        shutil.rmtree(penn.root / "penn_action/test")
        types(prepare, "busy: convert penn_action/train ", "error: penn_action/test: ", code=1)


def test_status_names_parts_that_have_not_ended_with_their_age(penn, types, types_json):
    penn.converted()
    with Part(2, 3).running(penn.root, f"{penn.name}/.writing"):
        (split,) = types_json("status --cache CACHE")
        assert "not ended: 2-of-3 (sign of life " in types("status --cache CACHE")
    (staged,) = split["staged"]
    age = staged["not_ended"].pop("2-of-3")
    assert staged == {"stream": None, "shards": 0, "videos": 0, "not_ended": {}}
    assert 0 <= age < parts.FRESH


def test_a_raw_folder_that_vanishes_is_told_once(penn, types, monkeypatch):
    from pipeline.steps.conversion import reading

    digest = reading.changes.video_digest
    monkeypatch.setattr(
        reading.changes,
        "video_digest",
        lambda raw, video: (shutil.rmtree(raw, ignore_errors=True), digest(raw, video))[1],
    )
    convert = f"convert {penn.name} --raw RAW/penn_action --cache CACHE"
    shown = types(convert, f"error: {penn.raw}: the raw folder has vanished while", code=2)
    assert (shown.count("vanished"), shown.count("changed while")) == (1, 0)
    assert not cache.FeatureCache(penn.root).splits


def test_a_share_without_work_says_so(penn, types, small_shards):
    convert = f"convert {penn.name} --raw RAW/penn_action --cache CACHE"
    types(f"{convert} --part 1/9", "nothing to do: this share has no video to read (why: ")
    penn.converted()
    extract = f"extract {penn.name} --kind homography --workers 1 --cache CACHE"
    types(f"{extract} --part 1/3", "homography not extracted: this share has no missing shard")


def test_a_file_beyond_the_limit_has_an_advice_of_its_own():
    error = OSError(errno.EFBIG, "File too large", "/cache/c/0")
    assert error_text(error) == (
        "/cache/c/0: file larger than allowed. Allow larger files (ulimit -f), then run the same "
        "command again."
    )
