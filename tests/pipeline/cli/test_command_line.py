"""`python -m pipeline`: what it prints, and its exit codes."""

from __future__ import annotations

import functools
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cache
from pipeline import datasets
from pipeline.__main__ import COMMANDS
from pipeline.cli.console import plain
from pipeline.cli.text import command
from pipeline.datasets.penn_action import PennAction

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(penn: Any) -> Path:
    """A cache with Penn Action's train split: three videos of 8 frames."""
    penn.converted()
    return Path(penn.root)


@pytest.fixture
def convert(penn: Any, ran: Any) -> Callable[..., Any]:
    return functools.partial(ran, "convert", penn.name, "--raw", penn.raw, "--cache", penn.root)


@pytest.fixture
def extract(penn: Any, ran: Any) -> Callable[..., Any]:
    return functools.partial(ran, "extract", penn.name, "--cache", penn.root)


@pytest.fixture
def status_of(penn: Any, ran: Any) -> Callable[..., str]:
    """The output of `status`."""
    return lambda *more, code=0: str(ran("status", "--cache", penn.root, *more, code=code).out)


def test_from_raw_data_to_a_verified_cache_and_a_second_run_changes_nothing(
    penn: Any, ran: Any, convert: Any, extract: Any, status_of: Any, monkeypatch: pytest.MonkeyPatch, network: Any
) -> None:
    counts = ["videos 3 kept of 3", "tracks 3 kept of 3", "frames 24 kept of 24"]
    first = "penn_action/train: converted (why: not converted before)"
    assert convert().out.splitlines() == [first, *(f"  {text}" for text in counts)]
    shown = extract().out
    assert "penn_action/train: extracted, 24 rows computed" in shown
    assert "UNTRAINED" in shown
    assert ran("verify", "--cache", penn.root).out.startswith("✓ intact: 6 shards, ")
    (line,) = status_of().splitlines()[1:]
    numbers = "3 / 3 3 / 3 24 / 24"
    assert " ".join(line.split()) == f"penn_action/train (demo data) {numbers} - resnet50 (untrained)"
    assert "release" not in line, "demo data are compared with no release"
    assert penn.split.manifest["accounting"]["known"] == {}
    before = penn.everything()
    assert convert().out == "penn_action/train: up to date, 3 videos\n"
    assert extract().out == "penn_action/train: resnet50 is up to date\n"
    assert penn.everything() == before
    penn.edit("0003")
    monkeypatch.setattr(PennAction, "uses_body", True)
    shown = convert()
    assert shown.out.splitlines()[0] == "penn_action/train: 1 video read, 2 unchanged (why: 1 changed video)"
    for last in (shown.out.splitlines()[-1], convert().out.splitlines()[-1]):
        assert "no 3D joints" in last
        assert f"remove {penn.root}/{penn.name}" in last
        assert last.endswith("--body DIR")


def test_rejected_videos_and_rows_without_features_are_reported(
    penn: Any, convert: Any, extract: Any, status_of: Any, ran: Any, network: Any
) -> None:
    penn.spoil("0003")
    (penn.frames("0005") / "000002.jpg").write_bytes(b"")
    (penn.frames("0001") / "000003.jpg").unlink()
    shown = convert().out
    assert "videos 2 kept of 3, 1 bad_label_file" in shown
    again = "1 rejected video: read again when the files change, or by: "
    for text in (shown, convert().out):
        assert again + command("convert", penn.name, "--retry", "--cache", str(penn.root)) in text
    assert f"! rejected 0003: bad_label_file: {penn.label('0003')}: 'x': expected" in shown
    assert shown.count("frames of 1 unreadable video are not counted") == 1
    shown = extract().out
    assert "! 1 row without features: picture_empty" in shown
    assert "0005, frame 1: " in shown
    shown = status_of()
    assert f"! {penn.name}: 0003: bad_label_file: {penn.label('0003')}" in shown
    assert "1 unread video not counted" in shown
    assert f"{penn.name}: 1 row without features in resnet50" in shown
    assert "000003.jpg" not in shown
    (line,) = [line for line in status_of("--all").splitlines() if line.startswith("·")]
    assert line.startswith(f"· {penn.name}: 0001: 1 no_picture; ")
    assert "000003.jpg" in line
    (row,) = json.loads(status_of("--json"))
    assert (row["split"], row["tracks"], row["stand_in"]) == (penn.name, 2, True)
    assert (row["streams"], row["undecodable"]) == (["resnet50 (untrained)"], {"resnet50": 1})
    assert row["accounting"] == penn.split.manifest["accounting"]
    assert [text.partition(":")[0] for text in row["set_aside"]] == ["bad_label_file"]
    rejected = next(video for video in row["videos"] if video["name"] == "0003")
    assert (rejected["set_aside"], rejected["failed"]) == ("bad_label_file", True)
    for shard in (penn.root / penn.name / "features/resnet50_ok/c").iterdir():
        shard.unlink()
    assert "✗ penn_action/train: resnet50 is damaged: " in ran("status", "--cache", penn.root, code=1).out
    shown = convert("--strict", code=2)
    assert shown.out == ""
    assert shown.err.startswith(f"error: {penn.name}: {penn.label('0003')}: ")
    assert "--retry" in shown.err


