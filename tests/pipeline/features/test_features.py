"""Rows -> a feature stream: the right pixels of the right rows, each computed once, and what cannot be is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

import cache
from pipeline import crops
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec

PENN = "penn_action/train"
FLOAT16 = 2**-11  # the relative error that the cache allows itself


def keep_a_little(penn: Any) -> None:
    """Three frames of one video: the real network takes its time."""
    penn.remove(*(label.stem for label in (penn.raw / "labels").iterdir() if label.stem != "0001"))
    for picture in sorted(penn.frames("0001").iterdir())[3:]:
        picture.unlink()


def cropped_by_hand(penn: Any) -> dict[str, np.ndarray]:
    """Track -> its crops, from the picture files, boxes and scales."""
    boxes, frames = penn.rows("bbox"), penn.rows("frame_index")
    return {
        track.name: np.stack(
            [
                crops.crop_person(cv2.imread(str(file))[..., ::-1].copy(), box, track.crop_scale)
                for box, frame in zip(boxes[track.name], frames[track.name], strict=True)
                for file in [penn.frames(track.video) / f"{frame + 1:06d}.jpg"]
            ]
        )
        for track in penn.split.tracks
    }


def means(pixels: np.ndarray) -> np.ndarray:
    """What the fake network says of crops (n, 224, 224, 3)."""
    flat = pixels.reshape(len(pixels), -1)[:, : 73 * 2048].astype(np.float32)
    return flat.reshape(len(pixels), 2048, 73).mean(axis=2)


def test_weights_from_a_file_are_not_standardised_and_stand_for_nothing(
    penn: Any, into: Any, tmp_path: Path, small_backbone: None, small_resnet: Any
) -> None:
    torch.save(small_resnet().state_dict(), tmp_path / "weights.pt")
    keep_a_little(penn)
    penn.without_marker()
    penn.convert()
    given = WeightsSpec("file", str(tmp_path / "weights.pt"))
    into.extract(penn.root, weights=given, device="cpu", batch_size=3)
    manifest = penn.split.stream_manifest("resnet50")
    assert (manifest["stand_in"], manifest["backbone"]["stand_in"]) == (False, False)
    assert "standardisation" not in manifest["backbone"]
    assert manifest["identity"]["weights"].keys() == {"kind", "file_sha256"}
    moved = (tmp_path / "weights.pt").rename(tmp_path / "elsewhere.pt")
    spec = into.spec(weights=WeightsSpec("file", str(moved)))
    assert plan_extraction(penn.root, PENN, spec).up_to_date  # the content counts, not the path


def corrected(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    label = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    change(label)
    savemat(file, label)


def move_three_boxes(label: dict[str, Any]) -> None:
    label["x"] = label["x"].astype(float)
    label["x"][2:5] -= 7


def move_inner_joints(label: dict[str, Any]) -> None:
    """Half way to the middle, but for the ones that span the box."""
    for values in (label["x"], label["y"]):
        order = np.argsort(values, axis=1)
        rest = np.take_along_axis(values, order, axis=1)
        rest[:, 3:-3] = (rest[:, 3:-3] + rest.mean(axis=1, keepdims=True)) / 2
        np.put_along_axis(values, order, np.sort(rest, axis=1), axis=1)


def test_after_a_conversion_only_rows_with_other_pixels_or_boxes_are_computed(
    small_shards: None, penn: Any, root: Path, into: Any, network: Any
) -> None:
    done = into.extract(root, batch_size=5)
    assert (done.computed, network.batches) == (24, [5] * 5)  # the last one is filled up
    assert penn.split.windows(8, 8, "resnet50").shape == (3, 2)
    before, keypoints = (penn.rows(column) for column in ("features/resnet50", "kp_2d"))
    corrected(penn.label("0001"), move_inner_joints)
    corrected(penn.label("0003"), move_three_boxes)
    penn.convert()
    assert (penn.rows("kp_2d")["0001/0"] != keypoints["0001/0"]).any()
    network.batches.clear()
    done = into.extract(root)
    assert (done.computed, done.carried, done.meter.frames, len(network.batches)) == (3, 13, 3, 1)
    assert all((ok == 1).all() for ok in penn.rows("features/resnet50_ok").values())
    np.testing.assert_equal(penn.rows("features/resnet50")["0001/0"], before["0001/0"])

    shutil.copy(penn.label("0001"), penn.raw / "labels/0007.mat")
    shutil.copytree(penn.frames("0003"), penn.raw / "frames/0007")  # a new video
    picture = penn.frames("0005") / "000004.jpg"
    cv2.imwrite(str(picture), 255 - cv2.imread(str(picture)))
    (penn.raw / "frames/0005").touch()  # pictures are known by names and sizes, folders by their time
    penn.convert()
    plan = plan_extraction(root, PENN, StreamSpec())
    assert plan.why == "the split has changed"
    done = extract.extract(plan)
    assert (done.computed, done.carried) == (16, 0)
    stored = penn.rows("features/resnet50")
    for track, pixels in cropped_by_hand(penn).items():
        np.testing.assert_allclose(stored[track], means(pixels), rtol=FLOAT16)
    assert plan_extraction(root, PENN, StreamSpec()).up_to_date
    assert cache.verify(root).ok


def test_a_renamed_folder_of_pictures_keeps_its_features(
    small_shards: None, penn: Any, root: Path, into: Any, network: Any
) -> None:
    into.extract(root)
    before = penn.rows("features/resnet50")
    penn.label("0003").rename(penn.label("0009"))
    penn.frames("0003").rename(penn.frames("0009"))
    penn.convert()
    done = into.extract(root)
    assert (done.computed, done.carried) == (0, 8)
    np.testing.assert_array_equal(penn.rows("features/resnet50")["0009/0"], before["0003/0"])


def test_videos_of_pictures_with_equal_names_and_sizes_differ(small_shards: None, penn: Any, into: Any) -> None:
    """As of uncompressed pictures. One is filled up behind its end, which no decoder reads."""
    penn.add("0007", "0009")
    for video in ("0007", "0009"):
        picture = penn.frames(video) / "000001.jpg"
        cv2.imwrite(str(picture), np.full_like(cv2.imread(str(picture)), int(video)))
        with picture.open("ab") as file:
            file.truncate(60_000)
    penn.convert()
    entries = {entry.name: entry.pixels for entry in penn.split.videos}
    assert len({entries[name] for name in ("0001", "0007", "0009")}) == 3


def test_a_picture_that_cannot_be_read_now_ends_the_extraction_and_leaves_no_row_without_features(
    penn: Any, into: Any, network: Any
) -> None:
    picture = penn.frames("0003") / "000003.jpg"
    picture.unlink()
    picture.symlink_to("/proc/self/mem")  # no error but its first byte: input/output error
    penn.convert()
    with pytest.raises(PipelineError, match=r"0003: frame 2: .*000003.jpg cannot be read: Input/output error.* again"):
        into.extract(penn.root)
    assert penn.split.streams == ()
    assert cache.verify(penn.root).ok


def test_a_refused_extraction_leaves_no_folder(root: Path, ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PipelineError("the weights cannot be downloaded")

    monkeypatch.setattr(ResNet50, "load", refuse)
    before = sorted(root.rglob("*"))
    assert "cannot be downloaded" in ran("extract", *PENN.split("/"), "--cache", root, code=2).err
    assert sorted(root.rglob("*")) == before
    assert cache.verify(root).notes == ()


def test_a_truncated_picture_is_marked_counted_and_kept_out_of_windows(penn: Any, into: Any, network: Any) -> None:
    picture = penn.frames("0003") / "000003.jpg"
    picture.write_bytes(picture.read_bytes()[:-50])
    penn.convert()
    done = into.extract(penn.root)
    assert (done.computed, done.problems) == (23, {"picture_truncated": 1})
    (example,) = done.examples
    assert example.startswith("0003, frame 2: ")
    assert "000003.jpg the JPEG is cut short" in example
    ok = penn.rows("features/resnet50_ok")
    assert ok["0003/0"].tolist() == [1, 1, 0, 1, 1, 1, 1, 1]
    assert (ok["0001/0"] == 1).all()
    assert np.isnan(penn.rows("features/resnet50")["0003/0"][2]).all()
    split = penn.split
    start = next(track.start for track in split.tracks if track.name == "0003/0")
    windows = split.windows(2, 2, "resnet50").tolist()
    assert [w for w in windows if start <= w[0] < start + 8] == [
        [start, start + 2],
        [start + 3, start + 5],
        [start + 5, start + 7],
    ]
    assert np.isfinite(split.read(split.windows(2, 2, "resnet50"), stream="resnet50")["features"]).all()
    with pytest.raises(cache.CacheError, match="picture was not readable"):
        split.read(np.array([[start + 2, start + 4]]), stream="resnet50")
    assert plan_extraction(penn.root, PENN, StreamSpec()).up_to_date
    assert cache.verify(penn.root).ok


def test_a_stream_keeps_its_weights_and_others_go_beside_it(penn: Any, root: Path, into: Any, network: Any) -> None:
    into.extract(root)
    held = into.tree(root)
    other = WeightsSpec("untrained", "1")
    for changed in ({"weights": other}, {"precision": "exact"}):
        with pytest.raises(PipelineError, match=r"'resnet50' was extracted differently: .*--stream NAME.*--replace"):
            into.extract(root, **changed)
    assert into.tree(root) == held
    assert plan_extraction(root, PENN, into.spec()).up_to_date

    into.extract(root, weights=other, name="other")
    split = penn.split
    assert split.streams == ("other", "resnet50")
    assert split.stream_manifest("other")["identity"]["weights"]["argument"] == "1"
    assert {path: data for path, data in into.tree(root).items() if path in held} == held

    spec = into.spec(weights=other)
    replacing = plan_extraction(root, PENN, spec, replace=True)
    assert (replacing.replace, replacing.why) == (True, "to be replaced")
    network.batches.clear()
    assert (extract.extract(replacing).computed, len(network.batches)) == (24, 2)
    assert penn.split.stream_manifest("resnet50")["identity"]["weights"]["argument"] == "1"
    assert cache.verify(root).ok


def test_a_stream_whose_manifest_is_lost_can_be_replaced(penn: Any, root: Path, into: Any, network: Any) -> None:
    into.extract(root)
    held = penn.rows("features/resnet50")
    (root / PENN / "features/resnet50/manifest.json").unlink()
    with pytest.raises(cache.CacheError, match="--replace"):
        into.extract(root)
    assert into.extract(root, replace=True).computed == 24
    found = penn.rows("features/resnet50")
    assert all(np.array_equal(found[track], rows) for track, rows in held.items())
    assert cache.verify(root).ok


def test_a_frame_that_could_not_be_decoded_is_tried_again_when_it_is_asked_for(
    penn: Any, into: Any, network: Any
) -> None:
    picture = penn.frames("0003") / "000003.jpg"
    good = picture.read_bytes()
    picture.write_bytes(good[:-50] + bytes(50))  # as a disk that fails gives it: the size is right
    penn.convert()
    assert sum(into.extract(penn.root).problems.values()) == 1
    picture.write_bytes(good)
    assert plan_extraction(penn.root, PENN, StreamSpec()).up_to_date
    done = into.extract(penn.root, replace=True)
    assert (done.computed, done.problems) == (24, {})
    assert (penn.rows("features/resnet50_ok")["0003/0"] == 1).all()
    assert plan_extraction(penn.root, PENN, StreamSpec()).up_to_date
    # There is nothing to discard where there is no stream, so a killed replacement goes on when it is started again.
    new = plan_extraction(penn.root, PENN, StreamSpec(name="other"), replace=True)
    assert (new.replace, new.why) == (False, "not extracted before")


def test_a_stream_is_not_discarded_for_one_that_cannot_be_made(
    root: Path, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    real = ResNet50.load
    request.getfixturevalue("network")
    into.extract(root)
    held = into.tree(root)
    with pytest.raises(PipelineError, match="not there now"):
        into.extract(root, weights=WeightsSpec("untrained", "1"), raw=tmp_path / "nowhere", replace=True)
    monkeypatch.setattr(ResNet50, "load", real)
    (tmp_path / "weights.pt").write_bytes(b"no checkpoint")
    with pytest.raises(PipelineError, match=r"weights\.pt"):
        into.extract(root, weights=WeightsSpec("file", str(tmp_path / "weights.pt")), replace=True)
    assert into.tree(root) == held


def test_a_raw_folder_that_lacks_a_video_is_refused_rather_than_its_rows_marked(
    penn: Any, root: Path, into: Any, tmp_path: Path, network: Any
) -> None:
    penn.frames("0003").rename(tmp_path / "0003")
    with pytest.raises(
        PipelineError, match=r"1 of its 3 videos are not below .*, first 0003: there is no .*/frames/0003\."
    ):
        into.extract(root)
    assert penn.split.streams == ()
    (tmp_path / "0003").rename(penn.frames("0003"))
    assert into.extract(root).computed == 24


def test_other_pictures_than_those_that_were_converted_are_refused(
    penn: Any, root: Path, into: Any, tmp_path: Path, network: Any
) -> None:
    larger = tmp_path / "larger"
    shutil.copytree(penn.raw, larger)
    for picture in larger.glob("frames/*/*.jpg"):
        pixels = cv2.imread(str(picture))
        cv2.imwrite(str(picture), cv2.resize(pixels, None, fx=1.25, fy=1.25))
    with pytest.raises(PipelineError, match=rf"{PENN}: 000\d: {larger}/frames/000\d does not hold .*--raw DIR"):
        into.extract(root, raw=larger)
    assert penn.split.streams == ()
    shutil.rmtree(penn.raw)
    shutil.copytree(larger, penn.raw)  # changed on purpose: what the message says to do is enough
    for folder in (penn.raw / "frames").iterdir():
        folder.touch()
    penn.convert()
    assert into.extract(root).computed == 24


def test_a_stream_of_another_program_is_left_alone_and_told(penn: Any, root: Path, into: Any) -> None:
    n_rows = penn.split.manifest["rows"]
    with cache.StreamWriter(root, PENN, "resnet50", plan="of another program") as writer:
        writer.write(0, np.zeros((n_rows, 2048), np.float32), np.ones(n_rows), np.zeros((n_rows, 2), np.uint64))
        writer.commit({})
    with pytest.raises(PipelineError, match=r"'resnet50' does not record what it was made with.*--replace"):
        into.extract(root)


def test_settings_that_cannot_be_are_refused(penn: Any, into: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision 'half': expected exact or fast"):
        into.spec(precision="half")
    with pytest.raises(cache.CacheError, match="expected a feature cache, found no such folder"):
        plan_extraction(tmp_path / "cache", PENN, StreamSpec())
    penn.convert()
    with pytest.raises(ConfigError, match=r"workers 100000: this machine has \d+ cores; at most 16 for each"):
        into.extract(tmp_path / "cache", workers=100_000)
    with pytest.raises(cache.CacheError, match="penn_action/test"):
        plan_extraction(tmp_path / "cache", "penn_action/test", StreamSpec())
