"""`python -m pipeline`: what it prints, and its exit codes."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cache
from pipeline import datasets, synthetic
from pipeline.cli.console import plain
from pipeline.cli.text import command
from pipeline.commands import COMMANDS, status
from pipeline.datasets.penn_action import PennAction
from pipeline.synthetic.layouts import Size

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(penn: Any) -> Path:
    """A cache with Penn Action's train split: three videos of 8 frames."""
    penn.convert()
    return Path(penn.root)


@pytest.fixture
def convert_penn(penn: Any, run: Any) -> Callable[..., int]:
    return lambda *more: run("convert", penn.name, "--raw", penn.raw, "--cache", penn.root, *more)


@pytest.fixture
def extract_penn(penn: Any, run: Any) -> Callable[..., int]:
    return lambda *more: run("extract", penn.name, "--cache", penn.root, *more)


@pytest.fixture
def status_of(penn: Any, run: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The output of `status`."""

    def status_of(*more: object) -> str:
        capsys.readouterr()
        assert run("status", "--cache", penn.root, *more) == 0
        return capsys.readouterr().out

    return status_of


def controls(text: str) -> set[str]:
    return {char for char in text if not char.isprintable() and char != "\n"}


def test_from_synthesized_data_to_a_verified_cache(
    tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, network: Any
) -> None:
    one = functools.partial(synthetic.synthesize, datasets=["penn_action"])
    monkeypatch.setattr(synthetic, "synthesize", one)
    monkeypatch.setitem(synthetic.SIZES, "tiny", Size(0.05, 0.2))
    assert run("synthesize", "--out", tmp_path, "--size", "tiny", "--workers", 1) == 0
    assert (tmp_path / "body/SMPL_NEUTRAL.pkl").is_file()
    raw, root = tmp_path / "raw/penn_action", tmp_path / "cache"
    n_frames = len(list((raw / "frames/0001").iterdir()))
    assert capsys.readouterr().out == f"demo data in {tmp_path}/raw, demo body in {tmp_path}/body\n"

    assert run("convert", "penn_action", "train", "--raw", raw, "--cache", root) == 0
    assert capsys.readouterr().out.splitlines() == [
        "penn_action/train: converted (why: not converted before)",
        "  videos 1 kept of 1",
        "  tracks 1 kept of 1",
        f"  frames {n_frames} kept of {n_frames}",
    ]
    assert run("extract", "penn_action", "train", "--cache", root) == 0
    shown = capsys.readouterr().out
    assert f"penn_action/train: extracted, {n_frames} rows computed" in shown
    assert "STAND-IN" in shown
    assert run("verify", "--cache", root) == 0
    assert capsys.readouterr().out.startswith("✓ intact: 6 shards, ")
    assert run("status", "--cache", root) == 0
    (line,) = capsys.readouterr().out.splitlines()[1:]
    numbers = f"1 / 1 1 / 1 {n_frames} / {n_frames}"
    assert " ".join(line.split()) == f"penn_action/train (demo data) {numbers} - resnet50 (untrained)"
    assert run("synthesize", "--out", tmp_path, "--size", "tiny", "--workers", 1) == 0


def test_a_second_run_changes_nothing(
    penn: Any, root: Path, convert_penn: Any, extract_penn: Any, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    assert extract_penn() == 0
    before = penn.everything()
    capsys.readouterr()
    assert convert_penn() == extract_penn() == 0
    assert capsys.readouterr().out.splitlines() == [
        "penn_action/train: up to date, 3 videos",
        "penn_action/train: resnet50 is up to date",
    ]
    assert penn.everything() == before
    penn.edit("0003")
    assert convert_penn() == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "penn_action/train: 1 video read, 2 unchanged (why: 1 changed video)"


def test_rejected_videos_and_rows_without_features_are_reported(
    penn: Any, convert_penn: Any, extract_penn: Any, status_of: Any, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    penn.spoil("0003")
    (penn.frames("0005") / "000002.jpg").write_bytes(b"")
    (penn.frames("0001") / "000003.jpg").unlink()
    assert convert_penn() == 0
    shown = capsys.readouterr().out
    assert "videos 2 kept of 3, 1 bad_label_file" in shown
    assert f"! rejected 0003: bad_label_file: {penn.label('0003')}: 'x': expected" in shown
    assert shown.count("frames of 1 unreadable video are not counted") == 1
    assert extract_penn() == 0
    shown = capsys.readouterr().out
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
    assert f"resnet50 is damaged. To see where: {command('verify', '--cache', str(penn.root))}" in status_of()
    capsys.readouterr()
    assert convert_penn("--strict") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {penn.name}: {penn.label('0003')}: ")
    assert "--retry" in shown.err


def test_where_every_video_fails_the_first_reason_is_shown_the_list_is_cut_and_the_exit_code_is_1(
    penn: Any, convert_penn: Any, status_of: Any, reads: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    reads.fail("0007", ZeroDivisionError("division by zero"))
    penn.add("0007")
    for number in range(1, 7):
        penn.label(f"{number:04d}").write_bytes(b"broken")
    for did in ("converted", "up to date"):
        assert convert_penn() == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1].startswith(f"✗ {penn.name}: no rows because of errors: all of 7 videos failed. The first, ")
        if did == "converted":
            rejected = [line for line in lines if line.startswith("  ! rejected ")]
            assert rejected[0].startswith("  ! rejected 0007: unexpected_error: "), "defects come first"
            more = f"and 2 more: {command('status', '--all', '--cache', str(penn.root))}"
            assert f"  ! {more}" in lines
    shown = status_of()
    assert shown.count(f"! {penn.name}: ") == 6
    assert f"! {penn.name}: {more}" in shown
    assert status_of("--all").count(": bad_label_file: ") == 6
    assert len(json.loads(status_of("--json"))[0]["set_aside"]) == 7


def test_an_incomplete_download_is_reported_beside_the_numbers_of_the_release(
    penn: Any, convert_penn: Any, status_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    penn.without_marker()
    assert convert_penn() == 0
    assert "  videos 3 kept of 3 (1,258 in the release)" in capsys.readouterr().out
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


def test_demo_data_are_compared_with_no_release(root: Path, penn: Any, status_of: Any) -> None:
    assert penn.split.manifest["accounting"]["known"] == {}
    assert "release" not in status_of()


def test_a_manifest_of_an_earlier_version_is_shown_too(root: Path, penn: Any) -> None:
    row = status.split_status(penn.split)
    del row["accounting"]["known"]
    del row["accounting"]["tracks"]["found"]
    assert status.counts_text(row["accounting"], "tracks") == "3"
    assert list(status.beside_the_release([{**row, "stand_in": False}])) == []


def test_messages_of_libraries_about_a_broken_video_are_not_shown_beside_our_own(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(2000))
    code = (
        "import sys, pathlib; from pipeline.pixels.frames import Video; from pipeline.errors import RawDataError\n"
        "try: Video(pathlib.Path(sys.argv[1]), sys.argv[2]).header()\n"
        "except RawDataError: print('refused')"
    )
    words = [sys.executable, "-c", code, str(tmp_path), "broken.mp4"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("refused\n", "")


def test_motion_without_pictures_and_a_missing_body_are_reported(
    embedded: Any, into: Any, run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(tmp_path, embedded.raw("amass"), "amass")
    assert run("extract", "amass", "train", "--cache", tmp_path) == 0
    assert capsys.readouterr().out == "amass/train: motion only, without pictures\n"
    assert run("convert", "3dpw", "train", "--raw", embedded.raw("3dpw"), "--cache", tmp_path) == 0
    assert "3dpw/train: no --body, so there will be no 3D joints" in capsys.readouterr().err


EXTRACT = ("extract", "penn_action/train", "--cache", "{root}")
CONVERT = ("convert", "penn_action/train", "--raw", "{penn}", "--cache")
MISTAKES = {
    "no raw folder": ("convert", "penn_action", "train", "--raw", "nowhere", "--cache", "{root}"),
    "an unknown split": ("convert", "penn_action", "val", "--raw", "{penn}", "--cache", "{root}"),
    "an unknown dataset": ("convert", "penn", "train", "--raw", "{penn}", "--cache", "{root}"),
    "a missing option": ("convert", "penn_action", "train", "--raw", "{penn}"),
    "no raw": ("convert", "penn_action", "train", "--cache", "{root}"),
    "an option of --retry": (*CONVERT, "{root}", "--video", "0003"),
    "no command": (),
    "no body": ("convert", "3dpw", "train", "--raw", "{3dpw}", "--cache", "{root}", "--body", "nowhere"),
    "a cache that is a file": (*CONVERT, "{file}"),
    "no cache": ("verify", "--cache", "nowhere"),
    "no cache to show": ("status", "--cache", "nowhere"),
    "a split that is not converted": ("extract", "penn_action", "test", "--cache", "{root}"),
    "weights of no kind": (*EXTRACT, "--weights", "resnet"),
    "weights that are not there": (*EXTRACT, "--weights", "file:no.pt"),
    "a stream's name that leaves the cache": (*EXTRACT, "--stream", "../x"),
    "batches of nothing": (*EXTRACT, "--batch-size", "-1"),
    "a negative seed": ("synthesize", "--out", "{root}/new", "--seed", "-1"),
    "a folder of other files": ("synthesize", "--out", "{foreign}"),
    "a page that is a folder": ("show", "penn_action/train", "--cache", "{root}", "--out", "{root}"),
    "a page in no folder": ("show", "penn_action/train", "--cache", "{root}", "--out", "{root}/new/page.html"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_exit_code_2_and_changes_nothing(
    mistake: str, root: Path, penn: Any, embedded: Any, into: Any, run: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], network: Any,
) -> None:  # fmt: skip
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "foreign/body").mkdir(parents=True)
    (tmp_path / "foreign/body/SMPL_NEUTRAL.pkl").write_bytes(b"mine")
    places = {"root": root, "penn": penn.raw, "file": tmp_path / "file", "foreign": tmp_path / "foreign"}
    arguments = [text.format(**places, **{"3dpw": embedded.raw("3dpw")}) for text in MISTAKES[mistake]]
    before = into.everything(tmp_path)
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err
    assert into.everything(tmp_path) == before


def test_debug_shows_where_an_error_comes_from(penn: Any, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ("convert", "penn_action", "val", "--raw", penn.raw, "--cache", penn.root)
    for arguments in (("--debug", *wrong), (*wrong, "--debug")):
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert "Traceback (most recent call last)" in error
        assert "in check_split" in error
        assert error.splitlines()[-1].startswith("error: penn_action has no split 'val'")


def test_an_unexpected_failure_is_one_line_too(
    convert_penn: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(PennAction, "videos", fail)
    assert convert_penn() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"error: ZeroDivisionError: division\nby zero. ")
    assert "--debug" in line


def test_a_stream_with_other_weights_is_refused_replaced_or_put_beside(
    root: Path, penn: Any, extract_penn: Any, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    assert extract_penn() == 0
    assert extract_penn("--weights", "untrained:1") == 2
    assert "--stream NAME" in capsys.readouterr().err
    assert extract_penn("--weights", "untrained:1", "--stream", "other", "--kind", "resnet50") == 0
    assert extract_penn("--weights", "untrained:2", "--replace") == 0
    split = penn.split
    seeds = {name: split.stream_manifest(name)["identity"]["weights"]["argument"] for name in split.streams}
    assert seeds == {"other": "1", "resnet50": "2"}


def test_a_moved_raw_folder_is_given_by_raw(
    root: Path, penn: Any, extract_penn: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    moved = penn.raw.rename(tmp_path / "elsewhere")
    assert extract_penn() == 2
    assert "--raw DIR" in capsys.readouterr().err
    assert extract_penn("--raw", moved) == 0


@pytest.mark.parametrize("name", [(), *((word,) for word in COMMANDS)])
def test_every_command_explains_itself(name: tuple[str, ...], run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*name, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {' '.join(('python -m pipeline', *name))} ")
    if not name:
        assert all(word in shown for word in COMMANDS)
    if name in (("convert",), ("extract",)):
        assert all(word in shown for word in datasets.names())


def test_compact_and_gc_report_what_is_removed(
    root: Path, penn: Any, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compact", "penn_action", "train", "--cache", root) == 0
    assert "nothing to compact" in capsys.readouterr().out
    shutil.rmtree(penn.frames("0001"))
    penn.convert()
    before = penn.split
    assert run("compact", "penn_action", "train", "--cache", root) == 0
    gone = before.manifest["extent"] - penn.split.manifest["extent"]
    assert gone > 0
    assert f"{penn.split.manifest['rows']} rows now; {gone} rows of replaced videos" in capsys.readouterr().out
    stray = root / penn.name / "bbox/c/77/0"
    stray.parent.mkdir()
    stray.write_bytes(b"12345")
    assert run("gc", "--dry-run", "--cache", root) == 0
    assert "would be removed" in capsys.readouterr().out
    assert stray.exists()
    assert run("gc", "--cache", root) == 0
    assert "1 file or folder removed" in capsys.readouterr().out
    assert not stray.exists()


def test_names_from_raw_data_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[31mb\r\n\udcff") == r"a\x1b[31mb\r\n\udcff"
    assert plain("[red]") == r"\[red]"
    assert plain("déjà vu") == "déjà vu"


def test_real_data_need_the_networks_weights_and_an_untrained_network_is_marked(
    penn: Any, convert_penn: Any, extract_penn: Any, status_of: Any, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    penn.without_marker()
    assert convert_penn() == 0
    assert extract_penn() == 2
    assert "penn_action/train is real data: name the network's weights" in capsys.readouterr().err
    assert extract_penn("--weights", "untrained:0") == 0
    assert "resnet50 (untrained)" in status_of()
    (row,) = json.loads(status_of("--json"))
    assert (row["stand_in"], row["streams"], row["raw"]) == (False, ["resnet50 (untrained)"], str(penn.raw))


def test_demo_data_and_real_data_in_one_cache_are_reported(
    root: Path, penn: Any, embedded: Any, into: Any, convert_penn: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    penn.without_marker()
    assert convert_penn() == 0
    shown = capsys.readouterr()
    first = "penn_action/train: converted (why: it was made from demo data, and this is real data)"
    assert (shown.out.splitlines()[0], shown.err) == (first, "")
    shutil.rmtree(root)
    into.convert(root, embedded.raw("amass"), "amass")
    assert convert_penn() == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"! {root}: will hold both, penn_action/train from real data and amass/train from demo data")


def test_real_3dpw_over_demo_data_with_other_columns_is_refused(
    embedded: Any, into: Any, run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, raw = tmp_path / "cache", embedded.copy("3dpw", tmp_path / "3dpw")
    into.convert(root, raw, "3dpw", body=embedded.body)
    (raw / "STAND_IN.json").unlink()
    assert run("convert", "3dpw", "train", "--raw", raw, "--cache", root) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {root / '3dpw/train'}: was made from demo data with")
    assert "--cache" in error


# ---------------------------------------------------------------------------------------- in a process of its own


@pytest.mark.slow
def test_output_in_a_pipe_is_plain_text_of_complete_lines(penn: Any) -> None:
    for clip in ("0001", "0003"):
        shutil.rmtree(penn.frames(clip))

    def piped(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-W", "error", "-m", "pipeline", *map(str, arguments)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)

    converted = piped("convert", penn.name, "--raw", penn.raw, "--cache", penn.root)
    shown, checked = (piped(word, "--cache", penn.root) for word in ("status", "verify"))
    for ended in (converted, shown, checked):
        assert (ended.returncode, ended.stderr) == (0, "")
        assert controls(ended.stdout) == set()
    lines = shown.stdout.splitlines()
    assert " ".join(lines[0].split()) == "split videos tracks frames kept / found dropped streams"
    assert len(lines) == 4
    assert all(line.endswith("Unpack Penn_Action.tar.gz again.") for line in lines[2:])  # long, and in one piece
    wrong = piped("verify", "--cache", penn.root / "nowhere")
    assert (wrong.returncode, wrong.stdout, controls(wrong.stderr)) == (2, "", set())
    assert wrong.stderr.count("\n") == 1


def test_a_terminal_without_ticks_shows_an_escape(root: Path) -> None:
    words = [sys.executable, "-m", "pipeline", "verify", "--cache", str(root)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(r"\u2713 intact: ")