def test_where_every_video_fails_the_first_reason_is_shown_the_list_is_cut_and_the_exit_code_is_1(
    penn: Any, convert: Any, status_of: Any, reads: Any
) -> None:
    reads.fail("0007", ZeroDivisionError("division by zero"))
    penn.add("0007")
    for number in range(1, 7):
        penn.label(f"{number:04d}").write_bytes(b"broken")
    for did in ("converted", "up to date"):
        lines = convert(code=1).out.splitlines()
        assert lines[-1].startswith(f"✗ {penn.name}: no rows: nothing of 7 videos could be used. ")
        assert "bad_label_file (6 videos)" in lines[-1]
        if did == "converted":
            rejected = [line for line in lines if line.startswith("  ! rejected ")]
            assert rejected[0].startswith("  ! rejected 0007: unexpected_error: "), "defects come first"
            more = f"and 2 more: {command('status', '--all', '--cache', str(penn.root))}"
            assert f"  ! {more}" in lines
    shown = status_of(code=1)
    assert f"✗ {penn.name}: no rows: " in shown
    assert shown.count(f"! {penn.name}: ") == 6
    assert f"! {penn.name}: {more}" in shown
    assert status_of("--all", code=1).count(": bad_label_file: ") == 6
    assert len(json.loads(status_of("--json", code=1))[0]["set_aside"]) == 7


def test_more_rejected_videos_than_allowed_are_an_exit_code(penn: Any, convert: Any, ran: Any) -> None:
    penn.label("0002").write_bytes(b"broken")
    convert()
    words = ("status", "--cache", penn.root, "--max-rejected")
    n_videos = cache.open(penn.root)[penn.name].manifest["accounting"]["videos"]["found"]
    most = 100 / n_videos
    expected = f"✗ {penn.name}: 1 video of {n_videos} rejected, more than {most - 0.1:g}%"
    assert expected in ran(*words, f"{most - 0.1:g}%", code=1).out
    assert "✗" not in ran(*words, f"{most + 0.1:g}").out
    assert json.loads(ran(*words, "0%", "--json", code=1).out)[0]["split"] == penn.name


def test_an_incomplete_download_is_reported_beside_the_numbers_of_the_release(
    penn: Any, convert: Any, status_of: Any, tmp_path: Path
) -> None:
    penn.without_marker()
    assert "  videos 3 kept of 3 (1,258 in the release)" in convert().out
    assert penn.split.manifest["accounting"]["known"] == {"videos": 1258}
    shown = status_of()
    assert "3 / 3 of 1,258 known" in shown
    assert f"! {penn.name}: 3 videos found of 1,258 in the release" in shown
    assert f"What is missing: {command('doctor', 'penn_action', '--raw', str(penn.raw.parent))}\n" in shown
    assert "all splits" not in shown  # the release's frames are known over both splits, and one is here
    penn.convert("test")
    shown = status_of()
    n_frames = sum(split.manifest["rows"] for split in cache.open(penn.root).values())
    assert f"! penn_action, all splits: {n_frames} frames found of 163,841 in the release" in shown
    assert "all splits: 6 videos" not in shown  # that is shown split by split
    penn.raw = penn.raw.rename(tmp_path / "Penn_Action")  # doctor looks for <raw>/penn_action: no command would find it
    shutil.rmtree(penn.root)
    penn.convert()
    assert "the download is incomplete\n" in status_of()


