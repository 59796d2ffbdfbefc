"""Raw dataset -> committed rows: nothing lost, nothing read twice, the same bytes however it was run."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

import cache
from pipeline import datasets
from pipeline.body import Body
from pipeline.conversion import convert
from pipeline.datasets.penn_action import PennAction
from pipeline.errors import MissingAssets, PipelineError, RawDataError, StandInMixed
from pipeline.raw import changes, digests
from pipeline.raw.stand_in import MARKER, read_marker

SPLITS = [
    ("penn_action", "train"),
    ("kinetics", "train"),
    ("3dpw", "train"),
    ("3dpw", "validation"),
    ("amass", "train"),
]
ALL = ["0001", "0002", "0003", "0004", "0005", "0006"]  # the odd ones are of train


@pytest.fixture
def penn(embedded: Any, tmp_path: Path) -> Path:
    """A copy of the embedded Penn Action: videos 0001 to 0005 in train, 0004 to 0006 in test."""
    return embedded.copy("penn_action", tmp_path / "penn_action")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For the reader outside a conversion: inside, sums over vertices are always made in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan(raw: Path, root: Path, dataset: Any = None) -> convert.ConversionPlan:
    return convert.plan_conversion(dataset or datasets.get("penn_action"), "train", raw=raw, root=root)


def edit_label(raw: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    file = raw / f"labels/{name}.mat"
    label = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    change(label)
    savemat(file, label)


def move_a_joint(label: dict[str, Any]) -> None:
    label["x"] = label["x"] + 1


def forbid_reading_content(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> str:
        raise AssertionError("read the content of an input")

    monkeypatch.setattr(changes, "video_digest", refuse)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_the_cache_has_the_tracks_that_the_reader_gives(
    name: str, split: str, embedded: Any, into: Any, tmp_path: Path, one_thread: None
) -> None:
    raw, folder = embedded.raw(name), embedded.body if name == "3dpw" else None
    into.convert(tmp_path, raw, name, split, body=folder)
    committed = cache.open(tmp_path)[f"{name}/{split}"]
    body = Body.load(folder) if folder else None
    expected = list(datasets.get(name).tracks(raw, split, body=body))
    assert len(expected) >= 1
    assert [track.name for track in committed.tracks] == [track.name for track in expected]
    for stored, track in zip(committed.tracks, expected, strict=True):
        told = (stored.video, stored.step, stored.crop_scale, stored.gender)
        assert told == (track.video, track.step, track.crop_scale, track.gender)
        assert stored.fps == pytest.approx(track.fps, nan_ok=True)
        np.testing.assert_array_equal(stored.intrinsics, track.intrinsics)
        filled = {column for column in cache.COLUMNS if getattr(track, column) is not None}
        assert filled == set(committed.columns)
        for column in committed.columns:
            rows = committed.rows(column, stored.start, stored.stop)
            np.testing.assert_array_equal(rows, getattr(track, column), err_msg=column)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_every_frame_found_is_kept_or_counted_under_a_reason(
    name: str, split: str, embedded: Any, into: Any, tmp_path: Path
) -> None:
    body = embedded.body if name == "3dpw" else None
    done = into.convert(tmp_path, embedded.raw(name), name, split, body=body)
    committed = cache.open(tmp_path)[f"{name}/{split}"]
    frames, videos = (committed.manifest["accounting"][key] for key in ("frames", "videos"))
    assert done.totals == committed.manifest["accounting"]
    assert frames["found"] == frames["kept"] + sum(frames["dropped"].values()) > 0
    assert frames["kept"] == committed.manifest["rows"]
    assert videos["found"] == videos["kept"] + videos["without_tracks"] > 0
    for video in committed.videos:
        assert video.account["found"] == video.account["kept"] + sum(video.account["dropped"].values())


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_one_worker_and_two_give_the_same_bytes(
    name: str, split: str, embedded: Any, into: Any, tmp_path: Path
) -> None:
    for n_workers in (1, 2):
        body = embedded.body if name == "3dpw" else None
        into.convert(tmp_path / str(n_workers), embedded.raw(name), name, split, body=body, workers=n_workers)
    one, two = into.tree(tmp_path / "1"), into.tree(tmp_path / "2")
    assert f"{name}/{split}/manifest.json" in one
    assert f"{name}/{split}/frame_index/c/0" in one
    assert one == two


def test_a_run_with_nothing_to_do_reads_no_label_and_changes_no_file(
    penn: Path, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Any
) -> None:
    root = tmp_path / "cache"
    first = plan(penn, root)
    assert (first.why, first.kept, first.up_to_date) == ("not converted before", 0, False)
    convert.convert(first)
    before = into.everything(root)
    forbid_reading_content(monkeypatch)
    reads.clear()
    again = plan(penn, root)
    assert (again.up_to_date, again.kept, again.append, again.drop) == (True, 6, (), ())
    assert reads.names == []
    assert into.everything(root) == before


def test_a_touched_file_is_no_change(penn: Path, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "cache"
    into.convert(root, penn)
    before = into.everything(root)
    for path in (penn / "labels/0003.mat", penn / "frames/0003"):
        os.utime(path, ns=(1, 1))
    with monkeypatch.context() as patch, pytest.raises(AssertionError, match="read the content"):
        forbid_reading_content(patch)
        plan(penn, root)
    assert plan(penn, root).up_to_date
    assert into.everything(root) == before


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b"{", b'{"names": ["0001", "0003"], "stamps": [1, []], "digests": [2, {}]}', b"\xff"]
)
def test_without_usable_stamps_the_content_decides(
    content: bytes | None, penn: Path, into: Any, tmp_path: Path
) -> None:
    root = tmp_path / "cache"
    into.convert(root, penn)
    stamps = root / "penn_action/train" / changes.STAMPS
    stamps.unlink() if content is None else stamps.write_bytes(content)
    assert plan(penn, root).up_to_date
    edit_label(penn, "0003", move_a_joint)
    assert plan(penn, root).why == "1 changed video"


def test_stamps_of_a_commit_that_never_happened_hide_no_change(penn: Path, into: Any, tmp_path: Path) -> None:
    root, other = tmp_path / "cache", tmp_path / "other"
    into.convert(root, penn)
    edit_label(penn, "0003", move_a_joint)
    into.convert(other, penn)  # killed between the stamps and the manifest, the run below leaves just this
    shutil.copy(other / "penn_action/train/stamps.json", root / "penn_action/train/stamps.json")
    assert [video.name for video in plan(penn, root).append] == ["0003"]


def test_only_an_added_video_is_read(penn: Path, into: Any, tmp_path: Path, reads: Any) -> None:
    root, label, frames = tmp_path / "cache", penn / "labels/0003.mat", penn / "frames/0003"
    later = [(path, tmp_path / path.name) for path in (label, frames)]
    for path, away in later:
        path.rename(away)
    into.convert(root, penn)
    expected = into.rows(root, "penn_action/train", "kp_2d")
    for path, away in later:
        away.rename(path)
    reads.clear()
    grown = plan(penn, root)
    assert (grown.why, grown.kept, grown.drop) == ("1 new video", 5, ())
    done = convert.convert(grown)
    assert reads.names == ["0003"]
    assert done.totals["videos"]["found"] == 3
    rows = into.rows(root, "penn_action/train", "kp_2d")
    assert rows.keys() == {"0001/0", "0003/0", "0005/0"}
    for track, before in expected.items():
        np.testing.assert_array_equal(rows[track], before)
    assert plan(penn, root).up_to_date
    assert cache.verify(root).ok


def test_only_a_changed_video_is_read_and_it_replaces_its_rows(
    penn: Path, into: Any, tmp_path: Path, reads: Any
) -> None:
    root = tmp_path / "cache"
    into.convert(root, penn)
    before = into.rows(root, "penn_action/train", "kp_2d")
    edit_label(penn, "0003", move_a_joint)
    reads.clear()
    changed = plan(penn, root)
    assert (changed.why, changed.kept, changed.drop) == ("1 changed video", 5, ("0003",))
    convert.convert(changed)
    assert reads.names == ["0003"]
    after = into.rows(root, "penn_action/train", "kp_2d")
    labelled = before["0003/0"][..., 2] > 0
    moved = after["0003/0"][..., 0] - before["0003/0"][..., 0]
    np.testing.assert_allclose(moved[labelled], 1, atol=1e-4)
    np.testing.assert_array_equal(after["0001/0"], before["0001/0"])
    assert cache.open(root)["penn_action/train"].manifest["rows"] == 24
    assert plan(penn, root).up_to_date


def test_a_picture_that_came_or_went_is_a_change(penn: Path, into: Any, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    into.convert(root, penn)
    (penn / "frames/0005/000008.jpg").unlink()
    done = into.convert(root, penn)
    assert done.plan.why == "1 changed video"
    assert done.totals["frames"] == {"found": 24, "kept": 23, "dropped": {"no_picture": 1}}


def test_keypoints_rewritten_in_place_are_a_change_and_touched_ones_are_none(
    embedded: Any, into: Any, tmp_path: Path
) -> None:
    root, kinetics = tmp_path / "cache", datasets.get("kinetics")
    raw = embedded.copy("kinetics", tmp_path / "kinetics")
    into.convert(root, raw, "kinetics")
    assert into.rows(root, "kinetics/train", "kp_2d").keys() != set()
    files = sorted((raw / "keypoints/train").rglob("*_keypoints.json"))
    for file in files:
        os.utime(file, ns=(2**62, 2**62))
    assert plan(raw, root, kinetics).up_to_date
    for file in files:
        content = file.read_text()
        nobody = '{"people": []}'
        file.write_text(nobody + " " * (len(content) - len(nobody)))
        assert file.stat().st_size == len(content)
    assert plan(raw, root, kinetics).why == "1 changed video"
    into.convert(root, raw, "kinetics")
    assert into.rows(root, "kinetics/train", "kp_2d") == {}


def test_a_removed_video_loses_its_rows_and_nothing_is_read(penn: Path, into: Any, tmp_path: Path, reads: Any) -> None:
    root = tmp_path / "cache"
    into.convert(root, penn)
    (penn / "labels/0003.mat").unlink()
    shutil.rmtree(penn / "frames/0003")
    reads.clear()
    done = into.convert(root, penn)
    assert (done.plan.why, reads.names) == ("1 removed video", [])
    assert into.rows(root, "penn_action/train", "bbox").keys() == {"0001/0", "0005/0"}
    assert done.totals["videos"]["found"] == 2
    assert plan(penn, root).up_to_date


def test_what_is_new_changed_and_removed_is_told_together(penn: Path, into: Any, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    (penn / "labels/0001.mat").rename(tmp_path / "0001.mat")
    (penn / "frames/0001").rename(tmp_path / "0001")
    into.convert(root, penn)
    shutil.copy(tmp_path / "0001.mat", penn / "labels/0001.mat")
    shutil.copytree(tmp_path / "0001", penn / "frames/0001")
    for name in ("0003", "0005"):
        edit_label(penn, name, move_a_joint)
    (penn / "labels/0006.mat").unlink()
    shutil.rmtree(penn / "frames/0006")
    assert plan(penn, root).why == "1 new video, 2 changed videos, 1 removed video"


def test_a_raised_version_reads_every_video_again(
    penn: Path, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Any
) -> None:
    root = tmp_path / "cache"
    into.convert(root, penn)
    rows = into.rows(root, "penn_action/train", "kp_2d")
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    reads.clear()
    raised = plan(penn, root)
    assert raised.why == f"version was {PennAction.version - 1}, is {PennAction.version}"
    convert.convert(raised)
    assert reads.names == ALL
    np.testing.assert_equal(into.rows(root, "penn_action/train", "kp_2d"), rows)
    assert plan(penn, root).up_to_date


def test_changed_options_are_named(embedded: Any, into: Any, tmp_path: Path) -> None:
    into.convert(tmp_path, embedded.raw("amass"), "amass")
    decimated = datasets.get("amass", resampling="decimate")
    why = plan(embedded.raw("amass"), tmp_path, decimated).why
    assert why == "parameters.resampling was slerp, is decimate"


@dataclass(frozen=True)
class Chosen(PennAction):
    actions: tuple[str, ...] = ("squat", "bowl")
    name: ClassVar[str] = "chosen"


def test_an_option_of_many_values_does_not_look_changed_for_having_been_json(penn: Path, tmp_path: Path) -> None:
    convert.convert(plan(penn, tmp_path / "cache", Chosen()))
    assert plan(penn, tmp_path / "cache", Chosen()).up_to_date
    assert not plan(penn, tmp_path / "cache", Chosen(actions=("squat",))).up_to_date


def test_an_unknown_split_and_a_missing_raw_folder_are_told(penn: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="penn_action has no split 'val'; it has train, test"):
        convert.plan_conversion(datasets.get("penn_action"), "val", raw=penn, root=tmp_path)
    for name in ("penn_action", "kinetics", "3dpw", "amass"):
        with pytest.raises(RawDataError, match=r"nowhere.*expected .*found (none|no ).*\. \w+"):
            convert.plan_conversion(datasets.get(name), "train", raw=tmp_path / "nowhere", root=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def wrong_shape(raw: Path) -> None:
    edit_label(raw, "0003", lambda label: label.update(x=label["x"][:, :12]))


def no_label_file(raw: Path) -> None:
    (raw / "labels/0003.mat").write_bytes(b"no MATLAB file")


def a_folder_for_a_label(raw: Path) -> None:
    (raw / "labels/0003.mat").unlink()
    (raw / "labels/0003.mat").mkdir()


def a_file_for_pictures(raw: Path) -> None:
    shutil.rmtree(raw / "frames/0003")
    (raw / "frames/0003").write_bytes(b"")


def no_picture_readable(raw: Path) -> None:
    for picture in (raw / "frames/0003").iterdir():
        picture.write_bytes(picture.read_bytes()[:10])


@pytest.mark.parametrize(
    ("spoil", "reason", "message"),
    [
        (wrong_shape, "bad_label_file", r"0003\.mat: 'x': expected .*13.*, found \(8, 12\)"),
        (no_label_file, "bad_label_file", r"0003\.mat: "),
        (a_folder_for_a_label, "no_label", r"0003\.mat: "),
        (a_file_for_pictures, "no_picture", r"0003\.mat: 'pictures': expected 8 pictures"),
        (no_picture_readable, "no_picture", r"frames/0003/.*expected a readable picture, found the JPEG is cut short"),
    ],
)
def test_a_bad_video_is_set_aside_with_its_reason_and_the_rest_goes_through(
    spoil: Callable[[Path], None], reason: str, message: str, penn: Path, into: Any, tmp_path: Path
) -> None:
    root = tmp_path / "cache"
    spoil(penn)
    done = into.convert(root, penn)
    (account,) = done.set_aside
    assert (account.name, account.set_aside, account.kept) == ("0003", reason, 0)
    assert account.found == sum(account.dropped.values())
    assert re.search(message, account.message), account.message
    assert done.totals["videos"] == {"found": 3, "kept": 2, "set_aside": {reason: 1}, "without_tracks": 0}
    assert done.totals["frames"]["kept"] == 16
    assert into.rows(root, "penn_action/train", "bbox").keys() == {"0001/0", "0005/0"}
    assert plan(penn, root).up_to_date
    with pytest.raises(PipelineError, match="--strict: nothing was committed"):
        into.convert(tmp_path / "strict", penn, strict=True)
    assert not list((tmp_path / "strict").rglob("manifest.json"))
    assert not list((tmp_path / "strict").rglob(changes.STAMPS))


def test_strict_after_a_run_without_it_fails_for_what_was_set_aside_then(
    penn: Path, into: Any, tmp_path: Path, reads: Any
) -> None:
    root = tmp_path / "cache"
    whole = (penn / "labels/0003.mat").read_bytes()
    for name in ("0003", "0005"):
        (penn / f"labels/{name}.mat").write_bytes(b"broken")
    into.convert(root, penn)
    before = into.everything(root)
    reads.clear()
    with pytest.raises(PipelineError) as caught:
        into.convert(root, penn, strict=True)
    told = str(caught.value)
    assert told.startswith(f"penn_action/train: {penn / 'labels/0003.mat'}: ")
    assert "(--strict: an earlier conversion set this video aside, and 1 more)" in told
    assert told.endswith(f"-m pipeline retry penn_action/train --failed --cache {root}")
    assert (reads.names, into.everything(root)) == ([], before)
    (penn / "labels/0003.mat").write_bytes(whole)
    (penn / "labels/0005.mat").unlink()
    shutil.rmtree(penn / "frames/0005")
    into.convert(root, penn, strict=True)  # what changed and what is gone no longer counts
    assert into.rows(root, "penn_action/train", "bbox").keys() == {"0001/0", "0003/0"}


def test_strict_goes_on_with_what_is_harmless_though_it_was_set_aside(embedded: Any, into: Any, tmp_path: Path) -> None:
    raw = embedded.copy("kinetics", tmp_path / "kinetics")
    shutil.copy(next((raw / "train").rglob("*.mp4")), raw / "train/unseen.mp4")
    into.convert(tmp_path / "cache", raw, "kinetics")
    before = into.everything(tmp_path / "cache")
    assert not into.convert(tmp_path / "cache", raw, "kinetics", strict=True).set_aside
    assert into.tree(tmp_path / "cache").keys() <= before.keys()


def test_a_raw_folder_with_nothing_left_in_it_does_not_empty_the_split(penn: Path, into: Any, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    into.convert(root, penn)
    before = into.everything(root)
    for folder in ("labels", "frames"):
        shutil.rmtree(penn / folder)
        (penn / folder).mkdir()
    message = f"{penn}: expected videos of penn_action/train, found none, and the cache has 6 videos of it."
    with pytest.raises(PipelineError, match=re.escape(message)) as caught:
        plan(penn, root)
    assert f"If all of them are to go, remove {root / 'penn_action/train'}." in str(caught.value)
    assert into.everything(root) == before
    shutil.rmtree(root / "penn_action/train")
    assert plan(penn, root).append == ()


def test_a_repaired_video_comes_back(penn: Path, into: Any, tmp_path: Path) -> None:
    root, label = tmp_path / "cache", penn / "labels/0003.mat"
    whole = label.read_bytes()
    label.write_bytes(whole[:100])
    into.convert(root, penn)
    label.write_bytes(whole)
    done = into.convert(root, penn)
    assert (done.plan.why, done.totals["videos"]["set_aside"]) == ("1 changed video", {})
    assert len(into.rows(root, "penn_action/train", "bbox")) == 3


def test_a_video_that_does_not_decode_and_a_json_that_is_none_are_set_aside(
    embedded: Any, into: Any, tmp_path: Path
) -> None:
    raw = embedded.copy("kinetics", tmp_path / "kinetics")
    (whole,) = (video.name for video in datasets.get("kinetics").videos(raw, "train"))
    clip = whole.rpartition("/")[2]
    for name in ("cut_short", "no_json"):
        shutil.copy(raw / f"{whole}.mp4", raw / f"train/{name}.mp4")
        shutil.copytree(raw / f"keypoints/train/{clip}", raw / f"keypoints/train/{name}")
        for file in (raw / f"keypoints/train/{name}").iterdir():
            file.rename(file.with_name(file.name.replace(clip, name)))
    (raw / "train/cut_short.mp4").write_bytes((raw / f"{whole}.mp4").read_bytes()[:200])
    (raw / "keypoints/train/no_json/no_json_000000000003_keypoints.json").write_text("{'people': []}")
    done = into.convert(tmp_path / "cache", raw, "kinetics")
    told = {account.name: (account.set_aside, account.message) for account in done.set_aside}
    assert told.keys() == {"train/cut_short", "train/no_json"}
    assert told["train/cut_short"][0] == "video_unreadable"
    assert "cut_short.mp4" in told["train/cut_short"][1]
    assert told["train/no_json"][0] == "bad_label_file"
    assert "no_json_000000000003_keypoints.json" in told["train/no_json"][1]
    assert {track.video for track in cache.open(tmp_path / "cache")["kinetics/train"].tracks} == {whole}


def test_a_clip_without_keypoints_is_counted_and_strict_accepts_it(embedded: Any, into: Any, tmp_path: Path) -> None:
    raw = embedded.copy("kinetics", tmp_path / "kinetics")
    clip = next((raw / "train").rglob("*.mp4"))
    shutil.copy(clip, raw / "train/unseen.mp4")
    done = into.convert(tmp_path / "cache", raw, "kinetics", strict=True)
    assert done.totals["videos"] == {"found": 2, "kept": 1, "set_aside": {"no_keypoints": 1}, "without_tracks": 0}
    assert done.set_aside == ()
    committed = cache.open(tmp_path / "cache")["kinetics/train"]
    (unseen,) = (video for video in committed.videos if video.name == "train/unseen")
    assert (unseen.account["found"], unseen.account["set_aside"]) == (0, "no_keypoints")
    (raw / "train/unseen.mp4").unlink()
    clip.unlink()
    with pytest.raises(PipelineError, match=r"keypoints alone.*--strict: nothing was committed"):
        into.convert(tmp_path / "cache", raw, "kinetics", strict=True)


def test_a_reader_that_fails_unforeseen_costs_only_its_video_and_says_where(
    penn: Path, into: Any, tmp_path: Path, reads: Any
) -> None:
    reads.fail("0003")
    done = into.convert(tmp_path / "cache", penn)
    (account,) = done.set_aside
    assert account.set_aside == "unexpected_error"
    assert account.message.startswith("0003: ZeroDivisionError: float division (at conftest.py:")
    assert done.totals["videos"]["kept"] == 2
    with pytest.raises(PipelineError, match="0003: ZeroDivisionError"):
        into.convert(tmp_path / "strict", penn, strict=True)


def test_what_failed_unforeseen_is_not_remembered_as_seen_since_it_may_have_been_the_disk(
    penn: Path, into: Any, tmp_path: Path, reads: Any
) -> None:
    root = tmp_path / "cache"
    reads.fail("0003", OSError(5, "Input/output error"))
    into.convert(root, penn)
    assert changes.read_stamps(root, "penn_action/train").keys() == {*ALL} - {"0003"}
    assert plan(penn, root).up_to_date  # by its content


def test_a_file_whose_name_is_no_utf8_is_set_aside_and_the_rest_goes_on(
    embedded: Any, into: Any, tmp_path: Path
) -> None:
    raw = Path(shutil.copytree(embedded.raw("kinetics"), tmp_path / "kinetics"))
    clip = next((raw / "train").rglob("*.mp4"))
    shutil.copy(clip, os.fsencode(clip.parent) + b"/caf\xe9.mp4")
    before = into.convert(tmp_path / "before", embedded.raw("kinetics"), "kinetics")
    done = into.convert(tmp_path / "cache", raw, "kinetics")
    (account,) = done.set_aside
    assert account.set_aside == "name_not_utf8"
    assert "caf\\udce9.mp4: 'name': expected UTF-8" in account.message
    assert done.totals["videos"]["kept"] == before.totals["videos"]["kept"] > 0
    assert plan(raw, tmp_path / "cache", datasets.get("kinetics")).up_to_date


def test_a_broken_link_among_the_pictures_hides_no_other_change(penn: Path) -> None:
    folder = penn / "frames/0003"
    (folder / "000099.jpg").symlink_to(tmp := folder / "nowhere")
    assert not tmp.exists()
    before = digests.folder_digest(folder)
    assert before != "missing"
    (folder / "000001.jpg").write_bytes(b"")
    assert digests.folder_digest(folder) != before


def test_strict_also_refuses_what_a_killed_run_had_set_aside(
    penn: Path, into: Any, tmp_path: Path, reads: Any, small_shards: None
) -> None:
    root = tmp_path / "cache"
    wrong_shape(penn)

    def give_up(done: int, total: int, message: str = "") -> None:
        if done == 5:  # 16 rows, a shard of its own: 0003 is in the journal by now
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        into.convert(root, penn, progress=give_up)
    reads.clear()
    with pytest.raises(PipelineError, match="0003"):
        into.convert(root, penn, strict=True)
    assert reads.names == []  # it was known before anything was read
    assert not (root / "penn_action/train/manifest.json").exists()


def test_missing_body_files_are_named_before_anything_is_read(embedded: Any, tmp_path: Path) -> None:
    make = lambda body: convert.plan_conversion(  # noqa: E731
        datasets.get("3dpw"), "train", raw=embedded.raw("3dpw"), root=tmp_path / "cache", body=body
    )
    with pytest.raises(MissingAssets, match=r"lacks SMPL_NEUTRAL.*synthesize"):
        make(tmp_path / "nowhere")
    half = Path(shutil.copytree(embedded.body, tmp_path / "half"))
    (half / "J_regressor_extra.npy").unlink()
    with pytest.raises(MissingAssets, match=r"lacks J_regressor_extra\.npy\."):
        make(half)


def test_stand_in_data_and_a_real_body_do_not_meet_nor_the_other_way_round(embedded: Any, tmp_path: Path) -> None:
    real_body = Path(shutil.copytree(embedded.body, tmp_path / "body"))
    (real_body / MARKER).unlink()
    real_raw = embedded.copy("3dpw", tmp_path / "3dpw")
    (real_raw / MARKER).unlink()
    for raw, body in ((embedded.raw("3dpw"), real_body), (real_raw, embedded.body)):
        with pytest.raises(StandInMixed, match="is a stand-in") as told:
            convert.plan_conversion(datasets.get("3dpw"), "train", raw=raw, root=tmp_path / "cache", body=body)
        assert str(raw) in str(told.value)
        assert str(body) in str(told.value)
        assert "--body" in str(told.value)


def test_a_stand_in_is_told_by_its_marker_and_the_manifest_keeps_it(penn: Path, into: Any, tmp_path: Path) -> None:
    assert read_marker(penn) == json.loads((penn / MARKER).read_text())
    assert into.convert(tmp_path / "a", penn).plan.reader["stand_in"] is True
    assert cache.open(tmp_path / "a")["penn_action/train"].manifest["stand_in"] is True
    (penn / MARKER).unlink()
    assert read_marker(penn) is None
    assert (
        plan(penn, tmp_path / "a").why == "what was there was made from embedded stand-in data, and this is real data"
    )
    into.convert(tmp_path / "b", penn)
    assert cache.open(tmp_path / "b")["penn_action/train"].manifest["stand_in"] is False


def test_a_body_that_cannot_be_loaded_is_no_fault_of_the_videos(embedded: Any, into: Any, tmp_path: Path) -> None:
    body = Path(shutil.copytree(embedded.body, tmp_path / "body"))
    (body / "SMPL_NEUTRAL.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(PipelineError, match=r"SMPL_NEUTRAL\.pkl"):
        into.convert(tmp_path / "cache", embedded.raw("3dpw"), "3dpw", body=body)
    assert not (tmp_path / "cache/3dpw/train/manifest.json").exists()


def test_another_body_converts_everything_anew(embedded: Any, into: Any, tmp_path: Path) -> None:
    into.convert(tmp_path / "cache", embedded.raw("3dpw"), "3dpw", body=embedded.body)
    other = Path(shutil.copytree(embedded.body, tmp_path / "body"))
    regressor = np.load(other / "J_regressor_extra.npy")
    np.save(other / "J_regressor_extra.npy", regressor[::-1])
    dataset, raw = datasets.get("3dpw"), embedded.raw("3dpw")
    changed = convert.plan_conversion(dataset, "train", raw=raw, root=tmp_path / "cache", body=other)
    assert changed.why.startswith("body was ")
    assert len(changed.append) == len(changed.drop) == 1


def test_a_body_of_a_gender_that_is_not_read_converts_nothing(embedded: Any, into: Any, tmp_path: Path) -> None:
    dataset, raw = datasets.get("3dpw"), embedded.raw("3dpw")
    into.convert(tmp_path / "cache", raw, "3dpw", body=embedded.body)
    body = Path(shutil.copytree(embedded.body, tmp_path / "body"))
    shutil.copy(body / "SMPL_NEUTRAL.pkl", body / "SMPL_MALE.pkl")
    assert convert.plan_conversion(dataset, "train", raw=raw, root=tmp_path / "cache", body=body).up_to_date


def test_a_body_that_comes_or_goes_later_is_refused_in_words_before_anything_is_read(
    embedded: Any, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, raw = datasets.get("3dpw"), embedded.raw("3dpw")
    folder = tmp_path / "cache/3dpw/train"
    for first, later, kinds, rows in (
        (None, embedded.body, ("without", "with"), "lack has_3d, kp_3d, trans"),
        (embedded.body, None, ("with", "without"), "have besides has_3d, kp_3d, trans"),
    ):
        into.convert(tmp_path / "cache", raw, "3dpw", body=first)
        before = into.everything(tmp_path / "cache")
        told = f"3dpw/train: was converted {kinds[0]} a body model, .*now be converted {kinds[1]} a .*{rows}.*Remove"
        with monkeypatch.context() as patch, pytest.raises(PipelineError, match=told):
            forbid_reading_content(patch)
            convert.plan_conversion(dataset, "train", raw=raw, root=tmp_path / "cache", body=later)
        assert into.everything(tmp_path / "cache") == before
        shutil.rmtree(folder)  # as the message says
        into.convert(tmp_path / "cache", raw, "3dpw", body=later)
        assert cache.verify(tmp_path / "cache").ok
        shutil.rmtree(folder)


def test_a_moved_raw_folder_is_the_same_raw_folder(penn: Path, into: Any, tmp_path: Path) -> None:
    into.convert(tmp_path / "cache", penn)
    moved = penn.rename(tmp_path / "elsewhere")
    assert plan(moved, tmp_path / "cache").up_to_date


def test_a_plan_is_what_a_killed_run_must_share(penn: Path, tmp_path: Path) -> None:
    made = plan(penn, tmp_path / "cache")
    assert made.identity == plan(penn, tmp_path / "cache").identity
    os.utime(penn / "labels/0003.mat", ns=(1, 1))
    assert plan(penn, tmp_path / "cache").identity != made.identity
    assert replace(made, append=made.append[1:]).identity != made.identity


def test_pictures_are_measured_and_their_source_is_kept(penn: Path, into: Any, tmp_path: Path) -> None:
    into.convert(tmp_path / "cache", penn)
    video = next(v for v in cache.open(tmp_path / "cache")["penn_action/train"].videos if v.name == "0001")
    height, width, _ = cv2.imread(str(penn / "frames/0001/000001.jpg")).shape
    assert (video.width, video.height) == (width, height)
    assert video.source == "pictures:frames/0001/{:06d}.jpg+1"
    assert cache.open(tmp_path / "cache")["penn_action/train"].provenance["raw"] == str(penn.resolve())
