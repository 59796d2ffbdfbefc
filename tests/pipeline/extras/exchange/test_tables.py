"""A split as Parquet files: what pyarrow reads is what the cache holds, live rows alone."""

import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import cache
from cache.format.extra import ExtraColumn
from pipeline.extras.exchange import tables
from pipeline.extras.exchange.tables import TableOptions, export
from tests.made_splits import make, track_of, write_split, write_stream
from tests.raising import pipeline_refuses

TABLES = ("videos", "tracks", "rows", "accounting")


def read(folder):
    return {name: pq.read_table(folder / f"{name}.parquet") for name in TABLES}


def numbers(column, fill=np.nan):
    """A column of numbers, nested lists too, with the fill value in the place of null."""
    rows = column.to_pylist()
    shape = np.shape(next((row for row in rows if row is not None), fill))
    return np.array([np.full(shape, fill) if row is None else row for row in rows])


@pytest.mark.parametrize("name", ["penn_action/train", "3dpw/train", "amass/train"])
def test_rows_and_tracks_are_what_the_cache_holds(name, root, tmp_path):
    export(root, name, tmp_path / "out")
    split, read_back = cache.open(root)[name], read(tmp_path / "out")
    rows, tracks = read_back["rows"], read_back["tracks"].to_pylist()
    live = np.concatenate([np.arange(track.start, track.stop) for track in split.tracks])
    assert rows["row"].to_pylist() == live.tolist()
    for column in split.columns:
        stored = np.asarray(split.column(column)[: live.max() + 1])[live]
        null = 255 if stored.dtype == np.uint8 else np.nan
        assert_array_equal(numbers(rows[column], null), stored, column)
    number = rows["track_number"].to_pylist()
    assert rows["track_name"].to_pylist() == [split.tracks[n].name for n in number]
    assert rows["video_name"].to_pylist() == [split.tracks[n].video for n in number]
    assert rows["video_number"].to_pylist() == split.tracks.video[number].tolist()
    names = ("start", "stop", "step", "crop_scale", "gender")
    for i, (track, record) in enumerate(zip(split.tracks, tracks, strict=True)):
        expected = {name: getattr(track, name) for name in names}
        expected |= {"track_number": i, "track_name": track.name, "video_name": track.video}
        expected["fps"] = None if np.isnan(track.fps) else track.fps
        assert {name: record[name] for name in expected} == expected
        stored = np.full((3, 3), np.nan) if track.intrinsics is None else track.intrinsics
        assert_array_equal(record["intrinsics"], stored)
    metadata = pq.read_schema(tmp_path / "out/rows.parquet").metadata
    assert (metadata[b"split"].decode(), metadata[b"stand_in"]) == (name, b"true")
    assert metadata[b"split_digest"].decode() == split.manifest["digest"]
    assert json.loads(metadata[b"joints"])[8] == "OP MidHip"


def test_what_a_row_lacks_is_null_and_a_dataset_s_own_columns_come_along(tmp_path):
    split = make(tmp_path / "cache")
    export(tmp_path / "cache", "made/train", tmp_path / "out")
    rows, tracks, videos = (read(tmp_path / "out")[name] for name in ("rows", "tracks", "videos"))
    run, starts = np.array(rows["run_number"]), []
    for n in range(4):  # two of each track
        starts += np.array(rows["row"])[run == n][: 30 - 15 : 4].tolist()
    assert starts == split.windows(16, 4)[:, 0].tolist(), "runs cut the windows of training"
    second = np.array(rows["track_number"]) == 1
    for column, null in (("has_smpl", second), ("action", ~second)):
        assert np.array_equal(rows[column].is_null().to_numpy(), null), column
    assert np.array_equal(np.isnan(numbers(rows["pose"])).all(axis=1), second)
    assert rows["foot_contact"].to_pylist() == [[False, True]] * 60 + [[None, None]] * 60
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        assert not (pa.types.is_fixed_size_list(column.type) and column.null_count), name
    assert rows["has_smpl"][0].as_py() is True
    assert rows["action"].to_pylist()[60:63] == [0, 1, 2]
    assert (
        tracks["height"].to_pylist() == [1.75, None]
        and np.isnan(numbers(tracks["intrinsics"])).all()
    )
    assert tracks["track_name"].to_pylist() == split.tracks.names == ["a.b/ü 1/0", "a.b/ü 1/ß.x"]
    assert videos["video_name"].to_pylist() == ["a.b/ü 1", 'comma, "quote"']
    assert pa.types.is_dictionary(rows.schema.field("track_name").type)
    assert rows.schema.field("kp_2d").type == pa.list_(pa.list_(pa.float32(), 3), 49)
    assert b"foot" in rows.schema.field("foot_contact").metadata[b"about"]


