"""`python -m pipeline`: what it prints, and how it exits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy.io import loadmat, savemat

import cache
from pipeline import datasets, synthetic
from pipeline.__main__ import main
from pipeline.commands import status
from pipeline.commands.options import command, plain
from pipeline.datasets.penn_action import PennAction
from pipeline.synthetic.layouts.layout import Size

ROOT = Path(__file__).parents[3]
COMMANDS = (
    *("doctor", "synthesize", "plan", "accept", "convert", "extract", "export", "import"),
    *("retry", "show", "verify", "status", "gc", "compact"),
)


@pytest.fixture
def penn(embedded: Any, tmp_path: Path) -> Path:
    return embedded.copy("penn_action", tmp_path / "penn_action")


@pytest.fixture
def root(penn: Path, into: Any, tmp_path: Path) -> Path:
    """A cache with Penn Action's train split: three videos of 8 frames."""
    into.convert(tmp_path / "cache", penn)
    return tmp_path / "cache"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def convert_penn(raw: Path, root: Path, *more: object) -> int:
    return run("convert", "penn_action", "train", "--raw", raw, "--cache", root, *more)


def extract_penn(root: Path, *more: object) -> int:
    return run("extract", "penn_action", "train", "--cache", root, *more)


def piped(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, whose output goes into a pipe."""
    words = [sys.executable, "-W", "error", "-m", "pipeline", *(str(argument) for argument in arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


def controls(text: str) -> set[str]:
    return {char for char in text if not char.isprintable() and char != "\n"}


def test_the_whole_way_from_synthesized_data_to_a_verified_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, network: Any
) -> None:
    layout = {"penn_action": synthetic.LAYOUTS["penn_action"]}
    monkeypatch.setattr(synthetic, "LAYOUTS", layout)
    monkeypatch.setitem(synthetic.SIZES, "tiny", Size(0.05, 0.2))
    assert run("synthesize", "--out", tmp_path, "--size", "tiny", "--workers", 1) == 0
    assert (tmp_path / "body/SMPL_NEUTRAL.pkl").is_file()
    raw, root = tmp_path / "raw/penn_action", tmp_path / "cache"
    n_frames = len(list((raw / "frames/0001").iterdir()))
    assert capsys.readouterr().out == f"Embedded stand-in data in {tmp_path}/raw, stand-in body in {tmp_path}/body.\n"

    assert convert_penn(raw, root) == 0
    assert capsys.readouterr().out.splitlines() == [
        "penn_action/train: converted (why: not converted before)",
        "  videos 1 kept of 1",
        "  tracks 1 kept of 1",
        f"  frames {n_frames} kept of {n_frames}",
    ]
    assert extract_penn(root) == 0
    told = capsys.readouterr().out
    assert f"penn_action/train: extracted, {n_frames} rows computed" in told
    assert "STAND-IN" in told

    assert run("verify", "--cache", root) == 0
    assert capsys.readouterr().out.startswith("✓ intact: 6 shards, ")
    assert run("status", "--cache", root) == 0
    (line,) = capsys.readouterr().out.splitlines()[1:]
    numbers = f"1 / 1 1 / 1 {n_frames} / {n_frames}"
    assert " ".join(line.split()) == f"penn_action/train (stand-in) {numbers} - resnet50 (untrained)"
    assert run("synthesize", "--out", tmp_path, "--size", "tiny", "--workers", 1) == 0


def test_doing_it_again_does_nothing_and_says_so(
    penn: Path, root: Path, into: Any, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    assert extract_penn(root) == 0
    before = into.everything(root)
    capsys.readouterr()
    assert convert_penn(penn, root) == 0
    assert extract_penn(root) == 0
    assert capsys.readouterr().out.splitlines() == [
        "penn_action/train: up to date, 3 videos",
        "penn_action/train: resnet50 is up to date",
    ]
    assert into.everything(root) == before


def test_a_video_set_aside_and_rows_without_features_are_told(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    root, file = tmp_path / "cache", penn / "labels/0003.mat"
    label = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    savemat(file, label | {"x": label["x"][:, :12]})
    (penn / "frames/0005/000002.jpg").write_bytes(b"")
    assert convert_penn(penn, root) == 0
    told = capsys.readouterr().out
    assert "videos 2 kept of 3, 1 bad_label_file" in told
    assert f"! set aside 0003: bad_label_file: {file}: 'x': expected" in told
    assert told.count("; those of 1 video that could not be read are not counted") == 1
    assert extract_penn(root) == 0
    told = capsys.readouterr().out
    assert "! 1 row without features: picture_empty" in told
    assert "0005, frame 1: " in told
    assert run("status", "--cache", root) == 0
    told = capsys.readouterr().out
    assert f"! penn_action/train: 0003: bad_label_file: {file}" in told
    assert "1 unread video not counted" in told
    assert convert_penn(penn, tmp_path / "strict", "--strict") == 2
    assert "--strict: nothing was committed" in capsys.readouterr().err


def test_verify_exits_with_1_after_a_flipped_bit_and_names_the_file(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = root / "penn_action/train/bbox/c/0/0"
    data = bytearray(shard.read_bytes())
    data[17] ^= 4
    shard.write_bytes(data)
    assert run("verify", "--cache", root) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"✗ {shard}: ")
    assert lines[-1].startswith("1 problem in ")


def test_status_as_json_holds_the_same(
    root: Path, capsys: pytest.CaptureFixture[str], network: Any, penn: Path
) -> None:
    assert extract_penn(root) == 0
    shutil.rmtree(penn / "frames/0003")
    assert convert_penn(penn, root) == 0
    capsys.readouterr()
    assert run("status", "--cache", root, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["split"] == "penn_action/train"
    assert row["tracks"] == 2
    assert row["stand_in"] is True
    assert row["streams"] == ["resnet50 (untrained)"], "the rows that are left have their features"
    assert row["accounting"] == cache.open(root)["penn_action/train"].manifest["accounting"]
    assert [text.partition(":")[0] for text in row["set_aside"]] == ["no_picture"]
    (video,) = row["videos"]
    assert (video["name"], video["set_aside"], video["failed"]) == ("0003", "no_picture", True)


def test_status_with_all_names_the_missing_picture_of_a_video_that_was_used(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    (penn / "frames/0003/000003.jpg").unlink()
    assert convert_penn(penn, root) == 0
    capsys.readouterr()
    assert run("status", "--cache", root, "--all") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("·")]
    assert line.startswith("· penn_action/train: 0003: 1 no_picture; ")
    assert "000003.jpg" in line
    assert run("status", "--cache", root) == 0
    assert "000003.jpg" not in capsys.readouterr().out


def real(raw: Path) -> Path:
    """As if it were a download: without the marker of stand-ins."""
    (raw / "STAND_IN.json").unlink()
    return raw


def test_an_incomplete_download_is_told_beside_what_the_release_has(
    penn: Path, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    assert convert_penn(real(penn), root) == 0
    assert "  videos 3 kept of 3 (1,258 in the release)" in capsys.readouterr().out
    accounting = cache.open(root)["penn_action/train"].manifest["accounting"]
    assert accounting["known"] == {"videos": 1258}
    assert run("status", "--cache", root) == 0
    told = capsys.readouterr().out
    assert "3 / 3 of 1,258 known" in told
    assert "! penn_action/train: 3 videos found of 1,258 in the release" in told
    assert "all splits" not in told  # the release's frames are known over both splits, and one is here
    into.convert(root, penn, split="test")
    assert run("status", "--cache", root) == 0
    told = capsys.readouterr().out
    n_frames = sum(cache.open(root)[name].manifest["rows"] for name in cache.open(root).splits)
    assert f"! penn_action, all splits: {n_frames} frames found of 163,841 in the release" in told
    assert "all splits: 6 videos" not in told  # that is told split by split


def test_stand_ins_are_compared_with_no_release(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cache.open(root)["penn_action/train"].manifest["accounting"]["known"] == {}
    assert run("status", "--cache", root) == 0
    told = capsys.readouterr().out
    assert "known" not in told
    assert "release" not in told


def test_where_every_video_fails_it_says_so_with_the_first_reason_and_exits_with_1(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, first = tmp_path / "cache", penn / "labels/0001.mat"
    for label in (penn / "labels").iterdir():
        label.write_bytes(b"broken")
    for _ in ("converted", "up to date"):
        assert convert_penn(penn, root) == 1
        last = capsys.readouterr().out.splitlines()[-1]
        said = "✗ penn_action/train has no rows: of 6 videos something is wrong with all. The first, bad_label_file: "
        assert last.startswith(f"{said}{first}: ")


def test_a_defect_of_a_reader_is_told_before_all_else_that_was_set_aside(
    penn: Path, tmp_path: Path, reads: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    reads.fail("0008", ZeroDivisionError("division by zero"))
    for number in (1, 2, 3, 4, 6, 7, 8):
        (penn / f"labels/{number:04d}.mat").write_bytes(b"broken")
        (penn / f"frames/{number:04d}").mkdir(exist_ok=True)
    assert convert_penn(penn, tmp_path / "cache") == 0
    aside = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ! set aside")]
    assert aside[0].startswith("  ! set aside 0008: unexpected_error: ZeroDivisionError: division by zero")


def test_a_conversion_of_a_part_says_first_what_was_done(
    root: Path, penn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = penn / "labels/0003.mat"
    label = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    savemat(file, label | {"x": label["x"] + 1})
    assert convert_penn(penn, root) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "penn_action/train: 1 video read, 2 as before (why: 1 changed video)"


def test_what_libraries_say_of_a_broken_video_is_not_shown_beside_our_own_words(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(2000))
    code = (
        "import sys, pathlib; from pipeline.pixels.frames import Video; from pipeline.errors import RawDataError\n"
        "try: Video(pathlib.Path(sys.argv[1]), sys.argv[2]).header()\n"
        "except RawDataError: print('refused')"
    )
    words = [sys.executable, "-c", code, str(tmp_path), "broken.mp4"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("refused\n", "")


def test_a_long_list_of_videos_set_aside_is_cut_and_all_names_them(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    for number in range(1, 8):
        (penn / f"labels/{number:04d}.mat").write_bytes(b"broken")
        (penn / f"frames/{number:04d}").mkdir(exist_ok=True)
    assert convert_penn(penn, root) == 1
    assert f"and 2 more: {command('status', '--all', '--cache', str(root))}" in capsys.readouterr().out
    assert run("status", "--cache", root) == 0
    told = capsys.readouterr().out
    assert told.count(": bad_label_file: ") == 5
    assert f"! penn_action/train: and 2 more: {command('status', '--all', '--cache', str(root))}" in told
    assert run("status", "--cache", root, "--all") == 0
    assert capsys.readouterr().out.count(": bad_label_file: ") == 7
    assert run("status", "--cache", root, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)[0]["set_aside"]) == 7


def test_rows_whose_pictures_cannot_be_decoded_are_told_by_status(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    root = tmp_path / "cache"
    (penn / "frames/0005/000002.jpg").write_bytes(b"")
    (penn / "frames/0003/000008.jpg").write_bytes(b"")
    assert convert_penn(penn, root) == 0
    assert extract_penn(root) == 0
    capsys.readouterr()
    assert run("status", "--cache", root) == 0
    assert "penn_action/train: 2 rows without features in resnet50" in capsys.readouterr().out
    assert run("status", "--cache", root, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["undecodable"] == {"resnet50": 2}
    for shard in (root / "penn_action/train/features/resnet50_ok/c").iterdir():
        shard.unlink()
    assert run("status", "--cache", root) == 0
    assert f"resnet50 is damaged. Where, says: {command('verify', '--cache', str(root))}" in capsys.readouterr().out


def test_a_manifest_of_an_earlier_version_is_shown_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = status.split_status(cache.open(root)["penn_action/train"])
    del row["accounting"]["known"]
    del row["accounting"]["tracks"]["found"]
    assert status._counts(row["accounting"], "tracks") == "3"
    assert list(status.beside_the_release([{**row, "stand_in": False}])) == []


def test_motion_without_pictures_is_told_as_such(
    embedded: Any, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(tmp_path, embedded.raw("amass"), "amass")
    assert run("extract", "amass", "train", "--cache", tmp_path) == 0
    assert capsys.readouterr().out == "amass/train: motion alone, without pictures\n"


def test_without_a_body_it_says_what_will_be_missing(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("convert", "3dpw", "train", "--raw", embedded.raw("3dpw"), "--cache", tmp_path) == 0
    assert "3dpw/train: no --body, so there will be no 3D joints" in capsys.readouterr().err


MISTAKES = {
    "no raw folder": ("convert", "penn_action", "train", "--raw", "nowhere", "--cache", "{root}"),
    "an unknown split": ("convert", "penn_action", "val", "--raw", "{penn}", "--cache", "{root}"),
    "an unknown dataset": ("convert", "penn", "train", "--raw", "{penn}", "--cache", "{root}"),
    "an option that is missing": ("convert", "penn_action", "train", "--raw", "{penn}"),
    "no command": (),
    "no body": ("convert", "3dpw", "train", "--raw", "{3dpw}", "--cache", "{root}", "--body", "nowhere"),
    "a cache that is a file": ("convert", "penn_action", "train", "--raw", "{penn}", "--cache", "{file}"),
    "no cache": ("verify", "--cache", "nowhere"),
    "no cache to tell of": ("status", "--cache", "nowhere"),
    "a split that is not converted": ("extract", "penn_action", "test", "--cache", "{root}"),
    "weights of no kind": ("extract", "penn_action", "train", "--cache", "{root}", "--weights", "resnet"),
    "weights that are not there": ("extract", "penn_action", "train", "--cache", "{root}", "--weights", "file:no.pt"),
    "a stream's name that leaves the cache": (
        "extract",
        "penn_action",
        "train",
        "--cache",
        "{root}",
        "--stream",
        "../x",
    ),
    "batches of nothing": ("extract", "penn_action", "train", "--cache", "{root}", "--batch-size", "-1"),
    "a negative seed": ("synthesize", "--out", "{root}/new", "--seed", "-1"),
    "a folder of somebody else": ("synthesize", "--out", "{foreign}"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_exit_2_and_changes_nothing(
    mistake: str, root: Path, penn: Path, embedded: Any, into: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], network: Any,
) -> None:  # fmt: skip
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "foreign/body").mkdir(parents=True)
    (tmp_path / "foreign/body/SMPL_NEUTRAL.pkl").write_bytes(b"mine")
    places = {"root": root, "penn": penn, "file": tmp_path / "file", "foreign": tmp_path / "foreign"}
    arguments = [text.format(**places, **{"3dpw": embedded.raw("3dpw")}) for text in MISTAKES[mistake]]
    before = into.everything(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as ended:  # argparse's own way out
        code = int(ended.code or 0)
    told = capsys.readouterr()
    assert code == 2
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    assert into.everything(tmp_path) == before


def test_debug_shows_where_an_error_comes_from(penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ("convert", "penn_action", "val", "--raw", penn, "--cache", tmp_path / "cache")
    for arguments in (("--debug", *wrong), (*wrong, "--debug")):
        assert run(*arguments) == 2
        told = capsys.readouterr().err
        assert "Traceback (most recent call last)" in told
        assert "in check_split" in told
        assert told.splitlines()[-1].startswith("error: penn_action has no split 'val'")


def test_a_failure_nobody_foresaw_is_one_line_too(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(PennAction, "videos", fail)
    assert convert_penn(penn, tmp_path / "cache") == 2
    expected = r"error: ZeroDivisionError: division\nby zero. This should not happen: --debug shows where it does."
    assert capsys.readouterr().err.splitlines() == [expected]


def test_an_interruption_says_that_nothing_is_lost(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.conversion.convert.read_videos", interrupt)
    assert convert_penn(penn, tmp_path / "cache") == 130
    assert "finished shards (8,192 rows each) are kept" in capsys.readouterr().err
    monkeypatch.undo()
    assert convert_penn(penn, tmp_path / "cache") == 0


def test_a_stream_with_other_weights_is_refused_replaced_or_put_beside(
    root: Path, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    assert extract_penn(root) == 0
    assert extract_penn(root, "--weights", "untrained:1") == 2
    assert "--stream NAME" in capsys.readouterr().err
    assert extract_penn(root, "--weights", "untrained:1", "--stream", "other", "--kind", "resnet50") == 0
    assert extract_penn(root, "--weights", "untrained:2", "--replace") == 0
    split = cache.open(root)["penn_action/train"]
    seeds = {name: split.stream_manifest(name)["identity"]["weights"]["argument"] for name in split.streams}
    assert seeds == {"other": "1", "resnet50": "2"}


def test_a_moved_raw_folder_is_given_by_raw(
    root: Path, penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    moved = penn.rename(tmp_path / "elsewhere")
    assert extract_penn(root) == 2
    assert "--raw DIR" in capsys.readouterr().err
    assert extract_penn(root, "--raw", moved) == 0


@pytest.mark.parametrize("name", [(), *((word,) for word in COMMANDS)])
def test_every_command_explains_itself(name: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: {' '.join(('python -m pipeline', *name))} ")
    if not name:
        assert all(word in told for word in COMMANDS)
    if name in (("convert",), ("extract",)):
        assert all(word in told for word in datasets.names())


def test_compact_and_gc_tell_what_went(root: Path, penn: Path, into: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", "penn_action", "train", "--cache", str(root)]) == 0
    assert "nothing to compact" in capsys.readouterr().out
    shutil.rmtree(penn / "frames/0001")
    into.convert(root, penn)
    before = cache.open(root)["penn_action/train"]
    assert main(["compact", "penn_action", "train", "--cache", str(root)]) == 0
    after = cache.open(root)["penn_action/train"]
    gone = before.manifest["extent"] - after.manifest["extent"]
    assert gone > 0
    assert f"{after.manifest['rows']} rows now; {gone} rows of replaced videos" in capsys.readouterr().out
    stray = root / "penn_action/train/bbox/c/77/0"
    stray.parent.mkdir()
    stray.write_bytes(b"12345")
    assert main(["gc", "--dry-run", "--cache", str(root)]) == 0
    assert "would be removed" in capsys.readouterr().out
    assert stray.exists()
    assert main(["gc", "--cache", str(root)]) == 0
    assert "1 left-over removed" in capsys.readouterr().out
    assert not stray.exists()


@pytest.mark.slow
def test_output_in_a_pipe_is_plain_text_of_whole_lines(root: Path, penn: Path, tmp_path: Path) -> None:
    for clip in ("0001", "0003"):
        shutil.rmtree(penn / f"frames/{clip}")
    converted = piped("convert", "penn_action", "train", "--raw", penn, "--cache", tmp_path / "new")
    shown, checked = (piped(word, "--cache", tmp_path / "new") for word in ("status", "verify"))
    for ended in (converted, shown, checked):
        assert (ended.returncode, ended.stderr) == (0, "")
        assert controls(ended.stdout) == set()
    lines = shown.stdout.splitlines()
    assert " ".join(lines[0].split()) == "split videos tracks frames kept / found dropped streams"
    assert len(lines) == 4
    assert all(line.endswith("Unpack Penn_Action.tar.gz again.") for line in lines[2:])  # long, and in one piece
    wrong = piped("verify", "--cache", tmp_path / "nowhere")
    assert (wrong.returncode, wrong.stdout, controls(wrong.stderr)) == (2, "", set())
    assert wrong.stderr.count("\n") == 1


def test_whoever_reads_only_the_start_of_the_output_is_no_error(root: Path) -> None:
    script = f"{sys.executable} -m pipeline status --json --cache {root} | head -c 1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.stderr == ""


def test_a_terminal_that_knows_no_tick_is_no_error(root: Path) -> None:
    words = [sys.executable, "-m", "pipeline", "verify", "--cache", str(root)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(r"\u2713 intact: ")


def test_names_from_elsewhere_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[31mb\r\n\udcff") == r"a\x1b[31mb\r\n\udcff"
    assert plain("[red]") == r"\[red]"
    assert plain("déjà vu") == "déjà vu"


def test_real_data_asks_for_the_networks_weights(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = Path(shutil.copytree(embedded.raw("penn_action"), tmp_path / "penn_action"))
    (raw / "STAND_IN.json").unlink(missing_ok=True)  # as if it were real
    root = tmp_path / "cache"
    assert main(["convert", "penn_action", "train", "--raw", str(raw), "--cache", str(root)]) == 0
    assert main(["extract", "penn_action", "train", "--cache", str(root)]) == 2
    assert "penn_action/train is real data: name the network's weights" in capsys.readouterr().err


def test_rows_of_real_data_seen_by_an_untrained_network_are_marked(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: Any
) -> None:
    root = tmp_path / "cache"
    assert convert_penn(real(penn), root) == 0
    assert extract_penn(root, "--weights", "untrained:0") == 0
    capsys.readouterr()
    assert run("status", "--cache", root) == 0
    assert "resnet50 (untrained)" in capsys.readouterr().out
    assert run("status", "--cache", root, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["stand_in"], row["streams"], row["raw"]) == (False, ["resnet50 (untrained)"], str(penn))


def test_an_incomplete_download_is_told_with_the_command_that_says_more(
    penn: Path, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(tmp_path / "cache", real(penn))
    assert run("status", "--cache", tmp_path / "cache") == 0
    assert f"What is missing: {command('doctor', 'penn_action', '--raw', str(tmp_path))}\n" in capsys.readouterr().out
    moved = penn.rename(tmp_path / "Penn_Action")  # doctor looks for <raw>/penn_action: no command would find it
    into.convert(tmp_path / "moved", moved)
    assert run("status", "--cache", tmp_path / "moved") == 0
    told = capsys.readouterr().out
    assert "the download is not complete\n" in told
    assert "doctor" not in told


def test_a_split_that_was_a_stand_in_is_told_in_the_first_line(
    root: Path, penn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert_penn(real(penn), root) == 0
    shown = capsys.readouterr()
    why = "what was there was made from embedded stand-in data, and this is real data"
    assert shown.out.splitlines()[0] == f"penn_action/train: converted (why: {why})"
    assert shown.err == ""


def test_stand_ins_and_real_data_in_one_cache_are_told_beforehand(
    root: Path, penn: Path, embedded: Any, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into.convert(root, embedded.raw("amass"), "amass")
    assert convert_penn(real(penn), root) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"! {root}: will hold both kinds, penn_action/train from real data and amass/train from embedded stand-in data"
    )
    assert convert_penn(penn, root) == 0
    assert convert_penn(penn, tmp_path / "apart") == 0
    assert capsys.readouterr().err == ""


def test_real_3dpw_over_a_stand_in_with_other_columns_says_first_which_is_which(
    embedded: Any, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, raw = tmp_path / "cache", embedded.copy("3dpw", tmp_path / "3dpw")
    into.convert(root, raw, "3dpw", body=embedded.body)
    assert run("convert", "3dpw", "train", "--raw", real(raw), "--cache", root) == 2
    told = capsys.readouterr().err
    started = "was made from embedded stand-in data, and would now be made from real data: its rows have besides"
    assert told.startswith(f"error: {root / '3dpw/train'}: {started}")
    assert "name another cache (--cache, or [paths] cache in luigi.cfg)" in told


def test_strict_does_not_call_up_to_date_what_an_earlier_run_set_aside(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    (penn / "labels/0003.mat").write_bytes(b"broken")
    assert convert_penn(penn, root) == 0
    assert convert_penn(penn, root) == 0
    capsys.readouterr()
    assert convert_penn(penn, root, "--strict") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: penn_action/train: {penn / 'labels/0003.mat'}: ")
    assert "retry penn_action/train --failed" in shown.err


def test_a_page_that_cannot_be_written_is_told_before_it_is_drawn(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show = ("show", "penn_action", "train", "--cache", root, "--out")
    assert run(*show, tmp_path) == 2
    told = capsys.readouterr().err
    assert told == f"error: --out {tmp_path}: is a folder. Name the page to write: --out {tmp_path / 'page.html'}\n"
    assert run(*show, tmp_path / "new/page.html") == 2
    told = capsys.readouterr().err
    assert (
        told == f"error: --out {tmp_path}/new/page.html: there is no folder {tmp_path}/new. Make it, or name another.\n"
    )
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_place_of_the_cache_is_told_in_words(
    penn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "README.md"
    file.write_text("")
    assert convert_penn(penn, file) == 2
    assert capsys.readouterr().err == f"error: {file}: this is a file, where a folder is needed. Name another place.\n"