def test_messages_of_libraries_about_a_broken_video_are_not_shown_beside_our_own(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(2000))
    code = (
        "import sys, pathlib\n"
        "from pipeline.files.pixels.frames import Video\n"
        "from pipeline.errors import RawDataError\n"
        "try: Video(pathlib.Path(sys.argv[1]), sys.argv[2]).header()\n"
        "except RawDataError: print('refused')"
    )
    words = [sys.executable, "-c", code, str(tmp_path), "broken.mp4"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("refused\n", "")


def test_motion_without_pictures_has_no_features(embedded: Any, into: Any, ran: Any, tmp_path: Path) -> None:
    into.convert(tmp_path, embedded.raw("amass"), "amass")
    assert ran("extract", "amass", "train", "--cache", tmp_path).out == "amass/train: motion only, without pictures\n"


MISTAKES = (  # words, and what the message names
    ("", "required: command"),
    ("convert penn_action train --raw nowhere --cache {root}", "nowhere"),
    ("convert penn_action val --raw {penn} --cache {root}", "penn_action has no split 'val'; it has train, test"),
    ("convert penn train --raw {penn} --cache {root}", "no dataset is called 'penn'; known: penn_action, "),
    ("convert penn_action train --raw {penn}", "required: --cache"),
    ("convert penn_action train --cache {root}", "--raw DIR"),
    ("convert penn_action/train --raw {penn} --cache {file}", "{file}: this is a file"),
    ("convert 3dpw train --raw {3dpw} --cache {root} --body nowhere", "nowhere"),
    ("verify --cache nowhere", "nowhere"),
    ("status --cache nowhere", "nowhere"),
    ("extract penn_action --cache {root}", "required: split"),
    ("extract penn_action/train test --cache {root}", "penn_action/train names the split already, found 'test'"),
    ("extract penn_action test --cache {root}", "penn_action/test"),
    ("extract penn_action/train --cache {root} --weights resnet", "resnet"),
    ("extract penn_action/train --cache {root} --weights file:no.pt", "no.pt"),
    ("extract penn_action/train --cache {root} --stream ../x", "../x"),
    ("extract penn_action/train --cache {root} --batch-size -1", "found '-1'"),
    ("extract penn_action/train --cache {root} --set a=1 --set a=2", "a is set to '1' already"),
    ("detect {penn} --out {root}/new --set quality", "expected NAME=VALUE"),
    ("import file.pt penn_action/train --format vibe", "required: --cache"),
    ("synthesize --out {root}/new --seed -1", "found '-1'"),
    ("synthesize --out {foreign}", "foreign"),
    ("show penn_action/train --cache {root} --out {root}", "is a folder"),
    ("show penn_action/train --cache {root} --out {root}/new/page.html", "there is no folder"),
    ("show penn_action/train --out {root}/page.html", "--cache DIR for converted rows"),
    ("doctor penn --raw {root}", "no dataset is called 'penn'"),
    ("doctor penn_action --raw absent", "there is no such folder"),
    ("doctor penn_action --raw {file}", "is a file"),
    ("verify --cache {root} --raw {root}", "--raw goes with --repair or --recompute"),
    ("plan penn_action train --raw {penn} --cache {root} --devices 2", "--devices goes with --rate"),
    ("plan penn_action --raw r --cache c", "name the split and --cache"),
    ("plan penn_action train --raw r", "name the split and --cache"),
    ("plan pen_action train --raw r --cache c", "no dataset is called 'pen_action'"),
    ("plan penn_action val --raw r --cache c", "penn_action has no split 'val'"),
    ("plan --weights untrained:0", "--weights goes with --raw DIR"),
    ("plan penn_action train --raw r --cache c --config absent.cfg", "absent.cfg: there is no such file"),
    ("plan amass --config {cfg}", "Enable it there"),
    ("plan pen --config {cfg}", "Known: penn_action"),
)


def test_a_mistake_is_one_line_with_exit_code_2_and_changes_nothing(
    root: Path, penn: Any, into: Any, ran: Any, luigi_cfg: Any, tmp_path: Path, network: Any
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for file in ("foreign/body/SMPL_NEUTRAL.pkl", "3dpw/sequenceFiles/train/a.pkl"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(b"mine")
    places = {name: tmp_path / name for name in ("file", "foreign", "3dpw")}
    places |= {"root": root, "penn": penn.raw, "cfg": luigi_cfg()}
    before = into.everything(tmp_path)
    for words, message in MISTAKES:
        shown = ran(*words.format(**places).split(), code=2)
        assert (shown.out, shown.err.count("\n")) == ("", 1), words
        assert shown.err.startswith("error: "), words
        assert message.format(**places) in shown.err, words
        assert into.everything(tmp_path) == before, words


def test_debug_shows_where_an_error_comes_from(convert: Any, ran: Any, penn: Any) -> None:
    wrong = ("convert", "penn_action", "val", "--raw", penn.raw, "--cache", penn.root)
    for arguments in (("--debug", *wrong), (*wrong, "--debug")):
        error = ran(*arguments, code=2).err
        assert "Traceback (most recent call last)" in error
        assert "in check_split" in error
        assert error.splitlines()[-1].startswith("error: penn_action has no split 'val'")


def test_an_unexpected_failure_is_one_line_too(convert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(PennAction, "videos", fail)
    (line,) = convert(code=2).err.splitlines()
    assert line.startswith(r"error: ZeroDivisionError: division\nby zero. ")
    assert "--debug" in line


def test_every_command_explains_itself(ran: Any) -> None:
    assert all(word in ran("--help").out for word in COMMANDS)
    for name in COMMANDS:
        shown = ran(name, "--help").out
        assert shown.startswith(f"usage: python -m pipeline {name} ")
        assert name not in ("convert", "extract") or all(word in shown for word in datasets.names())


def test_gc_reports_what_is_removed(root: Path, penn: Any, ran: Any) -> None:
    stray = root / penn.name / "bbox/c/77/0"
    stray.parent.mkdir()
    stray.write_bytes(b"12345")
    assert "would be removed" in ran("gc", "--dry-run", "--cache", root).out
    assert stray.exists()
    assert "1 path removed" in ran("gc", "--cache", root).out
    assert not stray.exists()


def test_names_from_raw_data_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[31mb\r\n\udcff") == r"a\x1b[31mb\r\n\udcff"
    assert plain("[red]") == r"\[red]"
    assert plain("déjà vu") == "déjà vu"


def test_real_data_need_the_networks_weights_and_a_moved_raw_folder_its_name(
    penn: Any, convert: Any, extract: Any, status_of: Any, tmp_path: Path, network: Any
) -> None:
    penn.without_marker()
    convert()
    assert "penn_action/train is real data: name the network's weights" in extract(code=2).err
    moved = penn.raw.rename(tmp_path / "elsewhere")
    assert "--raw DIR" in extract("--weights", "untrained:0", code=2).err
    extract("--weights", "untrained:0", "--raw", moved)
    (row,) = json.loads(status_of("--json"))
    assert (row["stand_in"], row["streams"], row["raw"]) == (False, ["resnet50 (untrained)"], str(penn.raw))


def test_demo_data_and_real_data_in_one_cache_are_reported(
    root: Path, penn: Any, embedded: Any, into: Any, convert: Any
) -> None:
    penn.without_marker()
    refused = convert(code=2).err
    assert f"penn_action/train: was made from demo data, and {penn.raw} is real data" in refused
    assert refused.endswith(f"convert penn_action train --raw {penn.raw} --cache {root}-real\n")
    assert penn.split.manifest["stand_in"] is True
    shutil.rmtree(root)
    into.convert(root, embedded.raw("amass"), "amass")
    (line,) = convert().err.splitlines()
    assert line.startswith(f"! {root}: will hold both, penn_action/train from real data and amass/train from demo data")


def test_a_terminal_without_ticks_shows_an_escape(root: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert run("verify", "--cache", root) == 0
    assert written.getvalue().startswith(rb"\u2713 intact: ")
