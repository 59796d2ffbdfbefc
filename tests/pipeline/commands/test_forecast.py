"""What `plan` forecasts, beside what conversion and extraction then write; and `status --sizes`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline import datasets
from pipeline.commands.maintenance.forecast import expected_rows
from pipeline.commands.maintenance.overview import array_bytes, columns_bytes, stored_bytes, stream_bytes
from pipeline.conversion.convert import convert
from pipeline.conversion.plan import plan_conversion
from pipeline.files.raw.stand_in import MARKER


def as_json(ran: Any, penn: Any, *more: object) -> Any:
    words = ("plan", "penn_action", "train", "--raw", penn.raw, "--cache", penn.root, "--weights", "untrained:0")
    return json.loads(ran(*words, "--json", *more).out)[0]["forecast"]


def test_what_is_forecast_is_what_is_written(penn: Any, into: Any, network: Any, ran: Any) -> None:
    found = as_json(ran, penn, "--sample", 6, "--rate", 12)
    assert (found["rows"], found["source"], found["error"]) == (24, "all videos were read", 0)
    assert found["seconds"]["resnet50"] == pytest.approx(24 / 12)
    assert found["rates"]["resnet50"]["source"] == "given"
    assert found["seconds"]["convert"] > 0
    penn.convert()
    into.extract(penn.root, precision="fast")
    stored = stored_bytes(penn.split)
    assert found["bytes"] == {"columns": stored["columns"], "resnet50": stored["streams"]["resnet50"]}
    assert as_json(ran, penn) is None, "nothing is left to do"


def test_a_sample_has_an_error_and_speeds_of_earlier_runs_an_age(penn: Any, into: Any, network: Any, ran: Any) -> None:
    found = as_json(ran, penn, "--sample", 3)  # 0001, 0003 or 0004, 0006: of train, either, of test
    assert found["source"] == "by a sample of 3 videos"
    assert 0 < found["error"] < 3
    assert found["seconds"]["resnet50"] is None
    penn.convert()
    into.extract(penn.root, precision="fast")
    penn.add("0007", "0008")
    found = as_json(ran, penn)
    assert found["rows"] == 8, "half of the videos are test's"
    assert found["source"] == "4 for each new video, as of the 6 committed videos"
    for work, rows in (("convert", 24), ("resnet50", 24)):
        rate = found["rates"][work]
        assert rate["source"].startswith("measured here ")
        assert rate["source"].endswith(f" ago, over {rows} rows")
        assert found["seconds"][work] == pytest.approx(8 / rate["rows_a_second"])
    penn.remove("0003", "0007", "0008")
    penn.convert()
    penn.add("0003")  # as it was put back: a commit that reads or computes nothing keeps the speed
    assert as_json(ran, penn)["rates"]["convert"]["source"].endswith(" ago, over 24 rows")
    penn.convert()
    assert into.extract(penn.root, precision="fast").computed == 0
    penn.add("0007")
    assert as_json(ran, penn)["rates"]["resnet50"]["source"].endswith(" ago, over 24 rows")


def test_before_the_download_the_releases_numbers_give_the_totals(luigi_cfg: Any, ran: Any) -> None:
    luigi_cfg("h36m amass insta_variety", "[features]\nweights = torchvision:IMAGENET1K_V2")
    assert "✗" in ran("plan", code=2).out
    by_split = {split["split"]: split["forecast"] for split in json.loads(ran("plan", "--forecast", "--json").out)}
    assert (by_split["h36m/val"]["rows"], by_split["insta_variety/test"]["rows"]) == (550_644 / 2, None)


def test_a_forecast_names_what_it_cannot_count(penn: Any, luigi_cfg: Any, ran: Any) -> None:
    luigi_cfg("penn_action amass", "[embedded]\nenabled = true\n[features]\nstream = small")
    shown = ran("plan", "--forecast", "--sample", 2).out
    assert "no forecast               amass/train: demo data that are not made yet" in shown
    (in_all,) = (line for line in shown.splitlines() if line.startswith("  in all"))
    assert in_all.endswith("; without extract small (no speed is known); without 1 split of unknown size")
    penn.converted()
    penn.root.joinpath(penn.name, "manifest.json").write_text("{")
    shown = ran("plan", "--forecast", "penn_action", code=2).out
    assert "✗ " in shown, "no missing download: it must not pass for one"
    assert "penn_action/test" in shown


def test_of_a_dataset_the_speed_of_one_splits_sample_holds_for_all(penn: Any, luigi_cfg: Any, ran: Any) -> None:
    for video in ("0002", "0004"):
        penn.remove(video)  # one is left of test: no row is read after the first video's
    penn.remove("0006")
    luigi_cfg("penn_action")
    shown = ran("plan", "--forecast", "--sample", 8, "--rate", 100).out
    assert shown.count("convert penn_action") == 1
    assert "no speed is known" not in shown


def test_rows_that_may_be_carried_over_are_no_certain_hours(
    penn: Any, into: Any, network: Any, small_shards: None, ran: Any
) -> None:
    penn.converted("fast")

    def step(*more: object) -> tuple[float, float, float]:
        found = as_json(ran, penn, *more)
        return found["steps"]["resnet50"]["rows"], *(found[key]["resnet50"] for key in ("seconds_at_least", "seconds"))

    penn.edit("0003")
    assert step("--rate", 4) == (8, 0, 2)
    penn.add("0007")
    rows, least, most = step("--rate", 4)
    assert (rows, least, most) == (8 + 4, 1, 3), "a video takes 4 rows, as half of them are test's"

    penn.remove("0003", "0007")
    penn.convert()
    penn.add("0003")  # as it was put back
    assert step("--rate", 4)[1] == 0

    (penn.root / penn.name / "manifest.json").unlink()
    rows, least, most = step("--rate", 4, "--sample", 9)
    assert (rows, least) == (24, 0), "all features are there still"


def test_people_are_to_be_found_first_where_clips_have_no_keypoints(
    embedded: Any, tmp_path: Path, luigi_cfg: Any, ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = tmp_path / "raw/videos"
    clips.mkdir(parents=True)
    (clips / MARKER).write_text("{}")
    for name, file in zip("ab", sorted(embedded.raw("kinetics").rglob("*.mp4")), strict=False):
        shutil.copy(file, clips / f"{name}.mp4")
    luigi_cfg("videos", "[videos]\nval = 0\ntest = 0\nmin_frames = 5\n[detect]\ndetector = demo")

    def planned() -> Any:
        return next(split for split in json.loads(ran("plan", "--json").out) if split["split"] == "videos/train")

    train = planned()
    assert (train["detect"], train["nothing_to_do"]) == (["a.mp4", "b.mp4"], False)
    assert train["forecast"]["steps"]["detect"] == {"rows": 56, "carried_at_most": 0}
    assert train["forecast"]["rows"] == 56, "as if a person was in each frame"
    shown = ran("plan").out
    assert "  detect   2 clips, by demo" in shown
    assert "hours not known: detect videos, convert videos, extract resnet50 (no speed is known)" in shown

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # without the weights
    ran("plan", "--set", "detect.detector=keypoint_rcnn", "--set", "keypoint_rcnn.weights=pretrained")
    assert not [*tmp_path.rglob("*.pth")], "a plan downloads nothing"

    (clips / "b.mp4").rename(tmp_path / "b.mp4")
    ran("detect", clips, "--out", clips / "keypoints")
    (tmp_path / "b.mp4").rename(clips / "b.mp4")
    found = planned()
    assert found["detect"] == ["b.mp4"]
    rate = found["forecast"]["rates"]["detect"]
    assert rate["source"].endswith(" ago, over 28 frames")
    assert found["forecast"]["seconds"]["detect"] == pytest.approx(28 / rate["rows_a_second"])
    videos = datasets.get("videos", val=0, test=0, min_frames=5)
    convert(plan_conversion(videos, "train", raw=clips, root=tmp_path / "cache"))
    assert planned()["detect"] == ["b.mp4"], "it is converted, as a clip without keypoints"
    assert not planned()["nothing_to_do"]
    ran("detect", clips, "--out", clips / "keypoints")
    assert planned()["detect"] == []


def test_the_releases_numbers_are_shared_out_over_splits_and_videos(penn: Any) -> None:
    penn.without_marker()
    (rows, source, error, rate, *_) = expected_rows(penn.plan(), 0, 0, 1)
    assert source == "by the release's numbers"
    assert rows == pytest.approx(163_841 * 1258 / 2326 * 6 / 2326)
    assert (error, rate) == (0, None)


def test_bytes_of_many_rows(tmp_path: Path) -> None:
    for rows in (1, 64, 65, 8192, 8193, 20_000):
        root = tmp_path / str(rows)
        track = cache.TrackRows(
            name="a/0", video="a", step=1, fps=25, crop_scale=1, columns={"frame_index": np.arange(rows)}
        )
        with cache.SplitWriter(root, "a/train", columns=("frame_index",), plan="sizes") as writer:
            writer.begin()
            writer.append(cache.VideoEntry(name="a"), [track])
            writer.commit({})
        with cache.StreamWriter(root, "a/train", "s", dim=3, plan="sizes") as stream:
            for shard in stream.pending:
                n = len(stream.rows(shard))
                stream.write(shard, np.zeros((n, 3), np.float16), np.ones(n), np.zeros((n, 2), np.uint64))
            stream.commit({})
        split = cache.open(root)["a/train"]
        found, files = stored_bytes(split), split.store.files("a/train")
        assert found["columns"] == columns_bytes(rows, ("frame_index",)) == array_bytes(rows, 8)
        assert found["streams"]["s"] == stream_bytes(rows, 3, "float16")
        assert found["columns"] + found["streams"]["s"] + found["tables"] == sum(files.values())
