"""Embedded InstaVariety as files, read here without the product's readers; and what its reader makes of them."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import google_crc32c
import numpy as np
import pytest

import cache
from pipeline import datasets, synthetic
from pipeline.datasets import contract
from pipeline.pixels import sources
from pipeline.skeletons import JOINTS
from pipeline.synthetic.layouts import insta_variety
from pipeline.synthetic.layouts.layout import Request

INSTA = datasets.get("insta_variety")
N_FRAMES = 9
OF_BOTH = {
    "meta/N", "meta/has_3d", "meta/has_3d_joints", "image/filenames", "image/heightwidths", "image/centers",
    "image/scale_factors", "image/crop_pts", "image/xys", "image/visibilities", "image/face_pts", "image/toe_pts",
    "image/encoded", "image/cams", "mosh/shape", "mosh/gt3ds", "mosh/poses",
}  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, synthetic.Take]]:
    folder = tmp_path_factory.mktemp("raw") / "insta_variety"
    takes = synthetic.write_dataset("insta_variety", folder, n_videos=4, n_frames=N_FRAMES, seed=5)
    return folder, {take.shot.name: take for take in takes}


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def records(file: Path) -> Iterator[bytes]:
    stored = file.read_bytes()
    while stored:
        length, length_crc = struct.unpack("<QI", stored[:12])
        data, (data_crc,) = stored[12 : 12 + length], struct.unpack("<I", stored[12 + length : 16 + length])
        assert (length_crc, data_crc) == (masked(stored[:8]), masked(data))
        yield data
        stored = stored[16 + length :]


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Fields that have a length: the only ones there are."""

    def varint() -> int:
        nonlocal message
        end = next(i for i, byte in enumerate(message) if byte < 128) + 1
        value = sum((byte & 127) << 7 * i for i, byte in enumerate(message[:end]))
        message = message[end:]
        return value

    while message:
        tag, length = varint(), varint()
        assert tag & 7 == 2
        yield tag >> 3, message[:length]
        message = message[length:]


def decoded(record: bytes) -> dict[str, Any]:
    """A feature's name -> list of bytes, float array, or list of the bytes of integers."""
    found = {}
    ((_, features),) = fields(record)
    for _, entry in fields(features):
        (_, key), (_, feature) = fields(entry)
        ((kind, content),) = fields(feature)
        values = [value for _, value in fields(content)]
        joined = b"".join(values)
        found[key.decode()] = values if kind == 1 else np.frombuffer(joined, "<f4") if kind == 2 else joined
    return found


def clips(folder: Path, split: str) -> dict[str, dict[str, Any]]:
    return {
        f"{split}/{file.stem}/{i:05d}": decoded(record)
        for file in sorted((folder / split).iterdir())
        for i, record in enumerate(records(file))
    }


def test_shards_hold_three_examples_each(shards) -> None:
    folder, takes = shards
    assert sorted(path.name for path in folder.iterdir()) == ["STAND_IN.json", "test", "train"]
    for split in ("train", "test"):
        names = ["insta_variety_00_copy00.tfrecord", "insta_variety_01_copy00.tfrecord"]
        assert sorted(path.name for path in (folder / split).iterdir()) == names
        assert [len(list(records(folder / split / name))) for name in names] == [3, 1]
    assert sorted(takes) == sorted([*clips(folder, "train"), *clips(folder, "test")])


def test_examples_have_the_official_features_in_their_shapes(shards) -> None:
    folder, _ = shards
    for split in ("train", "test"):
        for name, found in clips(folder, split).items():
            preprocessed = name.startswith("train/insta_variety_00")
            toeless = split == "test" and name.endswith("00001")
            more = {"image/phis"} if preprocessed else {"meta/time_pts"} if split == "test" else set()
            assert set(found) == (OF_BOTH | more) - ({"image/toe_pts"} if toeless else set())
            assert found["meta/N"] == bytes([N_FRAMES])
            assert found["meta/has_3d"] == found["meta/has_3d_joints"] == b"\0"
            assert len(found["image/encoded"]) == len(found["image/filenames"]) == N_FRAMES
            assert set(found["image/visibilities"]) <= {0, 1}
            assert len(found["image/visibilities"]) == N_FRAMES * 14
            sizes = {"xys": 28, "face_pts": 15} | ({} if toeless else {"toe_pts": 18})
            sizes |= {"phis": 2048} if preprocessed else {}
            assert {key: len(found[f"image/{key}"]) for key in sizes} == {k: N_FRAMES * n for k, n in sizes.items()}
            assert [len(found[f"mosh/{key}"]) for key in ("shape", "poses", "gt3ds")] == [
                10, 72 * N_FRAMES, 42 * N_FRAMES,
            ]  # fmt: skip


