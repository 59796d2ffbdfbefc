"""What a batch holds, and what makes reading refuse."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

import cache
from cache import CacheChanged, CacheError, SplitWriter, TrackRows, VideoEntry, labels
from cache.direct import DirectRows, recognise
from cache.float16 import widen
from cache.stores import store_at
from cache.zarr_rows import ZarrRows, open_rows


def split_of(root: Path, columns: dict[str, Any], crop_scale: float = 1.3) -> cache.Split:
    n_rows = len(next(iter(columns.values())))
    columns = {"frame_index": np.arange(n_rows), **columns}
    track = TrackRows(name="a/0", video="a", step=1, fps=25, crop_scale=crop_scale, columns=columns)
    with SplitWriter(root, "toy/train", columns=columns, plan="p", rows_per_shard=32, rows_per_chunk=8) as writer:
        writer.begin()
        writer.append(VideoEntry(name="a"), [track])
        writer.commit({})
    return cache.open(root)["toy/train"]


class TestLabels:
    def test_a_joint_on_the_crop_edge_lands_on_one(self, tmp_path: Path) -> None:
        # box centre (100, 200), side 50, crop scale 1.2: the crop is 60 px wide, from 70 to 130 and from 170 to 230
        kp_2d = np.zeros((1, 49, 3), np.float32)
        kp_2d[0, :4] = [130, 170, 0.5], [100, 200, 1], [115, 185, 0.25], [70, 200, 0]
        split = split_of(tmp_path, {"kp_2d": kp_2d, "bbox": np.array([[100, 200, 50, 50]])}, crop_scale=1.2)
        found = split.read([[0, 1]], stream=None)["kp_2d"][0, 0]
        expected = np.array([[1, -1, 0.5], [0, 0, 1], [0.5, -0.5, 0.25], [0, 0, 0]])
        np.testing.assert_allclose(found[:4], expected, atol=1e-6)
        assert (found[4:] == 0).all()

    def test_each_window_takes_its_own_tracks_crop_scale(self, tmp_path: Path, toy: Any) -> None:
        entry, (first, second) = toy.video("a", [4, 4])
        second = replace(second, crop_scale=2.6, columns=first.columns)
        toy.write(tmp_path, [(entry, [first, second])])
        kp_2d = cache.open(tmp_path)["toy/train"].read([[0, 4], [4, 8]], stream=None)["kp_2d"]
        np.testing.assert_allclose(kp_2d[0, ..., :2], 2 * kp_2d[1, ..., :2], rtol=1e-6)

    def test_unknown_is_zero_with_weight_zero_and_never_nan(self, tmp_path: Path, toy: Any) -> None:
        entry, (track,) = toy.video("a", [4])
        bare = replace(track, columns={"frame_index": np.arange(4), "bbox": track.columns["bbox"]})
        toy.write(tmp_path, [(entry, [bare])])
        batch = cache.open(tmp_path)["toy/train"].read([[0, 4]], stream=None)
        assert {name: array.shape for name, array in batch.items()} == {
            "kp_2d": (1, 4, 49, 3),
            "kp_3d": (1, 4, 49, 3),
            "theta": (1, 4, 85),
            "w_3d": (1, 4),
            "w_smpl": (1, 4),
            "valid": (1, 4),
        }
        for name in ("kp_2d", "kp_3d", "w_3d", "w_smpl"):
            assert (batch[name] == 0).all(), name
        assert (batch["theta"] == np.eye(85)[0]).all()
        assert (batch["valid"] == 1).all()

    def test_a_split_of_poses_alone_gives_theta(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        pose, betas = rng.normal(size=(3, 72)).astype("f4"), rng.normal(size=(3, 10)).astype("f4")
        split = split_of(tmp_path, {"pose": pose, "betas": betas, "has_smpl": np.array([1, 0, 1], bool)})
        batch = split.read([[0, 3]], stream=None)
        np.testing.assert_array_equal(batch["w_smpl"], [[1, 0, 1]])
        np.testing.assert_array_equal(batch["theta"][0, 0], np.concatenate([[1, 0, 0], pose[0], betas[0]]))
        np.testing.assert_array_equal(batch["theta"][0, 1], np.eye(85)[0])
        assert (batch["kp_2d"] == 0).all()
        assert (batch["w_3d"] == 0).all()

    def test_3d_counts_where_all_fourteen_common_joints_are_known(self, tmp_path: Path) -> None:
        kp_3d = np.ones((4, 49, 4), np.float32)
        kp_3d[1, 38, 3] = 0  # the last common joint
        kp_3d[2, 39:, 3] = 0  # others do not matter
        kp_3d[2, :25, 3] = 0
        split = split_of(tmp_path, {"kp_3d": kp_3d, "has_3d": np.array([1, 1, 1, 0], bool)})
        batch = split.read([[0, 4]], stream=None)
        assert batch["w_3d"].tolist() == [[1, 0, 1, 0]]
        assert batch["kp_3d"].shape == (1, 4, 49, 3)
        assert (batch["kp_3d"][0, 0] == 1).all()
        assert (batch["kp_3d"][0, 2, 39:] == 0).all()
        assert (batch["kp_3d"][0, 3] == 0).all()

    def test_evaluation_splits_give_fourteen_joints(self, tmp_path: Path) -> None:
        joints = np.arange(3 * 42, dtype=np.float32).reshape(3, 14, 3)
        joints[2] = np.nan
        split = split_of(tmp_path, {"kp_3d_eval": joints, "valid": np.array([1, 0, 1], bool)})
        batch = split.read([[0, 3]], stream=None)
        np.testing.assert_array_equal(batch["kp_3d"][0, :2], joints[:2])
        assert (batch["kp_3d"][0, 2] == 0).all()
        assert batch["w_3d"].tolist() == [[1, 1, 0]]
        assert batch["valid"].tolist() == [[1, 0, 1]]

    def test_a_box_without_size_gives_no_keypoints(self) -> None:
        kp_2d = np.ones((1, 1, 2, 3), np.float32)
        found = np.full_like(kp_2d, 7)
        labels.in_crop(kp_2d, np.array([[[1, 1, 0, 0]]], np.float32), np.array([1.3]), found)
        assert (found == 0).all()


def plainly(columns: dict[str, Any], name: str, scale: float) -> np.ndarray:
    """One label field (n, ...) of n rows, written down as DESIGN.md defines it, without regard to speed."""
    n_rows = len(columns["frame_index"])
    zero = np.float32(0)
    with np.errstate(all="ignore"):
        if name == "kp_2d":
            if "kp_2d" not in columns or "bbox" not in columns:
                return np.zeros((n_rows, 49, 3), "f4")
            kp_2d, bbox = columns["kp_2d"], columns["bbox"][:, None]
            place = 2 * (kp_2d[..., :2] - bbox[..., :2]) / (bbox[..., 2:] * np.float32(scale))
            there = (kp_2d[..., 2:] > 0) & np.isfinite(place).all(axis=-1, keepdims=True)
            return np.where(there, np.concatenate([place, kp_2d[..., 2:]], axis=-1), zero)
        if name == "kp_3d" and "kp_3d_eval" in columns:
            return np.where(np.isfinite(columns["kp_3d_eval"]), columns["kp_3d_eval"], zero)
        has_3d = columns.get("has_3d", np.zeros(n_rows, "u1"))
        has_smpl = columns.get("has_smpl", np.zeros(n_rows, "u1"))
        kp_3d = columns.get("kp_3d", np.zeros((n_rows, 49, 4), "f4"))
        known = (kp_3d[..., 3] > 0) & (has_3d == 1)[:, None]
        if name == "kp_3d":
            return np.where(known[..., None], kp_3d[..., :3], zero)
        if name == "w_3d" and "kp_3d_eval" in columns:
            flag = columns["has_3d"] != 0 if "has_3d" in columns else True
            return (np.isfinite(columns["kp_3d_eval"]).all(axis=(1, 2)) & flag).astype("f4")
        if name == "w_3d":
            return known[:, 25:39].all(axis=-1).astype("f4")
        pose, betas = (columns.get(key, np.full((n_rows, k), np.nan, "f4")) for key, k in (("pose", 72), ("betas", 10)))
        smpl = np.concatenate([pose, betas], axis=1)
        known_smpl = np.isfinite(smpl).all(axis=1) & (has_smpl == 1)
        if name == "theta":
            camera = np.tile(np.array([1, 0, 0], "f4"), (n_rows, 1))
            return np.concatenate([camera, np.where(known_smpl[:, None], smpl, zero)], axis=1)
        if name == "w_smpl":
            return known_smpl.astype("f4")
        return (columns["valid"] != 0).astype("f4") if "valid" in columns else np.ones(n_rows, "f4")


HOSTILE = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -3e38, 3e38, 1.0, -2.5], np.float32)


def hostile_columns(names: frozenset[str], rng: np.random.Generator, n_rows: int) -> dict[str, Any]:
    """Columns in which many numbers are NaN, infinite, zeros of either sign, tiny or huge."""
    columns: dict[str, Any] = {"frame_index": np.arange(n_rows)}
    for name in sorted(names - {"frame_index"}):
        spec = cache.COLUMNS[name]
        shape = (n_rows, *spec.trailing)
        if spec.dtype.kind == "f":
            usual = rng.normal(size=shape).astype("f4")
            some = rng.random((n_rows, *(1 for _ in spec.trailing))) < 0.5  # rows that hold any at all
            columns[name] = np.where(some & (rng.random(shape) < 0.1), rng.choice(HOSTILE, shape), usual)
        else:
            columns[name] = (rng.random(n_rows) < 0.7).astype("u1")
    return columns


@settings(max_examples=25, deadline=None)
@given(
    names=st.frozensets(st.sampled_from(["kp_2d", "bbox", "kp_3d", "kp_3d_eval", "pose", "betas", "valid"])),
    seed=st.integers(0, 2**32 - 1),
    given_out=st.booleans(),
)
def test_labels_are_to_the_bit_what_their_definition_says(
    tmp_path_factory: pytest.TempPathFactory, names: frozenset[str], seed: int, given_out: bool
) -> None:
    flags = {
        flag for label, flag in (("kp_3d", "has_3d"), ("pose", "has_smpl"), ("betas", "has_smpl")) if label in names
    }
    columns = hostile_columns(names | flags, np.random.default_rng(seed), n_rows=40)
    split = split_of(tmp_path_factory.mktemp("labels"), columns, crop_scale=1.1)
    windows = [[0, 9], [31, 40], [5, 14], [5, 14]]  # shards of 32 rows and chunks of 8 are crossed
    n_3d = 14 if "kp_3d_eval" in names else 49
    shapes = {"kp_2d": (49, 3), "kp_3d": (n_3d, 3), "theta": (85,), "w_3d": (), "w_smpl": (), "valid": ()}
    out = {name: np.full((4, 9, *shape), np.nan, "f4") for name, shape in shapes.items()} if given_out else None
    batch = split.read(windows, stream=None, out=out)
    for name in shapes:
        field = plainly(columns, name, 1.1)
        expected = np.stack([field[start:stop] for start, stop in windows])
        assert batch[name].dtype == expected.dtype == np.float32
        assert batch[name].tobytes() == expected.tobytes(), name
        alone = split.read(windows, stream=None, fields=[name])[name]
        assert alone.tobytes() == expected.tobytes(), name


class TestBatches:
    @pytest.fixture(scope="class")
    @classmethod
    def split(cls, tmp_path_factory: pytest.TempPathFactory, toy: Any) -> cache.Split:
        root = tmp_path_factory.mktemp("cache")
        toy.write(root, toy.videos())
        toy.write_stream(root, bad_rows=[20], shards=[0, 1])
        return cache.open(root)["toy/train"]

    def test_features_come_as_asked_for(self, split: cache.Split, toy: Any) -> None:
        windows = split.windows(8, 8, "resnet50")
        for dtype in ("float32", "float16", "float64"):
            features = split.read(windows, "resnet50", fields=["features"], dtype=dtype)["features"]
            assert features.dtype == dtype
            rows = windows[:, :1] + np.arange(8)
            np.testing.assert_array_equal(features, toy.features(rows.ravel(), 4).reshape(len(windows), 8, 4))

    def test_a_raw_column_comes_as_it_is_stored(self, split: cache.Split) -> None:
        batch = split.read(np.array([[40, 48]]), fields=["bbox", "frame_index"])
        assert list(batch) == ["bbox", "frame_index"]
        np.testing.assert_array_equal(batch["bbox"][0], split.column("bbox")[40:48])
        assert batch["frame_index"].tolist() == [list(range(3, 11))]

    def test_buffers_are_filled_and_returned(self, split: cache.Split) -> None:
        windows = split.windows(8, 8, "resnet50")
        fresh = split.read(windows, "resnet50")
        out = {name: np.full_like(array, 7) for name, array in fresh.items()}
        batch = split.read(windows, "resnet50", out=out)
        for name, array in fresh.items():
            assert batch[name] is out[name]
            np.testing.assert_array_equal(out[name], array)

    def test_buffers_that_do_not_fit_are_refused(self, split: cache.Split) -> None:
        for buffer in (np.zeros((1, 4), "f4"), np.zeros((1, 8), "f8")):
            with pytest.raises(ValueError, match="w_3d"):
                split.read([[40, 48]], fields=["w_3d"], out={"w_3d": buffer})
        with pytest.raises(ValueError, match="kp_2d"):
            split.read([[40, 48]], fields=["w_3d"], out={"kp_2d": np.zeros((1, 8, 49, 3), "f4")})

    def test_no_windows_give_empty_arrays(self, split: cache.Split) -> None:
        batch = split.read(np.zeros((0, 2), np.int64), "resnet50")
        assert batch["features"].shape == (0, 0, 4)
        assert batch["kp_2d"].shape == (0, 0, 49, 3)

    def test_rows_that_the_stream_does_not_have_are_refused(self, split: cache.Split) -> None:
        with pytest.raises(CacheError, match="row 20"):
            split.read([[18, 26]], "resnet50")
        with pytest.raises(CacheError, match="shard 2"):
            split.read([[60, 68]], "resnet50")
        assert split.read([[18, 26], [60, 68]], stream=None)["kp_2d"].shape == (2, 8, 49, 3)

    @pytest.mark.parametrize("window", [[8, 12], [143, 147], [-1, 3], [500, 504]])
    def test_rows_outside_one_track_are_refused(self, split: cache.Split, window: list[int]) -> None:
        with pytest.raises(CacheError, match="no committed track"):
            split.read([window])

    @pytest.mark.parametrize("windows", [[[0, 4], [4, 9]], [[4, 4]], [0, 4], [[0.0, 4.0]]])
    def test_windows_of_the_wrong_form_are_refused(self, split: cache.Split, windows: Any) -> None:
        with pytest.raises(ValueError, match="windows"):
            split.read(windows)

    def test_what_is_not_there_is_named(self, split: cache.Split) -> None:
        with pytest.raises(CacheError, match=r"no feature stream 'hmr'; there are: resnet50"):
            split.windows(4, 4, "hmr")
        with pytest.raises(CacheError, match="no field or column 'trans'"):
            split.read([[40, 48]], fields=["trans"])
        with pytest.raises(ValueError, match="without a stream"):
            split.read([[40, 48]], stream=None, fields=["features"])
        with pytest.raises(CacheError, match="no column 'nose'"):
            split.column("nose")

    def test_columns_and_streams_come_lazily_as_zarr_arrays(self, split: cache.Split) -> None:
        assert isinstance(split.column("kp_2d"), zarr.Array)
        assert split.column("features/resnet50").shape == (143, 4)
        assert np.asarray(split.column("features/resnet50_ok")[18:22]).tolist() == [1, 1, 0, 1]
        assert np.isnan(split.column("features/resnet50")[64:]).all()

    def test_a_split_can_be_pickled_into_workers(self, split: cache.Split) -> None:
        copy = pickle.loads(pickle.dumps(split))
        np.testing.assert_array_equal(copy.windows(8, 3), split.windows(8, 3))


def test_flags_are_the_same_whether_or_not_their_chunks_are_known_to_be_all_alike(tmp_path: Path) -> None:
    flags = np.array([1] * 8 + [0] * 8 + [0, 1, 1, 1, 1, 1, 1, 1] + [1, 0, 0, 0, 0, 0, 0, 0] + [1] * 18, bool)
    split = split_of(tmp_path, {"valid": flags})  # chunks of 8: all 1, all 0, two mixed ones, two of 1
    starts = np.arange(len(flags) - 4)
    windows = np.stack([starts, starts + 5], axis=1)
    expected = np.stack([flags[start : start + 5] for start in starts]).astype(np.uint8)
    for _ in range(2):  # first from the files; then what is known of the chunks is used
        for window, row in zip(windows, expected, strict=True):
            assert split.read([window], stream=None, fields=["valid"])["valid"].tolist() == [row.tolist()]
        for some in (slice(0, 4), slice(4, 12), slice(0, 12, 8), slice(None)):
            assert (split.read(windows[some], stream=None, fields=["valid"])["valid"] == expected[some]).all()


class TestNobodyChangesTheCache:
    """What comes out of a split is the reader's own, or cannot be written to."""

    @pytest.fixture
    def split(self, tmp_path: Path, toy: Any) -> cache.Split:
        toy.write(tmp_path, toy.videos())
        toy.write_stream(tmp_path)
        return cache.open(tmp_path)["toy/train"]

    def test_tables_refuse_to_be_written_to(self, split: cache.Split) -> None:
        for name in ("start", "stop", "step", "fps", "crop_scale", "video"):
            table = getattr(split.tracks, name)
            with pytest.raises(ValueError, match="read-only"):
                table[0] = 7
            with pytest.raises(ValueError, match="WRITEABLE"):
                table.flags.writeable = True

    def test_columns_refuse_to_be_written_to(self, split: cache.Split, toy: Any, tmp_path: Path) -> None:
        before = toy.tree(tmp_path)
        for name in ("kp_2d", "valid", "features/resnet50"):
            column = split.column(name)
            with pytest.raises(ValueError, match="read-only"):
                column[:4] = 0
        assert toy.tree(tmp_path) == before

    def test_what_was_read_is_the_readers_own(self, split: cache.Split, toy: Any, tmp_path: Path) -> None:
        before = toy.tree(tmp_path)
        windows = split.windows(8, 8, "resnet50")
        everything = ["features", *labels.FIELDS, *split.columns]
        first = split.read(windows, fields=everything, dtype="float16")
        kept = {name: array.copy() for name, array in first.items()}
        rows = split.rows("valid", 0, 10)
        for array in (*first.values(), rows, split.windows(8, 8)):
            array[...] = 3
        again = split.read(windows, fields=everything, dtype="float16")
        for name, array in again.items():
            np.testing.assert_array_equal(array, kept[name])
        assert toy.tree(tmp_path) == before

    def test_the_maps_themselves_are_read_only(self, split: cache.Split) -> None:
        split.read([[40, 48]], fields=["features", "bbox"], dtype="float16")
        reader = split._column_rows("bbox")
        assert isinstance(reader, DirectRows)
        (opened,) = reader._held.values()
        assert opened.data.readonly
        with pytest.raises(TypeError):
            opened.data[0] = 1
        with pytest.raises(TypeError):
            opened._map[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            opened.chunk(1)[0] = 1


class TestOpening:
    def test_no_cache_is_a_clear_error(self, tmp_path: Path) -> None:
        with pytest.raises(CacheError, match="no such folder"):
            cache.open(tmp_path / "nowhere")
        with pytest.raises(CacheError, match=r"no zarr\.json"):
            cache.open(tmp_path)

    def test_an_unknown_split_is_named_with_those_that_there_are(self, tmp_path: Path, toy: Any) -> None:
        toy.write(tmp_path, [toy.video("a", [3])])
        opened = cache.open(tmp_path)
        assert opened.splits == ("toy/train",)
        for name in ("toy/test", "../x", "toy"):
            with pytest.raises(KeyError, match="there are: toy/train"):
                opened[name]
            assert name not in opened
            assert opened.get(name) is None

    def test_a_changed_manifest_or_table_is_no_cache(self, tmp_path: Path, toy: Any) -> None:
        toy.write(tmp_path, [toy.video("a", [3])])
        for name in ("manifest.json", "track_stop/c/0", "bbox/zarr.json"):
            file = tmp_path / "toy/train" / name
            whole = file.read_bytes()
            file.write_bytes(whole.replace(b"3", b"4").replace(b"\3", b"\4"))
            if name != "manifest.json":
                shutil.move(tmp_path / "toy/train/.copy", tmp_path / "copy")
            with pytest.raises(CacheError, match="digest"):
                cache.open(tmp_path)["toy/train"]
            file.unlink()
            if name != "manifest.json":
                with pytest.raises(CacheError, match="missing"):
                    cache.open(tmp_path)["toy/train"]
                shutil.move(tmp_path / "copy", tmp_path / "toy/train/.copy")
            file.write_bytes(whole)
        assert len(cache.open(tmp_path)["toy/train"].tracks) == 1

    @pytest.mark.parametrize("name", ["track_stop/c/0", "bbox/zarr.json"])
    def test_a_damaged_table_is_read_from_its_copy(self, name: str, tmp_path: Path, toy: Any) -> None:
        toy.write(tmp_path, [toy.video("a", [3])])
        before = list(cache.open(tmp_path)["toy/train"].tracks)
        file = tmp_path / "toy/train" / name
        for damage in (b"", b"other bytes"):
            file.write_bytes(damage)
            split = cache.open(tmp_path)["toy/train"]
            assert list(split.tracks) == before
            assert split.column("bbox").shape == (3, 4)
            assert any(name in problem for problem in cache.verify(tmp_path).problems)

    def test_a_manifest_of_another_format_says_so(self, tmp_path: Path, toy: Any) -> None:
        toy.write(tmp_path, [toy.video("a", [3])])
        file = tmp_path / "toy/train/manifest.json"
        file.write_text("[1, 2]")
        with pytest.raises(CacheError, match="manifest"):
            cache.open(tmp_path)["toy/train"]

    def test_a_pickled_split_notices_a_commit(self, tmp_path: Path, toy: Any) -> None:
        toy.write(tmp_path, [toy.video("a", [3])])
        pickled = pickle.dumps(cache.open(tmp_path)["toy/train"])
        toy.write(tmp_path, [toy.video("b", [3])])
        with pytest.raises(CacheChanged, match="open it again"):
            pickle.loads(pickled)

    def test_an_open_split_goes_on_reading_after_a_commit(self, tmp_path: Path, toy: Any) -> None:
        toy.write(tmp_path, toy.videos())
        split = cache.open(tmp_path)["toy/train"]
        expected = toy.track("d/0", 70).columns["bbox"]
        toy.write(tmp_path, [toy.video("b", [3])], drop=["a", "b"])
        np.testing.assert_array_equal(split.rows("bbox", 37, 107), expected)
        assert len(split.tracks) == 7

    def test_an_open_split_notices_that_it_was_made_anew(self, tmp_path: Path, toy: Any) -> None:
        toy.write(tmp_path, toy.videos())
        split = cache.open(tmp_path)["toy/train"]
        shutil.rmtree(tmp_path / "toy")
        toy.write(tmp_path, toy.videos(seed=1))
        with pytest.raises(CacheChanged, match="replaced"):
            split.rows("bbox", 0, 3)


class TestDamage:
    @pytest.mark.parametrize("name", ["bbox", "features/resnet50", "features/resnet50_ok"])
    def test_a_missing_short_or_flipped_shard_is_never_read_as_data(self, tmp_path: Path, toy: Any, name: str) -> None:
        toy.write(tmp_path, toy.videos())
        toy.write_stream(tmp_path)
        shard = tmp_path / "toy/train" / name / "c/1"
        shard = shard if shard.is_file() else shard / "0"
        whole = shard.read_bytes()
        flipped = bytes([whole[0] ^ 1]) + whole[1:]
        for damaged, match in ((None, "no file"), (whole[:-8], "bytes"), (flipped, "checksum"), (b"", "found 0 bytes")):
            shard.unlink(missing_ok=True)
            if damaged is not None:
                shard.write_bytes(damaged)
            split = cache.open(tmp_path)["toy/train"]
            with pytest.raises(CacheError, match=match):
                split.read([[32, 36]], "resnet50", fields=["features", "bbox"])
        shard.write_bytes(whole)
        cache.open(tmp_path)["toy/train"].read([[32, 36]], "resnet50", fields=["features", "bbox"])


LAYOUTS = [
    # shape, dtype, shard, chunk, codecs
    ((100, 4), "float32", 32, 8, "crc"),
    ((96, 49, 3), "float32", 32, 32, "crc"),
    ((33, 2048), "float16", 32, 8, "crc"),
    ((70,), "uint8", 16, 4, "crc"),
    ((70,), "int64", 64, 1, "crc"),
    ((50, 2), "uint64", 10, 5, "plain"),
    ((50, 3), "float64", 10, 5, "start"),
    ((50, 3), "int16", 10, 5, "dots"),
    ((70, 5), "float32", 32, 8, "zstd"),
    ((70, 5), "float32", None, 8, "plain"),
    ((70, 6), "float32", 32, 8, "columns"),
    ((70, 5), "float32", 32, 8, "big"),
]


@pytest.mark.parametrize(("shape", "dtype", "shard", "chunk", "codecs"), LAYOUTS)
def test_the_direct_reader_and_zarr_agree_on_every_layout(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, shard: int | None, chunk: int, codecs: str
) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(1, 200, shape).astype(dtype)
    endian = "big" if codecs == "big" else "little"
    serializer = BytesCodec(endian=endian) if np.dtype(dtype).itemsize > 1 else BytesCodec()
    compressors: Any = {"crc": [Crc32cCodec()], "dots": [Crc32cCodec()], "zstd": [ZstdCodec()]}
    trailing = (3,) if codecs == "columns" else shape[1:]
    index = "start" if codecs == "start" else "end"
    sharding = {"shape": (shard, *shape[1:]), "index_location": index} if shard else None
    array = zarr.create_array(
        tmp_path,
        shape=shape,
        dtype=dtype,
        chunks=(chunk, *trailing),
        shards=sharding,  # type: ignore[arg-type]
        serializer=serializer,
        compressors=compressors.get(codecs),
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "." if codecs == "dots" else "/"},
    )
    array[:] = data
    metadata = (tmp_path / "zarr.json").read_bytes()
    rows = open_rows(store_at(tmp_path), ".", metadata)
    assert isinstance(rows, ZarrRows if codecs in ("zstd", "columns", "big") or shard is None else DirectRows)
    through_zarr = ZarrRows(store_at(tmp_path), ".", array.metadata.to_dict())
    assert (rows.trailing, rows.dtype.newbyteorder("=")) == (shape[1:], np.dtype(dtype))
    for seqlen in (1, 7, shape[0]):
        starts = np.arange(0, shape[0] - seqlen + 1)
        expected = np.stack([data[start : start + seqlen] for start in starts])
        for reader in (rows, through_zarr):
            out = np.zeros_like(expected)
            reader.read(starts, seqlen, out)
            np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("direct", [True, False])
