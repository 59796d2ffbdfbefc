"""`bench-features`: its rates count what was done, and what it expects of a dataset follows from them."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import cache
from pipeline.__main__ import main
from pipeline.errors import PipelineError
from pipeline.features import bench_features, bench_pixels
from pipeline.features.bench_features import DecodeLimit, Limits, NetworkLimit, decode_limit, network_limit
from pipeline.features.engine import Resources
from pipeline.features.engine.pieces import Frames
from pipeline.features.extract import StreamSpec, extract, plan_extraction
from pipeline.features.pixel_sources import pixels
from pipeline.features.streams.base import Machine
from pipeline.features.streams.crops import Crops
from pipeline.pixels import sources

SIZE = (64, 48)
PENN = "penn_action/train"


class Sleeper:
    """A network that takes `seconds` a batch, in any number of lanes at the same time."""

    batch_size, lanes = 4, 2

    def __init__(self, seconds: float) -> None:
        self.seconds, self.calls, self.released = seconds, 0, False
        self.memory = np.zeros(0, np.uint8)
        self.at_once = self.most = 0
        self.lock = threading.Lock()

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"device": "a GPU"}

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory

    def release(self) -> None:
        self.released = True

    def __call__(self, some: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert some.shape == (4, 224, 224, 3)
        assert np.shares_memory(some, self.memory)
        with self.lock:
            self.calls += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(self.seconds)
        with self.lock:
            self.at_once -= 1
        return np.zeros((4, 2), np.float32)


@pytest.fixture
def pictures(tmp_path: Path) -> Frames:
    """Five tiny pictures."""
    return Frames(bench_pixels.write_pictures(tmp_path / "pictures", SIZE, 5), "made/up", "pictures")


@pytest.fixture
def penn(embedded: Any, into: Any, tmp_path: Path) -> Path:
    """A cache with Penn Action's train split: three videos of 8 frames."""
    into.convert(tmp_path / "cache", embedded.raw("penn_action"))
    return tmp_path / "cache"


def network_of(crops_a_second: float, device: str, lanes: int = 2) -> NetworkLimit:
    return NetworkLimit(crops_a_second, lanes, 16, {"device": device})


def test_on_a_cpu_a_crop_costs_the_time_of_both_and_on_a_gpu_of_the_slower_one() -> None:
    decode = DecodeLimit(pictures=100, crops=400, processes=2)
    on_cpu = Limits(decode, network_of(100, "cpu"), n_cores=2)
    assert on_cpu.together == pytest.approx(80)  # 1 / (1 / 400 + 1 / 100)
    assert on_cpu.limit == "network"
    assert Limits(decode, network_of(100, "a GPU"), n_cores=2).together == 100
    on_fast_gpu = Limits(decode, network_of(20_000, "a GPU"), n_cores=2)
    assert (on_fast_gpu.together, on_fast_gpu.limit) == (400, "decode")
    assert Limits(decode, None, n_cores=2).together == 400  # encoded where they are decoded


def test_who_leaves_cores_to_the_others_costs_them_nothing() -> None:
    one_process = DecodeLimit(pictures=200, crops=200, processes=1)
    # of 4 cores, decoding 100 crops takes half a second of one, the network one second of three
    assert Limits(one_process, network_of(100, "cpu", lanes=3), n_cores=4).together == 100
    # of 2 cores, a crop takes 1/200 s of one and 1/100 s of both: 2 / (1 / 200 + 2 / 100)
    assert Limits(one_process, network_of(100, "cpu", lanes=2), n_cores=2).together == pytest.approx(80)
    # no more cores than there are
    many = DecodeLimit(pictures=100, crops=400, processes=8)
    assert Limits(many, network_of(100, "cpu", lanes=8), n_cores=2).together == pytest.approx(80)