def test_pictures_are_224_px_but_in_the_shard_that_is_not_preprocessed(shards) -> None:
    folder, _ = shards
    for split in ("train", "test"):
        for name, found in clips(folder, split).items():
            side = 300 if name.startswith("train/insta_variety_01") else 224
            for picture in found["image/encoded"]:
                assert picture.startswith(b"\xff\xd8")
                assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (side, side, 3)


def test_labels_are_the_truth_in_the_official_order(shards) -> None:
    folder, takes = shards
    order = [JOINTS["spin49"].index(name) for name in JOINTS["insta_variety"]]
    for split in ("train", "test"):
        for name, found in clips(folder, split).items():
            truth = takes[name].actors[0].kp_2d[:, order]
            seen = np.frombuffer(found["image/visibilities"], np.uint8).reshape(N_FRAMES, 14) > 0
            xys = found["image/xys"].reshape(N_FRAMES, 2, 14).transpose(0, 2, 1)
            if "image/phis" in found:
                assert not xys[~seen].any()
                xys = (xys + 1) * 112
            np.testing.assert_allclose(xys[seen], truth[:, :14][seen], rtol=1e-6, atol=2e-5)
            face = found["image/face_pts"].reshape(N_FRAMES, 3, 5)
            assert set(np.unique(face[:, 2])) <= {0, 1}


def test_people_are_large_and_well_inside_their_picture(shards) -> None:
    _, takes = shards
    for take in takes.values():
        points = take.actors[0].kp_2d / take.shot.width
        low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
        assert (high - low).max() == pytest.approx(0.72)
        np.testing.assert_allclose((low + high) / 2, 0.5)
        assert np.ptp(points, axis=1).max(axis=1).min() > 0.4


def test_the_default_is_eight_clips_of_24_frames() -> None:
    shots = insta_variety.shots(Request())
    assert [shot.split for shot in shots] == ["train"] * 6 + ["test"] * 2
    assert {shot.n_frames for shot in shots} == {24}
    assert len({shot.file for shot in shots}) == 3


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        synthetic.write_dataset("insta_variety", tmp_path / name, n_videos=2, n_frames=2, seed=3, workers=workers)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


# -- through the reader --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_truth_comes_back_from_shards(shards, split: str) -> None:
    folder, takes = shards
    native = np.isin(JOINTS["spin49"], JOINTS["insta_variety"])
    tracks = list(INSTA.tracks(folder, split))
    assert [track.video for track in tracks] == sorted(name for name in takes if name.startswith(split))
    for track in tracks:
        take = takes[track.video]
        seen = track.kp_2d[..., 2] > 0
        assert seen[:, native].mean() > 0.6
        assert not seen[:, ~native].any()
        np.testing.assert_allclose(track.kp_2d[seen][:, :2], take.actors[0].kp_2d[seen], rtol=1e-6, atol=2e-5)
        side = take.shot.width
        np.testing.assert_array_equal(track.bbox, [[side / 2, side / 2, side, side]] * N_FRAMES)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_reader_keeps_every_promise(shards, split: str) -> None:
    assert contract.reader_problems(INSTA, shards[0], split) == []


def test_the_way_into_the_cache_and_back_to_the_pixels(shards, into: Any, tmp_path: Path) -> None:
    folder, takes = shards
    done = into.convert(tmp_path / "cache", folder, "insta_variety", "train", strict=True)
    assert done.totals["frames"] == {"found": 4 * N_FRAMES, "kept": 4 * N_FRAMES, "dropped": {}}
    split = cache.open(tmp_path / "cache")["insta_variety/train"]
    assert [track.crop_scale for track in split.tracks] == [1.0] * 4
    for number in range(4):
        entry = split.videos[number]
        source = sources.parse(folder, entry.source)
        assert source.digest() == entry.pixels
        assert (entry.width, entry.height) == source.size() == (takes[entry.name].shot.width,) * 2
        (frame,) = source.read([N_FRAMES - 1])
        assert frame.image is not None
        assert frame.image.shape == (entry.height, entry.width, 3)
    windows = split.windows(seqlen=N_FRAMES, stride=N_FRAMES)
    kp_2d = split.read(windows, stream=None)["kp_2d"]
    assert np.abs(kp_2d[..., :2][kp_2d[..., 2] > 0]).max() <= 1


def test_one_changed_record_is_read_again_and_the_others_are_not(into: Any, embedded: Any, tmp_path: Path) -> None:
    folder, root = embedded.copy("insta_variety", tmp_path / "raw"), tmp_path / "cache"
    into.convert(root, folder, "insta_variety", "train")
    shard = folder / "train/insta_variety_00_copy00.tfrecord"
    whole = bytearray(shard.read_bytes())
    whole[300] ^= 1
    shard.write_bytes(whole)
    done = into.convert(root, folder, "insta_variety", "train")
    assert [video.name for video in done.plan.append] == ["train/insta_variety_00_copy00/00000"]
    assert [account.set_aside for account in done.rejected] == ["record_damaged"]
    assert done.totals["videos"]["kept"] == 3
