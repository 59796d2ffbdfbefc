"""Bytes beside the tracks, each row as many as it has: written, read, checked, mended and carried like numbers."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import cache
from cache import CacheChanged, CacheError, SplitWriter, StreamWriter, layout
from cache.mixture import Mixture, Part

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "benchmarks")]

from interrupted_runs import watched  # noqa: E402
from power_cut import Model, Recorder, on_disk, put_back  # noqa: E402

SPLIT = "toy/train"
FEATURES = f"{SPLIT}/features"
ROOM = 1 << 17


def writer_of(root: Path, **options: Any) -> StreamWriter:
    form: dict[str, Any] = {"dim": 0, "dtype": "bytes", "plan": "quality 95", **options}
    return StreamWriter(root, SPLIT, "crops", **form)


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.fixture(scope="module")
def cropped(tmp_path_factory: pytest.TempPathFactory, toy: Any) -> Path:
    """Six videos in 143 rows, and the bytes of all but two of them. Only to be read."""
    root = tmp_path_factory.mktemp("cropped") / "cache"
    toy.write(root, toy.videos())
    toy.write_blobs(root, bad_rows=[3, 40])
    return root


@pytest.fixture
def own(cropped: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    shutil.copytree(cropped, tmp_path / "cache")
    return tmp_path / "cache"


# --------------------------------------------------------------------------------------------------------- reading


def test_the_bytes_of_rows_come_in_the_order_asked_for(cropped: Path, toy: Any) -> None:
    split = cache.open(cropped)[SPLIT]
    rows = [142, 0, 17, 17, 31, 32, 33, 1, 141]
    assert split.blobs("crops", rows) == toy.blobs(rows)
    assert split.blobs("crops", np.array(rows, np.int32)) == toy.blobs(rows)
    everything = [row for row in range(143) if row not in (3, 40)]
    assert split.blobs("crops", everything) == toy.blobs(everything)
    assert split.blobs("crops", []) == []


@pytest.mark.parametrize(
    ("row", "why"),
    [(-1, "does not have it"), (3, "not readable"), (143, "does not have it"), (10**9, "does not have it")],
)
def test_rows_without_bytes_are_told_by_their_numbers(cropped: Path, row: int, why: str) -> None:
    for rows in ([0, row, 1], [row]):
        with pytest.raises(CacheError, match=rf"no bytes for row {row}: .*{why}.*windows"):
            cache.open(cropped)[SPLIT].blobs("crops", rows)


def test_rows_of_shards_that_are_not_there_yet_are_told(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write_blobs(tmp_path, shards=[0, 2])
    split = cache.open(tmp_path)[SPLIT]
    assert split.blobs("crops", [64, 31]) == toy.blobs([64, 31])
    with pytest.raises(CacheError, match="row 32: the stream does not have it, or not yet"):
        split.blobs("crops", [31, 32])


@pytest.mark.parametrize("rows", [[[1, 2]], [0.5], 3])
def test_what_are_no_row_numbers_is_refused(cropped: Path, rows: Any) -> None:
    with pytest.raises(ValueError, match="expected integers"):
        cache.open(cropped)[SPLIT].blobs("crops", rows)


def test_whoever_wants_numbers_of_it_is_told_what_it_is(cropped: Path) -> None:
    split = cache.open(cropped)[SPLIT]
    windows = split.windows(4, 4, "crops")
    for ask in (
        lambda: split.read(windows[:1], "crops"),
        lambda: split.read(windows[:1], "crops", fields=["features"]),
        lambda: split.rows("features/crops", 0, 4),
    ):
        with pytest.raises(CacheError, match=r"'crops' holds bytes, not numbers: Split.blobs\('crops', rows\)"):
            ask()
    assert split.read(windows[:1], "crops", fields=["kp_2d"]).keys() == {"kp_2d"}


def test_a_mixture_takes_its_windows_and_not_its_bytes(cropped: Path) -> None:
    splits = {SPLIT: cache.open(cropped)[SPLIT]}
    labels = Part(name="x", splits=splits, count=3, fields=("kp_2d",), stream="crops")
    mixture = Mixture([labels], seqlen=4)
    assert mixture.read(mixture.draw(0))["x"]["kp_2d"].shape == (3, 4, 49, 3)
    with pytest.raises(CacheError, match="holds bytes, not numbers"):
        Mixture([dataclasses.replace(labels, fields=("features",))], seqlen=4)


def test_a_stream_of_numbers_has_no_bytes(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [10])])
    toy.write_stream(tmp_path)
    with pytest.raises(CacheError, match="holds numbers, not bytes"):
        cache.open(tmp_path)[SPLIT].blobs("resnet50", [0])


def test_windows_are_those_of_a_stream_of_numbers_with_the_same_rows(own: Path, toy: Any) -> None:
    toy.write_stream(own, bad_rows=[3, 40])
    split = cache.open(own)[SPLIT]
    np.testing.assert_array_equal(split.windows(4, 2, "crops"), split.windows(4, 2, "resnet50"))
    assert split.undecodable("crops") == 2
    assert split.stream_shards("crops") == [0, 1, 2, 3, 4]
    assert split.streams == ("crops", "resnet50")


def test_any_zarr_reader_gets_a_row_by_its_place(cropped: Path, toy: Any) -> None:
    split = cache.open(cropped)[SPLIT]
    group: Any = zarr.open_group(cropped / FEATURES, mode="r")
    for array, places in (
        (group["crops"], group["crops_at"]),
        (split.column("features/crops"), split.column("features/crops_at")),
    ):
        assert (array.shape, array.dtype) == ((5 * 32 * ROOM,), np.uint8)
        for row in (0, 1, 31, 32, 142):
            start, stop = map(int, places[row])
            assert start // (32 * ROOM) == row // 32
            assert np.asarray(array[start:stop]).tobytes() == toy.blobs([row])[0]
        assert places[3].tolist() == [-1, -1]
    assert split.rows("features/crops_at", 0, 4)[3].tolist() == [-1, -1]


def test_room_without_bytes_takes_no_space(cropped: Path) -> None:
    shard = (cropped / FEATURES / "crops/c/4").stat().st_size  # 15 rows, one of 140,000 bytes
    assert shard == 2 * (ROOM + 4) + 32 * 16 + 4


def test_a_full_shard_and_its_neighbour_read_as_one(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [40])])
    blobs = [bytes([row]) * ROOM for row in range(40)]
    with writer_of(tmp_path) as writer:
        for shard in writer.pending:
            rows = writer.rows(shard)
            writer.write(shard, blobs[rows.start : rows.stop], np.ones(len(rows)), toy.keys(np.asarray(rows)))
        writer.commit({})
    assert cache.verify(tmp_path).ok
    assert cache.open(tmp_path)[SPLIT].blobs("crops", np.arange(40)) == blobs


def test_a_row_may_have_more_than_its_share_where_others_have_less(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [2])])
    large = np.random.default_rng(0).bytes(31 * ROOM + 5)
    with writer_of(tmp_path) as writer:
        writer.write(0, [b"small", large], np.ones(2), toy.keys(np.arange(2)))
        writer.commit({})
    assert cache.verify(tmp_path).ok
    assert cache.open(tmp_path)[SPLIT].blobs("crops", [1, 0]) == [large, b"small"]


# --------------------------------------------------------------------------------------------------------- writing


def test_bytes_that_do_not_fit_into_a_shard_are_refused(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [2])])
    with writer_of(tmp_path) as writer:
        keys = toy.keys(np.arange(2))
        with pytest.raises(CacheError, match=r"expected at most 4194304 bytes.*found 4194305"):
            writer.write(0, [bytes(32 * ROOM), b"1"], np.ones(2), keys)
        writer.write(0, [bytes(32 * ROOM), b"1"], np.array([1, 0]), keys)  # what is not kept needs no room


def test_what_does_not_fit_the_stream_is_refused(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [3])])
    keys, ok = toy.keys(np.arange(3)), np.ones(3)
    with writer_of(tmp_path) as writer:
        for data in (np.zeros((3, 4)), [b"1", b"2"], [b"1", "2", b"3"], [b"1", None, b"3"]):
            with pytest.raises(CacheError, match="expected features 3 times bytes"):
                writer.write(0, data, ok, keys)  # type: ignore[arg-type]
    numbers = StreamWriter(tmp_path, SPLIT, "numbers", dim=4, plan="p")
    with numbers, pytest.raises(CacheError, match=r"expected features \(3, 4\)"):
        numbers.write(0, [b"1", b"2", b"3"], ok, keys)


def test_a_stream_of_bytes_stays_one(own: Path) -> None:
    with pytest.raises(CacheError, match="expected bytes, found 4 numbers of float16"):
        writer_of(own, dim=4, dtype="float16").__enter__()
    for options in ({"dim": 3}, {"dtype": "float64"}, {"dim": 0, "dtype": "float16"}):
        with pytest.raises(CacheError, match="or 0 of bytes"):
            writer_of(own, **options)


@pytest.mark.parametrize("name", ["crops_at", "crops_ok", "crops_key"])
def test_no_stream_is_called_like_an_array_of_another(tmp_path: Path, name: str) -> None:
    with pytest.raises(CacheError, match="no stream's name"):
        StreamWriter(tmp_path, SPLIT, name, dim=0, dtype="bytes", plan="p")


def test_bytes_are_carried_over_by_their_keys(own: Path, toy: Any) -> None:
    toy.write(own, [toy.video("b", [7, 20], seed=3)], drop=["b"])  # b was in rows 10-37, comes anew from 160
    with writer_of(own) as writer:
        assert writer.pending == [5]
        keys = toy.keys(np.arange(160, 187))
        keys[:-1] = toy.keys(np.array([40, *range(11, 36)]))  # 40 could not be decoded, 186 is new
        mask, blobs, ok = writer.carried(keys)
        assert mask.tolist() == [True] * 26 + [False]
        assert ok.tolist() == [0] + [1] * 25 + [0]
        assert blobs == [b"", *toy.blobs(range(11, 36)), b""]
        writer.write(5, blobs, ok, keys)
        writer.commit({})
    split = cache.open(own)[SPLIT]
    assert split.blobs("crops", [161, 185]) == toy.blobs([11, 35])
    assert cache.verify(own).ok


def test_rows_of_replaced_tracks_take_no_bytes(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write(tmp_path, [], drop=["a"])
    toy.write_blobs(tmp_path)
    group: Any = zarr.open_group(tmp_path / FEATURES, mode="r")
    assert (group["crops_at"][:10] == -1).all()
    assert group["crops_at"][10].tolist() == [0, len(toy.blobs([10])[0])]
    with pytest.raises(CacheError, match="row 9: it is of no track"):
        cache.open(tmp_path)[SPLIT].blobs("crops", [10, 9])
    assert cache.verify(tmp_path).ok


def test_a_shard_of_which_no_picture_was_readable_has_no_bytes_at_all(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write_blobs(tmp_path, bad_rows=range(32, 64))
    assert cache.verify(tmp_path).ok
    assert cache.verify(tmp_path, fast=True).ok
    split = cache.open(tmp_path)[SPLIT]
    assert split.blobs("crops", [31, 64]) == toy.blobs([31, 64])
    with pytest.raises(CacheError, match="row 40: its picture was not readable"):
        split.blobs("crops", [40])


def test_one_shard_is_held_once_while_it_is_written_and_read(tmp_path: Path, toy: Any) -> None:
    entry, tracks = toy.video("a", [512])
    with SplitWriter(tmp_path, SPLIT, columns=toy.columns, plan="p", rows_per_shard=512, rows_per_chunk=64) as split:
        split.begin()
        split.append(entry, tracks)
        split.commit({})
    blobs = [np.random.default_rng(row).bytes(50_000) for row in range(512)]  # 25.6 MB
    tracemalloc.start()
    with writer_of(tmp_path) as writer:
        writer.write(0, blobs, np.ones(512), toy.keys(np.arange(512)))
        _, while_written = tracemalloc.get_traced_memory()
        writer.commit({})
    opened = cache.open(tmp_path)[SPLIT]
    tracemalloc.reset_peak()
    found = opened.blobs("crops", np.arange(512))
    _, while_read = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == blobs
    assert while_written < 5e6
    assert while_read < 25.6e6 + 10e6


# ------------------------------------------------------------------------------------- checked, mended, cleared up


@pytest.mark.parametrize("array", ["crops/c/1", "crops_at/c/1/0", "crops_ok/c/1", "crops_key/c/1/0"])
def test_a_flipped_bit_is_found_told_and_mended_by_extracting_the_shard_anew(own: Path, toy: Any, array: str) -> None:
    before = toy.tree(own)
    flip(own / FEATURES / array, 100)
    report = cache.verify(own)
    assert [(found.stream, found.array, found.shard) for found in report.damaged] == [
        ("crops", array.partition("/")[0], 1)
    ]
    if array.startswith(("crops/", "crops_at/")):
        with pytest.raises(CacheError, match="checksum"):
            cache.open(own)[SPLIT].blobs("crops", [33])
    done = cache.repair(own, report)
    assert done.streams == {(SPLIT, "crops"): (1,)}
    assert sorted(done.quarantined) == [
        f"{FEATURES}/{file}" for file in ("crops/c/1", "crops_at/c/1/0", "crops_key/c/1/0", "crops_ok/c/1")
    ]
    assert cache.verify(own).ok
    toy.write_blobs(own, bad_rows=[3, 40])
    shutil.rmtree(own / ".quarantine")
    assert toy.tree(own) == before


def test_a_missing_or_short_shard_is_found_fast(own: Path) -> None:
    (own / FEATURES / "crops/c/0").unlink()
    with (own / FEATURES / "crops/c/2").open("r+b") as file:
        file.truncate(1000)
    report = cache.verify(own, fast=True)
    assert [(found.array, found.shard) for found in report.damaged] == [("crops", 0), ("crops", 2)]
    for row, told in ((2, "no file"), (70, "1000 bytes")):
        with pytest.raises(CacheError, match=told):
            cache.open(own)[SPLIT].blobs("crops", [row])


def test_an_interrupted_verification_goes_on_without_what_it_has_checked(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(done: int, total: int, speed: str) -> None:
        if done == total - 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        cache.verify(own, progress=interrupt)
    report = cache.verify(own)
    assert report.ok
    assert report.carried > 50


def test_places_that_do_not_fit_the_bytes_are_damage_though_every_checksum_is_right(
    own: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.forget(own, SPLIT, "crops", [1, 2, 3])
    spoilt = {1: lambda at: at + 1, 2: lambda at: np.where(at < 0, 0, at[::-1]), 3: lambda at: np.where(at < 0, at, 7)}
    with writer_of(own) as writer:
        checked = writer.shards.checked

        def spoil(shard: int, *given: Any) -> Any:
            arrays = checked(shard, *given)
            return {**arrays, "crops_at": spoilt[shard](arrays["crops_at"])}

        monkeypatch.setattr(writer.shards, "checked", spoil)
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            writer.write(shard, toy.blobs(rows), np.ones(len(rows)), toy.keys(rows))
        writer.commit({})
    report = cache.verify(own)
    assert [(found.array, found.shard) for found in report.damaged] == [("crops_at", shard) for shard in (1, 2, 3)]
    assert cache.repair(own, report).streams == {(SPLIT, "crops"): (1, 2, 3)}
    assert cache.verify(own).ok


@pytest.mark.parametrize("stop", [1 << 45, -(1 << 45)])
def test_places_decide_neither_how_much_is_read_nor_whose_bytes(
    own: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    cache.forget(own, SPLIT, "crops", [1])
    with writer_of(own) as writer:
        checked = writer.shards.checked

        def spoil(shard: int, *given: Any) -> Any:
            arrays = checked(shard, *given)
            return {**arrays, "crops_at": np.where(arrays["crops_at"] < 0, -1, arrays["crops_at"] + [0, stop])}

        monkeypatch.setattr(writer.shards, "checked", spoil)
        rows = np.asarray(writer.rows(1))
        writer.write(1, toy.blobs(rows), np.ones(len(rows)), toy.keys(rows))
        writer.commit({})
    live = np.flatnonzero(cache.open(own)[SPLIT].track_of(rows) >= 0)
    with pytest.raises(CacheError, match=f"crops_at: expected bytes of row {rows[live[0]]} within {32 * ROOM} to"):
        cache.open(own)[SPLIT].blobs("crops", rows[live])
    toy.write(own, [], drop=[cache.open(own)[SPLIT].videos.names[0]])  # else nothing is carried over
    with writer_of(own) as writer, pytest.raises(CacheError, match="expected bytes of row"):
        writer.carried(toy.keys(rows[live]))


def test_small_files_come_back_from_their_copies(own: Path, toy: Any) -> None:
    before = toy.tree(own)
    (own / FEATURES / "crops_at/zarr.json").write_text("{}")
    (own / FEATURES / "crops/zarr.json").unlink()
    flip(own / FEATURES / "crops/manifest.json", 200)
    report = cache.verify(own)
    assert not report.ok
    cache.repair(own, report)
    assert toy.tree(own) == before


def test_every_array_of_it_is_known_by_name_and_a_stranger_is_not(own: Path) -> None:
    assert cache.verify(own).notes == ()
    (own / FEATURES / "crops_at/c/9").mkdir()
    (own / FEATURES / "crops_at/c/9/0").write_bytes(b"left")
    (own / FEATURES / "crops/c/9").write_bytes(b"left")
    notes = cache.verify(own).notes
    assert len(notes) == 2
    assert all("shards [9] are named by no manifest" in note for note in notes)
    assert sorted(cache.gc(own).removed) == [f"{FEATURES}/crops/c/9", f"{FEATURES}/crops_at/c/9"]
    assert cache.verify(own).notes == ()


def test_what_a_killed_first_run_has_left_is_cleared_up(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    before = toy.tree(tmp_path)
    with writer_of(tmp_path) as writer:
        rows = np.asarray(writer.rows(1))
        writer.write(1, toy.blobs(rows), np.ones(len(rows)), toy.keys(rows))
    notes = cache.verify(tmp_path).notes
    assert sum("shards [1] are named by no manifest" in note for note in notes) == 4
    cache.gc(tmp_path, unfinished=True)
    assert toy.tree(tmp_path) == before
    assert cache.verify(tmp_path).notes == ()


def test_arrays_of_a_stream_whose_folder_is_gone_are_left_overs(own: Path) -> None:
    shutil.rmtree(own / FEATURES / "crops")
    assert sorted(cache.gc(own).removed) == [f"{FEATURES}/crops_{part}" for part in ("at", "key", "ok")]


def test_a_discarded_stream_leaves_nothing(own: Path) -> None:
    cache.discard(own, SPLIT, "crops")
    assert sorted(path.name for path in (own / FEATURES).iterdir()) == ["zarr.json"]


def test_bytes_of_other_rows_under_the_same_numbers_are_never_taken_for_these(own: Path, toy: Any) -> None:
    for entry in (".copy", "manifest.json"):
        path = own / SPLIT / entry
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    toy.write(own, toy.videos(seed=9))
    split = cache.open(own)[SPLIT]
    assert split.stream_shards("crops") == []
    with pytest.raises(CacheError, match="row 0: the stream does not have it, or not yet"):
        split.blobs("crops", [0])
    with writer_of(own) as writer:
        assert writer.pending == [0, 1, 2, 3, 4]
        assert not writer.carried(toy.keys(np.arange(10)))[0].any()


def test_a_stream_made_anew_under_an_open_split_is_noticed(own: Path, toy: Any) -> None:
    opened = cache.open(own)[SPLIT]
    opened.blobs("crops", [0, 2])
    cache.discard(own, SPLIT, "crops")
    toy.write_blobs(own, bad_rows=[5], plan="quality 90")
    with pytest.raises(CacheChanged):
        opened.blobs("crops", [40])


def test_compaction_takes_the_bytes_along(own: Path, toy: Any) -> None:
    toy.write(own, [toy.video("b", [40], seed=5)], drop=["b", "f"], plan="second")
    toy.write_blobs(own)
    old = cache.open(own)[SPLIT]
    before = {track.name: _of_track(old, track) for track in old.tracks}
    cache.compact(own, SPLIT)
    new = cache.open(own)[SPLIT]
    assert new.manifest["extent"] == new.manifest["rows"]
    assert {track.name: _of_track(new, track) for track in new.tracks} == before
    report = cache.verify(own)
    assert report.ok
    assert report.notes == ()


def _of_track(split: cache.Split, track: cache.TrackRecord) -> list[bytes | None]:
    ok = split.rows("features/crops_ok", track.start, track.stop) == 1
    rows = np.arange(track.start, track.stop)
    found = iter(split.blobs("crops", rows[ok]))
    return [next(found) if there else None for there in ok]


# ------------------------------------------------------------------------------------------- any bytes, any moment


@pytest.fixture(scope="module")
def tracks_only(tmp_path_factory: pytest.TempPathFactory, toy: Any) -> Path:
    """Three videos in 23 rows, of which one came anew: rows 5 to 12 are of a replaced track."""
    root = tmp_path_factory.mktemp("tracks") / "cache"
    sizes: Any = {"columns": ("bbox",), "rows_per_shard": 8, "rows_per_chunk": 4}
    for drop, videos in (((), {"a": [5], "b": [8], "c": [10]}), (("b",), {"b": [6]})):
        with SplitWriter(root, SPLIT, plan=f"drop {drop}", **sizes) as writer:
            writer.begin(drop)
            for name, lengths in videos.items():
                entry, tracks = toy.video(name, lengths)
                narrow = [_narrow(track) for track in tracks]
                writer.append(entry, narrow)
            writer.commit({})
    return root


def _narrow(track: cache.TrackRows) -> cache.TrackRows:
    columns = {name: track.columns[name] for name in ("frame_index", "bbox")}
    return cache.TrackRows(
        name=track.name, video=track.video, step=1, fps=25.0, crop_scale=1.3, gender="neutral", columns=columns
    )


def _bytes(size: int) -> bytes:
    return (np.arange(size) * 7 % 251).astype(np.uint8).tobytes()


BLOBS = st.none() | st.binary(max_size=12) | st.sampled_from([1000, ROOM - 1, ROOM, ROOM + 1]).map(_bytes)


@settings(max_examples=20, deadline=None)
@given(given_blobs=st.lists(BLOBS, min_size=32, max_size=32), seed=st.integers(0, 99))
def test_any_bytes_come_back_from_the_writer_the_verification_and_the_compaction(
    tracks_only: Path, tmp_path_factory: pytest.TempPathFactory, given_blobs: list[bytes | None], seed: int
) -> None:
    root = tmp_path_factory.mktemp("any") / "cache"
    shutil.copytree(tracks_only, root)
    with writer_of(root) as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            mine = [given_blobs[row] for row in rows]
            ok = np.array([blob is not None for blob in mine])
            keys = np.stack([rows, rows], axis=1).astype(np.uint64)
            writer.write(shard, [blob or b"" for blob in mine], ok, keys)
        writer.commit({})
    assert cache.verify(root).ok
    split = cache.open(root)[SPLIT]
    expected = {t.name: given_blobs[t.start : t.stop] for t in split.tracks}
    held = [r for t in split.tracks for r in range(t.start, t.stop) if given_blobs[r] is not None]
    mixed = np.random.default_rng(seed).permutation(np.array(held, np.int64))
    assert split.blobs("crops", mixed) == [given_blobs[row] for row in mixed]
    assert {track.name: _of_track(split, track) for track in split.tracks} == expected
    cache.compact(root, SPLIT)
    compacted = cache.open(root)[SPLIT]
    assert {track.name: _of_track(compacted, track) for track in compacted.tracks} == expected
    assert cache.verify(root).problems == ()
    shutil.rmtree(root.parent)


def _extract(root: Path, toy: Any, *, staged: bool) -> None:
    """The bytes of every row that has none, one shard directly, or each by stage and accept."""
    with writer_of(root) as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            given: Any = (shard, [b"%d" % row for row in rows], rows % 5 > 0, toy.keys(rows))
            if staged:
                writer.accept(writer.shards.stage(*given))
            else:
                writer.write(*given)
        writer.commit({})


def _seen(root: Path) -> list[list[bytes | None]] | None:
    split = cache.open(root)[SPLIT]
    return [_of_track(split, track) for track in split.tracks] if split.streams else None


@pytest.mark.parametrize("staged", [False, True])
def test_killed_or_cut_off_at_any_moment_the_next_run_ends_with_the_same_bytes(
    tracks_only: Path, tmp_path: Path, toy: Any, staged: bool
) -> None:
    top, again = tmp_path / "top", tmp_path / "again"
    top.mkdir()
    again.mkdir()
    recorder = Recorder(top)
    with watched(recorder):
        _convert_again(top / "cache", toy)
        converted = len(recorder.calls)
        _extract(top / "cache", toy, staged=staged)
    expected, whole = toy.tree(top / "cache"), _seen(top / "cache")
    model, states = Model(), []
    for number, call in enumerate(recorder.calls, start=1):
        model.do(*call)
        if number < converted:
            continue
        killed = model.live()
        disks = [killed, model.lost()] if number % 3 == 0 else [killed]
        for disk in disks:
            put_back(disk, again)
            states.append(_seen(again / "cache"))
            if number % 3:
                continue
            assert cache.verify(again / "cache").problems == (), call[:2]
            _extract(again / "cache", toy, staged=staged)
            assert toy.tree(again / "cache") == expected, call[:2]
            writing = again / "cache" / FEATURES / "crops/.writing"
            assert not writing.exists(), call[:2]
    assert on_disk(top) == model.live()
    assert {state is None for state in states} == {True, False}
    assert all(state in (None, whole) for state in states)


def _convert_again(root: Path, toy: Any) -> None:
    with SplitWriter(root, SPLIT, columns=["bbox"], plan="p", rows_per_shard=8, rows_per_chunk=4) as writer:
        writer.begin()
        entry, tracks = toy.video("a", [5, 6])
        writer.append(entry, [_narrow(track) for track in tracks])
        writer.commit({})


def test_the_column_of_bytes_is_cut_as_documented() -> None:
    columns = layout.stream_columns("crops", 0, "bytes")
    assert list(columns) == ["crops", "crops_at", "crops_ok", "crops_key"] == list(layout.stream_arrays("crops"))
    assert columns["crops"].cut(layout.Geometry()) == layout.Geometry(1 << 30, 1 << 17)
    assert columns["crops_at"].cut(layout.Geometry()) == layout.Geometry()