def test_the_network_is_measured_in_all_its_lanes() -> None:
    sleeper = Sleeper(0.02)
    found = network_limit(sleeper, seconds=0.4)
    assert (found.lanes, found.batch_size, found.shares_cores) == (2, 4, False)
    assert sleeper.released
    assert sleeper.most == 2
    assert found.crops <= 2 * 4 / 0.02  # two lanes, and sleep never ends early
    assert found.crops > 0.5 * 2 * 4 / 0.02


def test_a_network_slower_than_the_time_for_it_is_measured_all_the_same() -> None:
    sleeper = Sleeper(0.05)
    assert 0 < network_limit(sleeper, seconds=0.001).crops <= 2 * 4 / 0.05


def test_every_picture_counts_once_however_many_persons_it_has(pictures: Frames) -> None:
    coming = bench_pixels.of_pictures(pictures, 5, SIZE, persons=3)
    found = decode_limit(coming, Resources(workers=1), seconds=0.3)
    assert found.processes == 1
    assert found.pictures > 0
    assert found.crops == pytest.approx(3 * found.pictures)


def test_bytes_are_encoded_where_pictures_are_decoded(pictures: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    fill = bench_features.Slabs.fill
    monkeypatch.setattr(bench_features.Slabs, "fill", lambda slabs, done: sizes.append(done.sizes) or fill(slabs, done))
    coming = bench_pixels.of_pictures(pictures, 5, SIZE)
    assert decode_limit(coming, Resources(workers=1), seconds=0.1, encoder=Crops()).crops > 0
    assert all(len(some) == 5 and min(some.values()) > 500 for some in sizes)  # bytes of each JPEG


def test_pictures_that_cannot_be_decoded_are_told(pictures: Frames) -> None:
    for file in pictures.source.place.iterdir():
        file.write_bytes(b"no picture")
    coming = bench_pixels.of_pictures(pictures, 5, SIZE)
    with pytest.raises(PipelineError, match=r"none of the frames could be decoded, the last one: .* neither JPEG nor"):
        decode_limit(coming, Resources(workers=1), seconds=0.1)


def test_pictures_made_up_have_the_bytes_of_photographs(tmp_path: Path) -> None:
    for size, (least, most) in zip(bench_pixels.SIZES, ((60e3, 120e3), (300e3, 600e3)), strict=True):
        source = bench_pixels.write_pictures(tmp_path / f"{size[0]}", size, 1)
        file = source.path(0)
        assert cv2.imread(str(file)).shape == (size[1], size[0], 3)
        assert least < file.stat().st_size < most


def test_what_is_decoded_of_a_split_are_its_own_rows(penn: Path) -> None:
    split = cache.open(penn)[PENN]
    coming = bench_pixels.of_split(split, pixels(split, "", None))
    seen = set()
    for _ in range(20):
        job = next(coming)
        (track,) = set(split.track_of(job.rows).tolist())
        seen.add(track)
        rows = slice(int(job.rows[0]), int(job.rows[-1]) + 1)
        assert job.rows.tolist() == list(range(rows.start, rows.stop))
        assert job.frame.tolist() == split.rows("frame_index", rows.start, rows.stop).tolist()
        np.testing.assert_array_equal(job.bbox, split.rows("bbox", rows.start, rows.stop))
        assert set(job.scale.tolist()) == {split.tracks[track].crop_scale}
        assert isinstance(job.pixels, Frames)
        assert job.pixels.name == split.tracks[track].video
    assert seen == {0, 1, 2}


def test_several_persons_of_a_video_share_its_frames(tmp_path: Path, pictures: Frames) -> None:
    columns = ("frame_index", "bbox")
    with cache.SplitWriter(tmp_path / "cache", "made/up", columns=columns, plan="") as writer:
        writer.begin()
        tracks = [
            cache.TrackRows(
                name=f"v/{person}",
                video="v",
                step=1,
                fps=30.0,
                crop_scale=1.0 + person,
                columns={
                    "frame_index": np.arange(person, 5),
                    "bbox": bench_pixels.boxes(5 - person, SIZE, seed=person),
                },
            )
            for person in range(2)
        ]
        writer.append(cache.VideoEntry(name="v", source="pictures:pictures/{:06d}.jpg+0"), tracks)
        writer.commit({"stand_in": True})
    split = cache.open(tmp_path / "cache")["made/up"]
    job = next(bench_pixels.of_split(split, pixels(split, "", tmp_path)))
    assert job.frame.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert job.scale.tolist() == [1, 1, 2, 1, 2, 1, 2, 1, 2]
    source = sources.parse(tmp_path, split.videos[0].source)
    assert job.pixels == Frames(source, "made/up", "v")


def test_stored_crops_are_found_by_row(penn: Path) -> None:
    spec = StreamSpec("crops", Crops(), resources=Resources(Machine(), workers=1))
    extract(plan_extraction(penn, PENN, spec))
    split = cache.open(penn)[PENN]
    coming = bench_pixels.of_split(split, pixels(split, "crops", None))
    for _ in range(5):
        job = next(coming)
        assert job.frame.tolist() == job.rows.tolist()
    assert decode_limit(coming, Resources(workers=1), seconds=0.2).crops > 0


def test_a_split_without_pictures_has_nothing_to_decode(embedded: Any, into: Any, tmp_path: Path) -> None:
    into.convert(tmp_path, embedded.raw("amass"), "amass", body=embedded.body)
    split = cache.open(tmp_path)["amass/train"]
    with pytest.raises(PipelineError, match="amass/train: motion alone, without pictures"):
        next(bench_pixels.of_split(split, lambda _: pytest.fail("nothing to open")))


def test_the_command_says_what_to_expect_of_a_split(
    penn: Path, network: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench-features", "penn_action", "train", "--cache", str(penn), "--seconds", "1", "--workers", "1"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("1 s a measurement, which whatever else runs here makes slower")
    assert lines[1].startswith("network: ")
    assert "1 lane of 16 crops" in lines[1]
    assert "STAND-IN" in lines[2]
    assert lines[3].startswith("penn_action/train: decodes ")
    assert "by itself (1 process); together" in lines[3]
    assert re.search(r" crops a second: 24 rows in about \d+ s, (the network limits|decoding limits)$", lines[3])
    assert len(lines) == 4


@pytest.mark.slow
def test_for_a_machine_it_says_the_same_of_pictures_made_up(
    network: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_pixels, "SIZES", (SIZE,))
    assert main(["bench-features", "--seconds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (one,) = found["pixels"]
    assert (one["name"], one["rows"]) == ("64 x 48 JPEG, one person each", 100_000)
    assert one["pictures_a_second"] == pytest.approx(one["crops_a_second"])
    assert one["expected_seconds"] == pytest.approx(100_000 / one["together_crops_a_second"], rel=1e-3)
    assert one["together_crops_a_second"] <= min(one["crops_a_second"], found["network"]["crops_a_second"])
    assert (found["stand_in"], found["network"]["lanes"]) == (True, 1)


def test_a_stream_of_bytes_has_no_network(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_pixels, "SIZES", (SIZE,))
    assert main(["bench-features", "--seconds", "1", "--kind", "crops", "--workers", "1"]) == 0
    (_, line) = capsys.readouterr().out.splitlines()
    assert line.endswith(", decoding limits")


@pytest.mark.parametrize("words", [["penn_action"], ["penn_action", "train"], ["--cache", "c"], ["--crops", "crops"]])
def test_half_a_split_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-features", *words]) == 2
    assert "bench-features DATASET SPLIT --cache DIR" in capsys.readouterr().err


def test_boxes_lie_in_the_picture() -> None:
    x, y, width, height = bench_pixels.boxes(100, (640, 480), seed=1).T
    assert (width == height).all()
    assert ((x > 0) & (x < 640) & (y > 0) & (y < 480)).all()
    assert (height >= 0.3 * 480).all()
    assert (height <= 0.8 * 480).all()
