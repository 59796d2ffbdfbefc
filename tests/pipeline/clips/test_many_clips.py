"""Keypoints of many clips in one file a folder: packed, added to, replaced, renamed, damaged, taken
out by hand.
"""

import errno
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.clips.detection import writing
from pipeline.clips.files import moved_frames
from pipeline.clips.labels import ClipLabels
from pipeline.conversion import reading
from pipeline.demo import writing as synthetic
from pipeline.errors import RawDataError
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import files
from pipeline.files.raw.files import read_regular
from pipeline.files.raw.pack import PACK, pack_index
from vibe_model.prediction.job import clips_folder

MANY = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short clips of demo data in a folder, and one beside it."""
    kinetics, raw = (tmp_path_factory.mktemp("clips") / name for name in ("kinetics", "raw"))
    synthetic.write_dataset("kinetics", kinetics, n_videos=4, n_frames=12)
    clips = sorted((kinetics / "train").rglob("*.mp4")) + sorted((kinetics / "val").rglob("*.mp4"))
    (raw / "dance").mkdir(parents=True)
    shutil.copy(kinetics / "STAND_IN.json", raw)
    for number, clip in enumerate(clips[:7]):
        shutil.copy(clip, raw / (f"dance/{number}.mp4" if number else "alone.mp4"))
    return raw


class Clips:
    """A copy of the clips, detected and converted by commands."""

    def __init__(self, made: Path | None, folder: Path, ran: Callable[..., Any]) -> None:
        self.raw, self.root, self._ran = folder / "raw", folder / "cache", ran
        if made is not None:
            shutil.copytree(made, self.raw)

    def detect(self, *options: object, code: int = 0) -> str:
        out = self.raw / "keypoints"
        return str(
            self._ran("detect", self.raw, "--out", out, "--workers", 1, *options, code=code).out
        )

    def convert(self, *options: object, code: int = 0) -> str:
        words = ("convert", "videos", "train", "--raw", self.raw, "--cache", self.root, *options)
        shown = self._ran(*words, "--set", "videos.min_frames=6", code=code)
        return str(shown.out + shown.err)

    @property
    def files(self) -> list[str]:
        found = (self.raw / "keypoints").rglob("*[pn]")  # zip, json
        return sorted(
            file.relative_to(self.raw / "keypoints").as_posix() for file in found if file.is_file()
        )

    @property
    def rows(self) -> dict[str, Any]:
        split = cache.open(self.root)["videos/train"]
        return {
            track.name: split.column("kp_2d")[track.start : track.stop] for track in split.tracks
        }


@pytest.fixture
def clips(made: Path, tmp_path: Path, ran: Callable[..., Any]) -> Clips:
    return Clips(made, tmp_path, ran)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def packed(
    made: Path, shared: Path, ran: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Clips:
    """Packed and converted once; each test changes a copy, in the same place."""
    monkeypatch.setattr(writing, "MANY", MANY)
    work, once = shared / "work", shared / "once"
    shutil.rmtree(work, ignore_errors=True)
    if once.exists():
        shutil.copytree(once, work)
        return Clips(None, work, ran)
    clips = Clips(made, work, ran)
    assert "; 6 files now in detected.zip of their folders" in clips.detect()
    assert clips.files == ["alone.mp4.json", f"dance/{PACK}"]
    clips.convert()
    shutil.copytree(work, once)
    return clips


def test_packing_changes_neither_rows_nor_what_a_conversion_has_to_do(clips, monkeypatch):
    clips.detect()
    clips.convert()
    single, rows = (
        {name: (clips.raw / "keypoints" / name).read_bytes() for name in clips.files},
        clips.rows,
    )
    moved = moved_frames(Video(clips.raw, "dance/3.mp4"))
    monkeypatch.setattr(writing, "MANY", MANY)
    assert clips.detect().startswith(
        "6 files now in detected.zip of their folders\n7 clips up to date"
    )
    # as any other program opens it
    with zipfile.ZipFile(clips.raw / "keypoints/dance" / PACK) as pack:
        assert {f"dance/{name}": pack.read(name) for name in pack.namelist()} == {
            name: content for name, content in single.items() if name.startswith("dance/")
        }
    assert "up to date" in clips.convert()
    assert cache.open(clips.root)["videos/train"].manifest["commits"][0][0] == 0
    assert len(cache.open(clips.root)["videos/train"].manifest["commits"]) == 1
    np.testing.assert_array_equal(moved_frames(Video(clips.raw, "dance/3.mp4")), moved)
    shutil.rmtree(clips.root)
    clips.convert()
    assert clips.rows.keys() == rows.keys() != set()
    for name, of_track in rows.items():
        np.testing.assert_array_equal(clips.rows[name], of_track)


def test_a_new_clip_waits_beside_the_others_until_they_are_many(packed):
    before = (packed.raw / "keypoints/dance" / PACK).read_bytes()
    for number in range(MANY):
        shutil.copy(packed.raw / "dance/2.mp4", packed.raw / f"dance/new{number}.mp4")
        shown = packed.detect()
        assert "1 clip: " in shown, shown
        assert ("now in" in shown) == (number == MANY - 1)
        assert ((packed.raw / "keypoints/dance" / PACK).read_bytes() == before) == (
            number < MANY - 1
        )
        assert f"{number + 8} clips up to date" in packed.detect()
    assert packed.files == ["alone.mp4.json", f"dance/{PACK}"]
    shown = packed.convert()
    commits = cache.open(packed.root)["videos/train"].manifest["commits"]
    assert len(commits) == 2, shown
    assert {name.split("/")[1].split(".")[0] for name in packed.rows} >= {
        f"new{number}" for number in range(MANY)
    }
    assert "up to date" in packed.convert()


def test_a_changed_or_edited_clip_has_its_own_file_which_counts(packed):
    shutil.copy(packed.raw / "alone.mp4", packed.raw / "dance/2.mp4")
    assert "1 clip: " in packed.detect()
    assert packed.files == ["alone.mp4.json", "dance/2.mp4.json", f"dance/{PACK}"]
    assert "7 clips up to date" in packed.detect()
    packed.convert()
    alone, changed = (
        [rows for name, rows in packed.rows.items() if clip in name]
        for clip in ("alone", "dance/2")
    )
    np.testing.assert_array_equal(alone, changed)
    # taken out by hand, and edited
    with zipfile.ZipFile(packed.raw / "keypoints/dance" / PACK) as pack:
        info, _, rest = pack.read("3.mp4.json").partition(b"\n")
    (packed.raw / "keypoints/dance/3.mp4.json").write_bytes(
        info + b"\n" + rest.replace(b'"iscrowd":0', b'"iscrowd":1')
    )
    shown = packed.convert("--drop-removed")
    assert ": 1 video read, 6 unchanged (why: 1 changed video)" in shown


def test_a_packed_file_counts_as_much_as_before_it_was_packed(tmp_path):
    folder = tmp_path / "keypoints"
    folder.mkdir()
    for name in ("a.mp4.json", "a.mp4.csv", "a.json"):
        (folder / name).touch()
    with zipfile.ZipFile(folder / PACK, "w") as pack:
        pack.writestr("a.mp4.json", "")

    def first_file() -> str:
        (file,), _ = ClipLabels(tmp_path).find("a.mp4", "")
        return file

    assert first_file() == "keypoints/a.mp4.json"
    (folder / "a.mp4.json").unlink()
    assert first_file() == f"keypoints/{PACK}/a.mp4.json"
    (folder / PACK).unlink()
    assert first_file() == "keypoints/a.mp4.csv"


def test_a_file_edited_in_the_zip_is_read_again_also_with_the_time_of_before(packed):
    file = packed.raw / "keypoints/dance" / PACK
    time = file.stat().st_mtime_ns
    with zipfile.ZipFile(file) as pack:
        contents = [(entry, pack.read(entry)) for entry in pack.infolist()]
    with zipfile.ZipFile(file, "w") as pack:
        for entry, content in contents:
            edited = entry.filename == "3.mp4.json"
            pack.writestr(
                entry, content.replace(b'"iscrowd":0', b'"iscrowd": 1') if edited else content
            )
    os.utime(file, ns=(time, time))
    shown = packed.convert("--drop-removed")
    assert ": 1 video read, 6 unchanged (why: 1 changed video)" in shown
    assert "up to date" in packed.convert()


def test_a_renamed_clip_takes_its_keypoints_out_of_the_file(packed):
    (packed.raw / "dance/1.mp4").rename(packed.raw / "waltz.mp4")
    assert "renamed dance/1.mp4 -> waltz.mp4" in packed.detect()
    assert packed.files == ["alone.mp4.json", f"dance/{PACK}", "waltz.mp4.json"]
    with zipfile.ZipFile(packed.raw / "keypoints/dance" / PACK) as pack:
        assert pack.namelist() == [f"{number}.mp4.json" for number in range(2, 7)]
    assert "missing clips" not in packed.detect()
    (packed.raw / "dance/5.mp4").unlink()
    assert f"1 keypoint file of missing clips: dance/{PACK}/5.mp4.json" in packed.detect()


def test_a_kill_between_packing_and_removing_leaves_files_that_agree(packed):
    keypoints = packed.raw / "keypoints/dance"
    whole = (keypoints / PACK).read_bytes()
    with zipfile.ZipFile(keypoints / PACK) as pack:
        pack.extractall(keypoints)
    packed.convert()
    assert "7 clips up to date" in packed.detect()
    assert packed.files == ["alone.mp4.json", f"dance/{PACK}"]
    assert (keypoints / PACK).read_bytes() == whole
    assert "up to date" in packed.convert()


@pytest.mark.parametrize("damage", ["cut off", "one byte", "no zip"])
def test_a_damaged_file_stops_its_clips_alone_and_costs_no_rows(damage, packed):
    rows, file = packed.rows, packed.raw / "keypoints/dance" / PACK
    content = file.read_bytes()
    changed = {
        "cut off": content[:-40],
        "one byte": content[:150] + b"\xff" + content[151:],
        "no zip": b"0" * 500,
    }
    file.write_bytes(changed[damage])
    shown = packed.convert(code=1)
    assert f"{file}: a damaged file of keypoints (" in shown, shown
    assert "missing from" not in shown, shown
    shutil.copy(packed.raw / "alone.mp4", packed.raw / "dance/new.mp4")
    shown = packed.convert(code=1)
    assert "damaged" in shown, shown
    assert packed.rows.keys() == rows.keys()
    if damage in ("cut off", "no zip"):
        shown = packed.detect(code=1)
        assert (
            shown.count("Restore it, or delete it and run `python -m pipeline detect` again.") == 7
        ), shown
        assert shown.count(f"! {file}: a damaged file of keypoints (") == 7, shown
    file.unlink()
    assert "7 clips: " in packed.detect()
    packed.convert()
    assert packed.rows.keys() > rows.keys()
    assert "up to date" in packed.convert()


def test_a_file_is_read_without_the_names_of_all_others(packed, monkeypatch):
    pack = packed.raw / "keypoints/dance" / PACK
    with zipfile.ZipFile(pack) as opened:
        contents = {name: opened.read(name) for name in opened.namelist()}
    assert [*pack_index(pack)] == [*contents]
    monkeypatch.setattr("pipeline.files.raw.pack.ZipFile", None)
    assert {name: read_regular(pack / name) for name in contents} == contents


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_file_that_would_fill_the_memory_is_refused(packed, monkeypatch, compression):
    pack = packed.raw / "keypoints/dance" / PACK
    with zipfile.ZipFile(pack) as opened:
        contents = {name: opened.read(name) for name in opened.namelist()}
    with zipfile.ZipFile(pack, "w", compression) as opened:
        for name, content in contents.items():
            opened.writestr(name, content)
    monkeypatch.setattr("pipeline.files.raw.pack.LARGEST", 100)
    with pytest.raises(
        OSError, match=r"damaged file of keypoints \(2.mp4.json .* over 100 bytes\)"
    ):
        read_regular(pack / "2.mp4.json")


def test_a_clip_that_cannot_be_hashed_now_is_read_later_and_is_not_called_another_one(
    clips, monkeypatch
):
    clips.detect()
    clip = clips.raw / "alone.mp4"
    dataset = datasets.get("videos", min_frames=6)
    video = next(v for v in dataset.videos(clips.raw, "train") if v.name == "alone.mp4")
    opened = files.open_unbuffered

    def failing(file: Path) -> Any:
        if file == clip:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(clip))
        return opened(file)

    with monkeypatch.context() as patch:
        patch.setattr(files, "open_unbuffered", failing)
        account = VideoAccount(video.name)
        with pytest.raises(RawDataError, match="Input/output error"):
            dataset.read(clips.raw, "train", video, account, None)
        read = reading.read_video(dataset, "train", clips.raw, None, video)
    assert read.account.set_aside == "not_readable_now"
    assert f"{clip}: input/output error. Check its disk" in read.account.message


def test_a_comment_by_a_zip_program_changes_nothing(packed):
    with zipfile.ZipFile(packed.raw / "keypoints/dance" / PACK, "a") as pack:
        pack.comment = b"checked"
    assert "up to date" in packed.convert()
    assert "7 clips up to date" in packed.detect()


def test_a_zip_of_another_program_is_left_alone(clips, monkeypatch):
    monkeypatch.setattr(writing, "MANY", MANY)
    (clips.raw / "keypoints/dance").mkdir(parents=True)
    with zipfile.ZipFile(clips.raw / "keypoints/dance" / PACK, "w") as pack:
        pack.writestr("notes.txt", "mine")
    content = (clips.raw / "keypoints/dance" / PACK).read_bytes()
    assert "now in" not in clips.detect()
    assert (clips.raw / "keypoints/dance" / PACK).read_bytes() == content
    assert len(clips.files) == 8
    assert "7 clips up to date" in clips.detect()


def test_a_zip_with_other_comments_is_another_programs(clips, monkeypatch):
    monkeypatch.setattr(writing, "MANY", MANY)
    clips.detect()
    with zipfile.ZipFile(clips.raw / "keypoints/dance" / PACK, "a") as pack:
        added = zipfile.ZipInfo("notes.txt")
        added.comment = "für mich".encode("latin-1")
        pack.writestr(added, "mine")
    for number in range(MANY):
        shutil.copy(clips.raw / "dance/2.mp4", clips.raw / f"dance/new{number}.mp4")
    assert "4 clips: " in clips.detect()
    assert "11 clips up to date" in clips.detect()


def test_only_whole_files_of_detect_are_packed(clips, monkeypatch):
    clips.detect()
    folder = clips.raw / "keypoints/dance"
    content = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    changes = {
        "1.mp4.json": content["1.mp4.json"][:-100],  # a copy that was interrupted
        "2.mp4.json": content["2.mp4.json"].replace(b'"fingerprint"', b'"print"', 1),
        "3.mp4.json": b'{"images": [], "annotations": [], "categories": []}\n',
    }
    for name, changed in changes.items():
        (folder / name).write_bytes(changed)
    files = [folder / name for name in content]
    with monkeypatch.context() as patched:
        patched.setattr(writing, "LARGEST", 100)  # bytes that `read_regular` reads
        assert writing.pack_folder(folder, files, ()) == 0
    assert writing.pack_folder(folder, files, ()) == 3
    assert sorted(file.name for file in folder.iterdir()) == [*changes, PACK]
    assert all((folder / name).read_bytes() == changed for name, changed in changes.items())
    (folder / PACK).unlink()
    assert writing.pack_folder(folder, [folder / name for name in changes], ()) == 0
    assert not (folder / PACK).exists()


def test_files_of_another_program_are_neither_packed_nor_cause_a_new_file(packed):
    folder = packed.raw / "keypoints/dance"
    before = (folder / PACK).stat()
    for number in range(MANY):
        shutil.copy(packed.raw / "dance/2.mp4", packed.raw / f"dance/new{number}.mp4")
        (folder / f"new{number}.mp4.json").write_text('{"images": [], "annotations": []}')
    assert packed.detect(code=1).count("which is left as it is") == MANY
    assert ((folder / PACK).stat().st_mtime_ns, (folder / PACK).stat().st_ino) == (
        before.st_mtime_ns,
        before.st_ino,
    )


def test_parts_leave_files_that_the_last_command_packs(packed, made, tmp_path, ran):
    parts = Clips(made, tmp_path / "parts", ran)
    for k in (2, 1):
        assert "now in" not in parts.detect("--part", f"{k}/2")
    assert parts.detect() == f"6 files now in {PACK} of their folders\n{packed.detect()}"
    for name in packed.files:
        assert (parts.raw / "keypoints" / name).read_bytes() == (
            packed.raw / "keypoints" / name
        ).read_bytes()


def test_a_single_clip_is_predicted_with_its_keypoints_from_the_file(packed, tmp_path):
    # where a clip by itself has them
    (packed.raw / "keypoints/dance").rename(packed.raw / "dance/keypoints")
    for _ in range(2):
        folder = clips_folder(packed.raw / "dance/2.mp4", tmp_path / "cache", tmp_path)
        with zipfile.ZipFile(packed.raw / "dance/keypoints" / PACK) as pack:
            assert (folder / "keypoints/2.mp4.json").read_bytes() == pack.read("2.mp4.json")
