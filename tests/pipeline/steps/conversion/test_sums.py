"""Numbers of a split's tracks that are stored where rows are written."""

import csv
import io
import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import cache
from cache.write.copy import to_track_rows
from pipeline.grades import video_numbers
from pipeline.grades.sums import SUMS
from tests import made_splits


def totals_of_columns(split):
    """By plain NumPy, from the stored columns of all tracks."""
    tracks = split.tracks
    n_rows = tracks.stop - tracks.start
    places = np.stack([np.repeat(tracks.video, n_rows), split.live("frame_index")], axis=1)
    frames, n_in_frame = np.unique(places, axis=0, return_counts=True)
    most = [n_in_frame[frames[:, 0] == video].max() for video in np.unique(tracks.video)]
    totals = {
        "rows": len(places),
        "tracks": len(tracks),
        "seconds": (n_rows * tracks.step / tracks.fps).sum(),
        "persons": sum(most),
        "confidence_2d": 0,
    }
    if "kp_2d" in split.columns:
        totals["confidence_2d"] = split.live("kp_2d")[..., 2].sum(dtype=np.float64)
    for name, column in (("rows_3d", "has_3d"), ("rows_smpl", "has_smpl")):
        totals[name] = (split.live(column) == 1).sum() if column in split.columns else 0
    return totals


@pytest.mark.parametrize("name", ["penn_action", "3dpw", "amass"])
def test_the_sums_of_a_split_are_those_of_its_columns_and_grades(name, root, ran, types_json):
    split = cache.open(root)[f"{name}/train"]
    table = io.StringIO(ran("status", split.name, "--cache", root, "--tracks").out)
    words = Counter(row["grade"] for row in csv.DictReader(table))
    expected = totals_of_columns(split)
    expected |= {f"{word}_v3": words[word] for word in ("good", "doubtful", "bad")}
    (status,) = types_json(f"status {split.name} --cache {root}")
    sums = {name: np.nan if n is None else n for name, n in status["sums"].items()}
    assert sums == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert words.total() == len(split.tracks)


def test_a_new_sum_is_in_status_once_all_videos_have_it(penn, monkeypatch, types_json):
    def last_frames(tracks):
        return sum(track.columns["frame_index"][-1] for track in tracks)

    def shown():
        penn.convert()
        (status,) = types_json(f"status {penn.name} --cache {penn.root}")
        return status["sums"]

    assert "last_frames" not in shown()
    monkeypatch.setitem(SUMS, "last_frames", last_frames)
    penn.add("0007")
    penn.edit("0001")
    assert shown()["last_frames"] is None
    sums = {video.name: video.sums.get("last_frames") for video in penn.split.videos}
    assert (sums["0003"], sums["0001"], sums["0007"]) == (None, 7, 7)
    penn.edit("0003")
    penn.edit("0005")
    assert (shown()["last_frames"], shown()["rows"]) == (4 * 7, 4 * 8)


def test_the_sums_of_another_program_s_split_are_null(tmp_path, types_json):
    track = made_splits.track_of("a/0", {"frame_index": np.arange(3)})
    made_splits.write_split(
        tmp_path / "cache", "made/train", [(cache.VideoEntry(name="a"), [track])]
    )
    (status,) = types_json("status --cache CACHE")
    assert status["sums"] is None


@pytest.mark.parametrize(("rows", "code"), [(3.0, 0), (4.0, 1)])
def test_verify_compares_sums_with_rows(rows, code, tmp_path, types):
    columns = {"frame_index": np.arange(3), "bbox": np.ones((3, 4), np.float32)}
    entry = cache.VideoEntry(name="a", sums={"rows": rows, "of_another_program": 1.0})
    track = made_splits.track_of("a/0", columns)
    made_splits.write_split(tmp_path / "cache", "made/train", [(entry, [track])])
    wrong = "totals of video 'a': expected" if code else "intact"
    types("verify --cache CACHE", wrong, code=code)
    types("verify --cache CACHE --fast", "intact")


def test_a_track_of_any_columns_has_sums(penn):
    penn.converted()
    (whole,) = [to_track_rows(penn.split, track) for track in penn.split.tracks][:1]
    names = [name for name in whole.columns if name != "frame_index"]
    for n in range(len(names) + 1):
        for chosen in itertools.combinations(names, n):
            columns = {name: whole.columns[name] for name in ("frame_index", *chosen)}
            sums = video_numbers([replace(whole, columns=columns, fps=0.0)], {})["sums"]
            assert (sums["rows"], sums["tracks"], np.isnan(sums["seconds"])) == (8, 1, True)
