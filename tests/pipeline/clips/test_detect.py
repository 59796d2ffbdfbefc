"""Clips -> files of keypoints, with a detector that costs nothing: people are where a picture is
bright.
"""

import errno
import json
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from pipeline import datasets
from pipeline.accounting import Accounting, VideoAccount
from pipeline.clips.files import MADE_BY, ClipFiles, read_info
from pipeline.clips.labels.detections import read_results
from pipeline.clips.listing import list_clips
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import MARKER
from pipeline.files.raw import files as raw_files
from pipeline.processes.settings import DetectionResources
from pipeline.steps.conversion import reading
from pipeline.steps.detection.plan import plan_detection
from pipeline.steps.detection.run import detect_planned
from tests.pipeline.clips.bright import Bright, Killed, detect_clips, write_clip
from tests.pipeline.datasets.by_hand import write_coco
from tests.pipeline.files.made_clips import zero
from tests.raising import cache_refuses, config_refuses, raw_refuses
from tests.trees import contents


@pytest.fixture
def raw(tmp_path):
    """A folder of clips, for keypoints in `out`."""
    return tmp_path / "raw"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def places(found):
    """x of the first joint in each frame."""
    return [float(persons[0, 0, 0]) for persons in found.keypoints]


def test_every_frame_of_every_clip_is_looked_at_once(raw, out):
    for name, n in {"a.mp4": 20, "b/C.MOV": 17, "b/c/d.avi": 3}.items():
        write_clip(raw / name, n)
    (raw / "notes.txt").write_text("no clip")
    (raw / ".hidden.mp4").write_bytes(b"")
    assert list_clips(raw) == ["a.mp4", "b/C.MOV", "b/c/d.avi"]
    report = detect_clips(raw, out, Bright())
    assert (report.detected, report.frames, report.persons, report.problems) == (3, 40, 40, {})
    assert len(Bright.calls) == 40
    assert list(contents(out)) == ["a.mp4.json", "b/C.MOV.json", "b/c/d.avi.json"]
    found = read_results(out / "b/C.MOV.json")
    assert found.frame_index.tolist() == list(found.frames) == list(range(17))
    assert places(found) == pytest.approx(np.arange(20, 37), abs=1)
    assert {round(float(persons[0, 0, 2]), 3) for persons in found.keypoints} == {0.9}
    # as COCO defines it, for other tools
    content = json.loads((out / "b/c/d.avi.json").read_text())
    assert content["categories"][0]["keypoints"][:3] == ["nose", "left_eye", "right_eye"]
    for rows in (content["images"], content["annotations"]):
        assert [row["id"] for row in rows] == [1, 2, 3]
    first = content["annotations"][0]
    known = {"image_id": 1, "category_id": 1, "num_keypoints": 17}
    assert {key: first[key] for key in known} == known
    assert (len(first["keypoints"]), first["keypoints"][2::3]) == (51, [2] * 17)
    assert [*first["bbox"][2:], first["area"]] == pytest.approx([10, 20, 200], abs=1)


