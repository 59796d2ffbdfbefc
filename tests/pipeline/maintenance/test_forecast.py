"""What `plan` forecasts, beside what conversion and extraction then write; and `status --sizes`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline.maintenance.forecast import Rate, expected_rows, forecast
from pipeline.maintenance.overview import array_bytes, columns_bytes, plan_split, sizes, stream_bytes


def as_json(ran: Any, penn: Any, *more: object) -> Any:
    words = ("plan", "penn_action", "train", "--raw", penn.raw, "--cache", penn.root, "--weights", "untrained:0")
    return json.loads(ran(*words, "--json", *more).out)[0]["forecast"]


def test_what_is_forecast_is_what_is_written(penn: Any, into: Any, network: Any, ran: Any) -> None:
    found = as_json(ran, penn, "--sample", 6, "--rate", 4, "--devices", 3)
    assert (found["rows"], found["source"], found["error"]) == (24, "all videos were read", 0)
    assert found["seconds"]["resnet50"] == pytest.approx(24 / 12)
    assert found["rates"]["resnet50"]["source"] == "given: 3 devices at 4 a second"
    assert found["seconds"]["convert"] > 0
    penn.convert()
    into.extract(penn.root, precision="fast")
    stored = sizes(penn.split)
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
    assert (found["rows"], found["source"]) == (8.0, "as many a video as are committed"), (
        "half of the videos are test's"
    )
    for work, rows in (("convert", 24), ("resnet50", 24)):
        rate = found["rates"][work]
        assert rate["source"].startswith("measured here ")
        assert rate["source"].endswith(f" ago, over {rows} rows")
        assert found["seconds"][work] == pytest.approx(8 / rate["rows_a_second"])
    shown = ran("plan", "penn_action", "train", "--raw", penn.raw, "--cache", penn.root).out
    assert "about 8 person-frames, as many a video as are committed" in shown
    in_all, disk, *works = (" ".join(line.split()) for line in shown.splitlines()[-4:])
    assert re.fullmatch(r"in all about 8 person-frames, [\d.]+ KiB, \d+ s", in_all)
    assert re.fullmatch(r"disk columns [\d.]+ KiB, resnet50 [\d.]+ KiB", disk)
    for line, work in zip(works, ("convert penn_action", "extract resnet50"), strict=True):
        assert re.fullmatch(rf"{work} \d+ s at [\d.,]+ a second, measured here \d+ s ago", line)


def test_before_the_download_the_releases_numbers_give_the_totals(luigi_cfg: Any, ran: Any) -> None:
    luigi_cfg("h36m amass insta_variety", "[features]\nweights = torchvision:IMAGENET1K_V2")
    shown = ran("plan", "--rate", 1200, "--devices", 4, code=2).out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    after = lines[lines.index("forecast") + 1 :]
    assert after[0] == "h36m/train about 780,000 person-frames, by the release's numbers, not downloaded yet"
    assert after[2] == "amass/train about 3.6 million person-frames, estimated (docs/scale.md), not downloaded yet"
    unknown = "no forecast insta_variety/train, insta_variety/test: person-frames are not known before the download"
    assert after[3] == unknown
    rows = (1_559_752 + 550_644) / 2  # every second frame; AMASS has no pixels
    (in_all,) = (line for line in after if line.startswith("in all"))
    assert in_all.startswith(f"in all about {(rows + 3.6e6) / 1e6:.3g} million person-frames, ")
    assert in_all.endswith(", without 2 splits of unknown size")
    assert f"extract resnet50 {rows / 4800 / 60:.0f} min on 4 devices at 1,200 a second each" in after
    assert any(line.startswith("not in these hours convert h36m, convert amass: no speed was") for line in after)


def test_the_releases_numbers_are_shared_out_over_splits_and_videos(penn: Any) -> None:
    penn.without_marker()
    (rows, source, error, rate) = expected_rows(penn.plan(), 0, 0, 1)
    assert source == "by the release's numbers"
    assert rows == pytest.approx(163_841 * 1258 / 2326 * 6 / 2326)
    assert (error, rate) == (0, None)


def test_what_is_not_known_is_reported(penn: Any, ran: Any) -> None:
    assert expected_rows(penn.plan(), 0, 0, 1).rows is None, "demo data have no release"
    shown = ran("plan", "penn_action", "train", "--raw", penn.raw, "--cache", penn.root).out
    assert "not known before some videos are read: --sample 16" in shown


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
        found, files = sizes(split), split.store.files("a/train")
        assert found["columns"] == columns_bytes(rows, ("frame_index",)) == array_bytes(rows, 8)
        assert found["streams"]["s"] == stream_bytes(rows, 3, "float16")
        assert found["columns"] + found["streams"]["s"] + found["tables"] == sum(files.values())


def test_sizes_and_times_are_shown_by_split_and_stream(penn: Any, ran: Any) -> None:
    penn.converted("fast")
    (shown,) = json.loads(ran("status", "--cache", penn.root, "--sizes", "--json").out)
    assert shown["sizes"]["commits"]["resnet50"] == penn.split.stream_provenance("resnet50")["finished"]
    lines = ran("status", "--cache", penn.root, "--sizes").out.splitlines()
    assert [line.split()[1] for line in lines[1:4]] == ["columns", "resnet50", "tables,"]
    assert lines[-1].startswith("all")


def test_a_split_that_cannot_be_planned_has_no_forecast(penn: Any) -> None:
    penn.remove("0001", "0002", "0003", "0004", "0005", "0006")
    (penn.raw / "labels").rmdir()
    plan = plan_split(penn.target())
    assert plan.problems
    assert forecast(plan, {"penn_action": Rate(1, "given")}) is None