def test_both_readers_refuse_missing_files_and_rows_beyond_the_end(tmp_path: Path, direct: bool) -> None:
    shards = (16, 2) if direct else None
    array = zarr.create_array(
        tmp_path, shape=(40, 2), dtype="float32", chunks=(8, 2), shards=shards, compressors=None, fill_value=0
    )
    array[:] = 1
    metadata = array.metadata.to_dict()
    layout = recognise(metadata)
    assert (layout is not None) == direct
    rows = ZarrRows(store_at(tmp_path), ".", metadata) if layout is None else DirectRows(tmp_path, layout)
    out = np.zeros((1, 8, 2), "f4")
    with pytest.raises(CacheError, match="40 rows"):
        rows.read(np.array([33]), 8, out)
    (tmp_path / "c/1/0").unlink()
    with pytest.raises(CacheError, match="no file"):
        rows.read(np.array([12]), 8, out)


@given(arrays(np.uint16, st.integers(0, 50)))
def test_widening_float16_changes_no_number(bits: np.ndarray) -> None:
    half = bits.view(np.float16)
    out = np.empty(half.shape, np.float32)
    widen(half, out)
    np.testing.assert_array_equal(out, half.astype(np.float32))
    assert (np.signbit(out) == np.signbit(half)).all()


def test_widening_is_exact_for_every_finite_float16() -> None:
    half = np.arange(2**16, dtype=np.uint16).view(np.float16)
    half = half[np.isfinite(half)]
    out = np.empty(half.shape, np.float32)
    widen(half, out)
    np.testing.assert_array_equal(out.view(np.uint32), half.astype(np.float32).view(np.uint32))