def test_a_column_of_the_dataset_s_own_with_the_name_of_one_of_ours_is_refused(tmp_path):
    track = track_of(
        "a/0", {"frame_index": np.arange(3)}, extra={"row": np.arange(3, dtype=np.int16)}
    )
    row = ExtraColumn(name="row", about="of a table", dtype="int16")
    write_split(
        tmp_path / "cache", "made/train", [(cache.VideoEntry(name="a"), [track])], extra=[row]
    )
    with pipeline_refuses("'row'"):
        export(tmp_path / "cache", "made/train", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_live_rows_alone_and_what_became_of_each_video(penn, tmp_path, types):
    penn.converted()
    penn.add("0007")
    penn.edit("0003")
    penn.spoil("0005")
    (penn.frames("0001") / "000003.jpg").unlink()
    penn.convert()
    penn.remove("0007")
    types("convert penn_action/train --raw RAW/penn_action --cache CACHE --drop-removed")
    split = penn.split
    # there are rows that are no track's any more
    assert int(split.tracks.stop.max()) > split.manifest["rows"]
    export = "export penn_action/train --cache CACHE --format parquet --out TMP/out"
    types(export, "DEMO DATA")
    read_back = read(tmp_path / "out")
    rows = read_back["rows"]
    assert len(rows) == split.manifest["rows"]
    assert set(rows["video_name"].to_pylist()) == {"0001", "0003"}
    moved = rows.filter(pa.compute.equal(rows["video_name"], "0003"))
    assert_array_equal(numbers(moved["kp_2d"]), penn.rows("kp_2d")["0003/0"])
    videos = {row["video_name"]: row for row in read_back["videos"].to_pylist()}
    states = [videos[name]["state"] for name in ("0001", "0002", "0003", "0005")]
    assert states == ["kept", "of another split", "kept", "rejected"]
    assert videos["0005"]["reason"] == "bad_label_file"
    lines = {
        (line["video_name"], line["reason"]): line["person_frames"]
        for line in read_back["accounting"].to_pylist()
    }
    assert (lines["0001", ""], lines["0001", "no_picture"]) == (7, 1)


def test_a_split_without_a_row_has_its_accounting(penn, tmp_path):
    penn.spoil("0001", "0003", "0005")
    penn.convert()
    done = export(penn.root, penn.name, tmp_path / "out")
    read_back = read(tmp_path / "out")
    assert (done.rows, len(read_back["rows"]), len(read_back["tracks"])) == (0, 0, 0)
    lines = read_back["accounting"].to_pylist()
    assert sum(line["reason"] == "bad_label_file" for line in lines) == 3


def test_features_are_nan_where_the_picture_could_not_be_decoded(tmp_path):
    root, name, out = tmp_path / "cache", "made/train", tmp_path / "out"
    make(root, n_rows=10)
    # 0: not decoded
    stream = {"values": lambda rows: rows[:, None] * 2 + [0, 1], "computed": lambda rows: rows % 3}
    write_stream(root, name, "few", **stream, dim=2, dtype="float32")
    done = export(root, name, out, stream="few", options=TableOptions(features=True))
    features = numbers(read(out)["rows"]["features"])
    expected = np.arange(40.0).reshape(20, 2)
    expected[::3] = np.nan
    assert_array_equal(features, expected)
    assert done.stand_in
    assert pq.read_schema(out / "rows.parquet").metadata[b"stream"] == b"few"
    # else it would write no features without a word
    with pipeline_refuses("features=yes"):
        export(root, name, tmp_path / "none", stream="few")
    export(root, name, tmp_path / "none")
    assert "features" not in read(tmp_path / "none")["rows"].column_names


@pytest.mark.promise("flat memory")
def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 200)

    def peak(n_rows):
        make(tmp_path / str(n_rows), n_rows=n_rows)
        taken = [0]

        def measure(*_):
            taken.append(pa.total_allocated_bytes() + tracemalloc.get_traced_memory()[0])

        tracemalloc.start()
        try:
            export(
                tmp_path / str(n_rows), "made/train", tmp_path / f"{n_rows}.out", progress=measure
            )
        finally:
            tracemalloc.stop()
        assert len(taken) > 2 * n_rows / 200
        return max(taken)

    few, many = peak(1_000), peak(5_000)  # 588 bytes of joints a row, of 8,000 more rows 4.7 MB
    assert many - few < 1_000_000