def test_what_is_done_is_not_computed_again_unless_file_pixels_or_settings_change(raw, out):
    for name in ("a.mp4", "b.mp4"):
        write_clip(raw / name)
    detect_clips(raw, out, Bright())
    before = contents(out)
    again = detect_clips(raw, out, Bright())
    assert (again.detected, again.up_to_date, len(Bright.calls), contents(out)) == (
        0,
        2,
        40,
        before,
    )
    whole = before["a.mp4.json"]
    # cut off
    for size in (len(whole) - 1, whole.rindex(b"]}"), len(whole) // 2, whole.index(b"\n") + 1):
        (out / "a.mp4.json").write_bytes(whole[:size])
        assert (detect_clips(raw, out, Bright()).detected, contents(out)) == (1, before)
    write_clip(raw / "b.mp4", first=30)
    assert detect_clips(raw, out, Bright()).up_to_date == 1
    assert [name for name, data in contents(out).items() if data != before[name]] == ["b.mp4.json"]
    assert detect_clips(raw, out, Bright(shift=2.0)).detected == 2

    class Newer(Bright):
        version = 2

    assert detect_clips(raw, out, Newer()).detected == 2
    info = json.loads((out / "a.mp4.json").read_text())["info"]
    assert (info["detector"], info["version"]) == ("bright", 2)


@dataclass(frozen=True)
class Replacing(Bright):
    """When it is called first, the clip is moved away, and another file takes its place."""

    clip: ClassVar[Path]
    new: ClassVar[Path | None]

    def people(self, image):
        if not self.calls:
            self.clip.rename(self.clip.with_suffix(".before"))
            if self.new is not None:
                self.new.rename(self.clip)
        return super().people(image)


@pytest.mark.parametrize("new", [None, "new.mp4"])
def test_a_clip_that_is_replaced_while_people_are_found_in_it_is_named_and_done_by_the_next_run(
    new, raw, out, tmp_path
):
    for name in ("a.mp4", "b.mp4"):
        write_clip(raw / name)
    write_clip(tmp_path / "new.mp4", first=40)
    Replacing.clip = raw / "b.mp4"
    Replacing.new = tmp_path / new if new else None
    report = detect_clips(raw, out, Replacing(), batch_size=2)
    assert report.detected == 1 and report.problems.keys() == {"b.mp4"}
    if new is not None:  # a missing one may be named by a decoder that still needs it
        expected = "b.mp4: expected the clip for which detection began, until its last frame, "
        assert f"{expected}found another file" in report.problems["b.mp4"]
    assert not (out / "b.mp4.json").exists()

    again = detect_clips(raw, out, Replacing())
    assert (again.detected, again.up_to_date, again.problems) == (int(new is not None), 1, {})
    if new is not None:
        found = read_results(out / "b.mp4.json")
        assert places(found) == pytest.approx(np.arange(40, 60), abs=1)


def test_people_of_a_clip_that_a_worker_sees_otherwise_than_the_plan_are_not_written(raw, out):
    for name in ("a.mp4", "b.mp4"):
        write_clip(raw / name)
    plan = plan_detection(raw, out, Bright())
    write_clip(raw / "a.mp4", first=30)
    report = detect_planned(plan, DetectionResources())
    assert (report.detected, list(report.problems)) == (1, ["a.mp4"])
    assert f"on {platform.node()}" in report.problems["a.mp4"]
    assert not (out / "a.mp4.json").exists()


def test_time_to_plan_grows_with_the_number_of_renamed_clips_not_with_its_square(
    raw, out, monkeypatch
):
    n_clips = 40
    raw.mkdir()
    out.mkdir()
    for i in range(n_clips):
        (raw / f"{i}.mp4").write_bytes(b"%d" % i)
    monkeypatch.setattr("pipeline.steps.detection.plan.Video.require_known_kind", lambda _: None)
    monkeypatch.setattr("pipeline.steps.detection.plan.Video.require_whole", lambda _: None)
    plan = plan_detection(raw, out, Bright())
    for target in plan.missing:
        info = {"description": MADE_BY, "clip": target.clip, "fingerprint": target.fingerprint}
        target.file.write_text(f"{json.dumps({'info': info})[:-1]},\n}}]}}\n")
        (raw / target.clip).rename(raw / f"new {target.clip}")
    n_compared = 0

    def count_comparison(self, other):
        nonlocal n_compared
        n_compared += 1
        return (self.out, self.clip) == (other.out, other.clip)

    monkeypatch.setattr(ClipFiles, "__eq__", count_comparison)
    plan = plan_detection(raw, out, Bright())
    assert (len(plan.renamed), plan.missing) == (n_clips, [])
    assert n_compared <= n_clips


@pytest.mark.parametrize("most", [3, 17, 33])
def test_killed_anywhere_and_run_again_it_ends_with_the_same_files(
    most, raw, tmp_path, monkeypatch
):
    n_frames = {"long.mp4": 30, "z.mp4": 7}
    write_clip(raw / "long.mp4", 30, cut=21)
    write_clip(raw / "z.mp4", 7)

    def run(out):
        return detect_clips(raw, tmp_path / out, Bright(), batch_size=2)

    run("whole")
    monkeypatch.setattr(Bright, "calls", [])
    with monkeypatch.context() as patch:
        patch.setattr(Bright, "most", most)
        with pytest.raises(Killed):
            run("killed")
    n_before_kill = len(Bright.calls)
    done = contents(tmp_path / "killed")
    n_again = sum(n for clip, n in n_frames.items() if f"{clip}.json" not in done)
    run("killed")
    assert len(Bright.calls) - n_before_kill == n_again, "a finished clip is not computed again"
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    info = json.loads((tmp_path / "killed/long.mp4.json").read_text())["info"]
    assert (info["frames"], info["cuts"], info["persons"], info["width"]) == (30, [21], 30, 96)


def test_people_of_a_clip_that_is_done_survive_a_kill_in_the_next_one(raw, out, monkeypatch):
    for number, name in enumerate("abc"):
        write_clip(raw / f"{name}.mp4", 9, width=96 + 32 * number)
    monkeypatch.setattr(Bright, "most", 22)
    with pytest.raises(Killed):
        detect_clips(raw, out, Bright(), batch_size=4, workers=1)
    assert len([*out.glob("*.json")]) == 2


def test_a_corrupt_clip_costs_itself(raw, out):
    write_clip(raw / "good.mp4")
    (raw / "bad.mp4").write_bytes(b"<html>not found</html>" * 50)
    (raw / "photo.mp4").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(100))
    (raw / "no frames.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    cut_off = raw / "cut off.avi"
    write_clip(cut_off)
    cut_off.write_bytes(cut_off.read_bytes()[: cut_off.stat().st_size // 2])
    report = detect_clips(raw, out, Bright())
    assert sorted(report.problems) == ["bad.mp4", "cut off.avi", "no frames.mp4", "photo.mp4"]
    assert "bad.mp4" in report.problems["bad.mp4"]
    assert "it is a JPEG image" in report.problems["photo.mp4"]
    assert re.search(
        r"20 frames .* found \d+ that decode: it is cut off", report.problems["cut off.avi"]
    )
    assert report.detected == 1
    assert [name for name in contents(out) if not name.startswith(".detect/")] == ["good.mp4.json"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.avi", "a.webm"])
def test_a_clip_is_cut_off_where_its_container_says_so(name, tmp_path):
    write_clip(tmp_path / name)
    video = Video(tmp_path, name)
    video.require_whole()
    whole = video.place.read_bytes()
    video.place.write_bytes(whole[: len(whole) // 2])
    with raw_refuses("cut off") as error:
        video.require_decodable()
        video.require_whole()
    assert error.value.reason in ("frame_count_mismatch", "video_unreadable")


def test_a_long_name_is_written_and_one_that_is_too_long_costs_its_clip_alone(raw, out):
    # the file of keypoints has ".json" behind
    fits, too_long = (f"{'x' * (n - 4)}.mp4" for n in (250, 251))
    for name in ("a.mp4", fits, too_long):
        write_clip(raw / name, 2)
    report = detect_clips(raw, out, Bright())
    assert report.detected == 2 and list(report.problems) == [too_long]
    assert "too long" in report.problems[too_long]
    assert list(contents(out)) == ["a.mp4.json", f"{fits}.json"]


def test_a_name_that_is_not_utf8_costs_its_clip_alone(raw, out, types, command_line):
    write_clip(raw / "a.mp4", 3)
    shutil.copy(raw / "a.mp4", os.fsdecode(os.fsencode(raw) + b"/bad\xff.mp4"))
    (raw / MARKER).write_text("{}")
    (raw / "photo.jpg").write_bytes(b"")
    skipped = "skipped 1 file of other kinds: photo.jpg"
    types("detect RAW --out TMP/out", "bad\\udcff.mp4", "UTF-8", skipped, code=1)
    assert list(contents(out)) == ["a.mp4.json"]
    content = json.loads(command_line("detect RAW --out TMP/again --json", code=1).out)
    assert (content["done"], content["frames"], content["stand_in"]) == (1, 3, True)
    assert list(content["problems"]) == ["bad\\udcff.mp4"]
    assert content["bottleneck"] in ("decode", "model", "none")


def test_one_clip_is_detected_as_in_its_folder(raw, out, types):
    for name in ("a.mp4", "b.mp4"):
        write_clip(raw / name, 3)
    (raw / MARKER).write_text("{}")
    types("detect --out TMP/out RAW/a.mp4")
    assert list(contents(out)) == ["a.mp4.json"]
    types("detect --out TMP/out RAW", "1 clip up to date")
    types(f"detect --out TMP/out RAW/{MARKER}", "expected a clip or a folder of clips", code=2)


def test_a_part_of_the_clips_says_which_one_has_ended(raw, out, types):
    for name in ("a.mp4", "b.mp4"):
        write_clip(raw / name, 3)
    (raw / MARKER).write_text("{}")
    types("detect --out TMP/out RAW --part 2/2", "share 2/2 of the clips has ended")
    assert list(contents(out)) == ["b.mp4.json"]


@pytest.mark.parametrize("clips", ["RAW", "RAW/a.mp4"])
def test_the_folder_of_the_clips_is_no_place_for_keypoints(clips, raw, types):
    write_clip(raw / "a.mp4", 3)
    (raw / MARKER).write_text("{}")
    said = f"folder of the clips. Name {raw / 'keypoints'}, where"
    types(f"detect {clips} --out RAW", said, code=2)
    assert {file.name for file in raw.iterdir()} == {"a.mp4", MARKER}


def test_keypoints_of_a_renamed_clip_are_renamed_and_of_a_removed_one_stay(raw, tmp_path, types):
    for k, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_clip(raw / name, 5, first=20 + k)
    (raw / MARKER).write_text("{}")
    detect = "detect RAW --out RAW/keypoints"
    types(detect)
    (raw / "new").mkdir()
    (raw / "a.mp4").rename(raw / 'new/"ä".mp4')
    (raw / "b.mp4").unlink()
    types(detect, 'renamed a.mp4 -> new/"ä".mp4', "1 clip up to date")
    types("detect RAW --out TMP/again")
    again = contents(tmp_path / "again")
    kept = contents(raw / "keypoints")
    assert {name: kept[name] for name in again} == again
    assert kept.keys() - again.keys() == {"b.mp4.json"}


def test_a_cut_keypoint_file_is_not_renamed_like_its_clip(raw, out):
    write_clip(raw / "a.mp4", 5)
    detect_clips(raw, out, Bright())
    whole = (out / "a.mp4.json").read_bytes()
    (out / "a.mp4.json").write_bytes(whole[:-40])
    (raw / "a.mp4").rename(raw / "b.mp4")
    report = detect_clips(raw, out, Bright())
    assert report.renamed == {}
    assert (out / "b.mp4.json").read_bytes() == whole.replace(b"a.mp4", b"b.mp4")


def test_files_of_others_are_left_alone_and_named(raw, tmp_path):
    write_clip(raw / "a.mp4", 3)
    (tmp_path / "a.mp4.json").write_text('{"images": [], "annotations": []}')
    report = detect_clips(raw, tmp_path, Bright())
    assert "a.mp4.json" in report.problems["a.mp4"]
    assert (tmp_path / "a.mp4.json").read_text() == '{"images": [], "annotations": []}'


def test_a_second_run_into_the_same_folder_is_refused_by_the_firsts_number(raw, out):
    write_clip(raw / "a.mp4", 3)

    class During(Bright):
        def people(self, image):
            with cache_refuses(rf"{out}(?s:.*)process {os.getpid()} "):
                detect_clips(raw, out, Bright())
            return super().people(image)

    assert detect_clips(raw, out, During()).detected == 1


def test_a_folder_without_clips_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with config_refuses(str(folder)):
            detect_clips(folder, tmp_path / "out", Bright())


def test_frames_after_a_damaged_one_keep_their_numbers_and_the_damage_is_named(raw, out):
    for name in ("whole.mp4", "broken.mp4"):
        write_clip(raw / name)
    whole = (raw / "broken.mp4").read_bytes()
    (raw / "broken.mp4").write_bytes(zero(whole, 5))
    report = detect_clips(raw, out, Bright())
    assert report.detected == 2
    assert "cannot be decoded, such as 5" in report.damaged["broken.mp4"]
    assert "whole.mp4" not in report.damaged
    found = read_results(out / "broken.mp4.json")
    lost = json.loads((out / "broken.mp4.json").read_text())["info"]["record"]["lost"]
    assert lost[0] == 5
    assert found.frame_index.tolist() == [frame for frame in range(20) if frame not in lost]
    intact = found.frame_index >= 12  # behind the next key frame
    expected = 20 + found.frame_index
    assert np.array(places(found))[intact] == pytest.approx(expected[intact], abs=1)
    assert detect_clips(raw, out, Bright()).damaged == {}  # the second run detects nothing
    shutil.copytree(out, raw / "keypoints")
    report = Accounting()
    list(datasets.get("videos", min_frames=1).tracks(raw, "train", report=report))
    about = {
        account.name: [note for note in account.notes if "frames" in note] for account in report
    }
    (note,) = about.pop("broken.mp4")
    assert "frames cannot be decoded, such as 5" in note
    assert about == {"whole.mp4": []}


def test_a_clip_that_cannot_be_hashed_now_is_read_later_and_is_not_called_another_one(
    tmp_path, monkeypatch
):
    raw = tmp_path / "raw"
    clip = raw / "a.mp4"
    write_clip(clip, 8)
    detect_clips(raw, raw / "keypoints", Bright())
    dataset = datasets.get("videos", min_frames=6)
    (video,) = dataset.videos(raw, "train")
    opened = raw_files.open_unbuffered

    def failing(file):
        if file == clip:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(clip))
        return opened(file)

    with monkeypatch.context() as patch:
        patch.setattr(raw_files, "open_unbuffered", failing)
        with raw_refuses("Input/output error"):
            dataset.read(raw, "train", video, VideoAccount(video.name), None)
        read = reading.VideoReader(dataset, "train", raw, None).read(video)
    assert read.account.set_aside == "not_readable_now"
    assert f"{clip}: input/output error of its disk. Check the disk" in read.account.message


def test_the_first_line_of_two_hours_of_uneven_times_is_read(tmp_path):
    times = np.arange(216_000).astype(float).tolist()
    file = tmp_path / "a.mp4.json"
    write_coco(file, {"images": []}, description=MADE_BY, record={"times": times})
    assert read_info(file)["record"] == {"times": times}


def test_progress_tells_the_frames_of_a_clip_that_are_done_and_all_that_its_header_states(raw, out):
    write_clip(raw / "a.mp4", 40)
    said = []
    work = plan_detection(raw, out, Bright())
    resources = DetectionResources(batch_size=16)
    detect_planned(work, resources, progress=lambda *at: said.append(at))
    texts = [message for _, _, message in said]
    of_clip = [text for text in texts if text.startswith(("frame 16 ", "frame 32 ", "frame 40 "))]
    assert [text.partition(",")[0] for text in of_clip] == [
        f"frame {n} of 40 of a.mp4" for n in (16, 32, 40)
    ]
