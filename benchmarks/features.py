"""How fast are features extracted, compared with the usual way in the same run?

    .venv/bin/python benchmarks/features.py --out benchmarks/features.md

Images and videos of noise on all scales, whose files are as large as photographs', and a split of
persons in them. For each case, round after round, each in its own process:

- usual: track by track OpenCV's reading, crop, normalisation in NumPy in one thread, and
  torchvision's ResNet-50 in fp32 in batches of 200. Its first quarter of the crops is timed,
  without start-up.
- ours (`pipeline.features.extract`, precision fast): `--frames` crops. Its rate is that of the rows
  from 20% to 80%, where nothing starts or ends.

Memory is measured over two lengths, with a stream that costs nothing. All images are in the page
cache. The weights are random.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models import resnet50

import cache
from pipeline import crops
from pipeline.features import networks
from pipeline.features.extract import extract_together
from pipeline.features.networks import backbones
from pipeline.features.networks.base import IMAGENET_MEAN, IMAGENET_STD
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Computer, Machine, NumberStream
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.files.pixels import sources
from pipeline.processes.meter import Meter
from pipeline.track import CROP_SCALE

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import in_a_process, parser, peak_mib, report, spread, table

SECONDS: Final = 5.0  # of a network without decoding
MIDDLE: Final = (0.2, 0.8)  # the part of the rows in which nothing starts or ends
USUAL_BATCH: Final = 200
FRAMES: Final = 100  # of a video, and files of a size: each video of the split shows them once more
# of noise at 1, 2, 4, ... px, in grey levels of 255
STRENGTHS: Final = (3.0, 5.0, 8.0, 10.0, 12.0, 14.0, 16.0)

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Case(NamedTuple):
    """One kind of pixels."""

    name: str
    size: tuple[int, int]  # (width, height) px
    persons: int
    video: bool = False

    @property
    def spec(self) -> str:
        """The pixel source below the raw folder."""
        place = f"{self.size[0]}x{self.size[1]}"
        return f"video:{place}.mp4" if self.video else f"pictures:{place}/{{:06d}}.jpg+0"


VGA, HD = (640, 480), (1920, 1080)
CASES: Final = {
    "vga1": Case("640 x 480 JPEG, 1 person", VGA, 1),
    "vga4": Case("640 x 480 JPEG, 4 persons", VGA, 4),
    "hd1": Case("1920 x 1080 JPEG, 1 person", HD, 1),
    "video1": Case("640 x 480 MPEG-4, 1 person", VGA, 1, video=True),
    "video4": Case("640 x 480 MPEG-4, 4 persons", VGA, 4, video=True),
}
TINY: Final = Case("64 x 48 JPEG, 1 person", (64, 48), 1)  # where only memory is measured


@dataclass(frozen=True, kw_only=True)
class MeanColours(NumberStream):
    """A crop's mean red, green and blue: a stream that costs nothing to compute."""

    kind: ClassVar[str] = "mean_colours"
    dim: ClassVar[int] = 3

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Computer:  # noqa: ARG002
        return _Means()


class _Means:
    lanes, batch_size = 1, 16
    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": True, "device": "cpu"}

    def adopt(self, memory: Bytes) -> None: ...

    def release(self) -> None: ...

    def __call__(self, crops: Bytes) -> Floats:
        pixels = crops[:, ::16, ::16].reshape(len(crops), -1, 3)
        return np.asarray(pixels.mean(axis=1, dtype=np.float32))


# --------------------------------------------------------------------------------------------------
# pixels


def make(work: Path, key: str, case: Case, n_crops: int) -> None:
    """Write a case's pixels, if they are missing, and a split of about `n_crops` crops."""
    source = sources.parse(work / "raw", case.spec)
    if not source.place.exists():
        source.place.parent.mkdir(parents=True, exist_ok=True)
        (write_video if case.video else write_images)(source.place, case.size)
    pixels, (width, height) = source.digest(), case.size
    facts: Any = {"step": 1, "fps": 30.0, "crop_scale": CROP_SCALE}
    with cache.SplitWriter(
        work / "cache",
        f"{key}/train",
        columns=("frame_index", "bbox"),
        plan="made up",
        provenance={"raw": str(work / "raw")},
    ) as writer:
        following = writer.begin()
        n_frames = max(1, n_crops // case.persons)
        for number in range(-(-n_frames // FRAMES)):
            video = f"{number:06d}"
            frames = np.arange(min(FRAMES, n_frames - number * FRAMES))
            tracks = []
            for person in range(case.persons):
                bbox = boxes(len(frames), case.size, number * case.persons + person)
                columns: Any = {"frame_index": frames, "bbox": bbox}
                name = f"{video}/{person}"
                tracks.append(cache.TrackRows(name=name, video=video, columns=columns, **facts))
            entry = cache.VideoEntry(
                name=video, source=case.spec, pixels=pixels, width=width, height=height
            )
            following.append(entry, tracks)
        following.commit({"stand_in": True})


def boxes(n: int, size: tuple[int, int], seed: int) -> Floats:
    """(n, 4) square cxcywh px: persons of 30% to 80% of the image's height."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(0.3, 0.8, n) * size[1]
    x, y = rng.uniform(0.3, 0.7, (2, n))
    return np.stack([x * size[0], y * size[1], side, side], axis=1).astype(np.float32)


def write_images(folder: Path, size: tuple[int, int]) -> None:
    """JPEG files, about as many bytes each as photographs have."""
    folder.mkdir(parents=True)
    for number in range(FRAMES):
        image = textured(size, number)
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])


def write_video(file: Path, size: tuple[int, int]) -> None:
    """A camera that moves over a still image, by 4 px a frame."""
    width, height = size
    scene = textured((width + 4 * FRAMES, height), 0)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, size)
    for number in range(FRAMES):
        writer.write(scene[:, 4 * number : 4 * number + width])
    writer.release()


def textured(size: tuple[int, int], seed: int) -> Bytes:
    """(height, width, 3) noise on all scales, stronger on coarse ones, as in photographs."""
    width, height = size
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for octave, strength in enumerate(STRENGTHS):
        shape = (-(-height // 2**octave), -(-width // 2**octave), 3)
        noise = rng.standard_normal(shape, np.float32) * strength
        image += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


# --------------------------------------------------------------------------------------------------
# ways


def usual(root: Path, key: str, turn: int) -> float:
    """Crops a second of the usual way."""
    del turn
    network = backbones.load(random_weights(root), (224, 224)).network
    split = cache.open(root / "cache")[f"{key}/train"]
    coming = usual_crops(split, root / "raw", CASES[key])

    @torch.no_grad()
    def features(batch: Sequence[Floats]) -> int:
        return len(network(torch.from_numpy(np.stack(batch))))

    features([np.zeros((3, crops.CROP_SIZE, crops.CROP_SIZE), np.float32)])  # start-up
    total = max(1, split.manifest["rows"] // 4)
    began, n = time.perf_counter(), 0
    while n < total:
        n += features([next(coming) for _ in range(min(USUAL_BATCH, total - n))])
    return n / (time.perf_counter() - began)


def usual_crops(split: cache.Split, raw: Path, case: Case) -> Iterator[Floats]:
    """(3, 224, 224) normalised, track by track."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    place, size = sources.parse(raw, case.spec).place, (crops.CROP_SIZE, crops.CROP_SIZE)
    for track in split.tracks:
        capture = cv2.VideoCapture(str(place) if case.video else str(place / "%06d.jpg"))
        for box in split.rows("bbox", track.start, track.stop):
            affine = crops.crop_affine(box, track.crop_scale)
            crop = cv2.warpAffine(capture.read()[1], affine, size, flags=cv2.INTER_LINEAR)
            rgb = crop[..., ::-1].astype(np.float32) / np.float32(255)
            yield ((rgb - mean) / std).transpose(2, 0, 1)
        capture.release()


def ours(root: Path, key: str, turn: int) -> float:
    """Crops a second as `python -m pipeline extract` does."""
    stream = ResNet50(weights=random_weights(root), precision="fast")
    return middle_rate(root, key, Resources(device="cpu"), StreamSpec(f"ours-{turn}", stream))[0]


def middle_rate(root: Path, key: str, on: Resources, spec: StreamSpec) -> tuple[float, Meter]:
    """Rows a second in the middle of an extraction, where nothing starts or ends, and the meter of
    all of it.
    """
    steps: list[tuple[float, int]] = []
    done = extract(
        root, key, on, spec, progress=lambda n, *_: steps.append((time.perf_counter(), n))
    )
    (began, first), (ended, last) = middle(steps, done.computed)
    return (last - first) / (ended - began), done.meter


def memory(root: Path, key: str) -> float:
    """The peak memory of an extraction, MiB."""
    extract(root, key, Resources(device="cpu"), StreamSpec("means", MeanColours()))
    return peak_mib()


def random_weights(root: Path) -> WeightsSpec:
    return WeightsSpec.parse(f"file:{root / 'random.pt'}")


def extract(
    root: Path, case: str, resources: Resources, *specs: StreamSpec, progress: Any = lambda *_: None
) -> Any:
    """Extract streams of a case. Ends the benchmark with its problems, if any; else returns the
    first's result.
    """
    plans = [plan_extraction(root / "cache", f"{case}/train", spec) for spec in specs]
    result = extract_together(plans, resources, progress=progress)[0]
    if result.problems:
        raise RuntimeError(f"{case}: {result.problems}: {result.examples}")
    return result


def middle(
    progress: Sequence[tuple[float, int]], total: int
) -> tuple[tuple[float, int], tuple[float, int]]:
    """The first and the last (time, rows) in the middle of an extraction, or of all of it if it was
    short.

    >>> middle([(0, 0), (1, 15), (2, 30), (3, 60), (4, 100)], 100)
    ((2, 30), (3, 60))
    """
    within = [step for step in progress if MIDDLE[0] * total <= step[1] <= MIDDLE[1] * total]
    if within and within[-1][1] > within[0][1]:
        return within[0], within[-1]
    return progress[0], max(progress, key=lambda step: step[1])


def rate_of(computer: networks.Network, seconds: float) -> float:
    """Crops a second of a network in all its threads, on noise."""
    shape = (computer.lanes, computer.batch_size, crops.CROP_SIZE, crops.CROP_SIZE, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    computer.adopt(noise)

    def rate(batch: Bytes) -> float:
        began, n = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds or not n:
            computer(batch)
            n += len(batch)
        return n / took

    with ThreadPoolExecutor(computer.lanes) as threads:
        list(threads.map(computer, noise))  # start-up
        rates = list(threads.map(rate, noise))
    computer.release()
    return sum(rates)


# --------------------------------------------------------------------------------------------------
# report


def tables(root: Path, args: argparse.Namespace) -> Iterator[str]:
    """Rates and memory."""
    torch.manual_seed(0)
    torch.save(resnet50(weights=None).state_dict(), root / "random.pt")
    yield f"{args.rounds} rounds of {args.frames:,} crops, the usual way a quarter of them."
    yield "Crops a second: the median of the rounds (lowest - highest).\n"
    yield from table(
        ("pixels", "ours : usual", "usual", "ours"),
        (measured(root, key, args) for key in args.cases),
    )
    yield ""
    peaks = []
    for n in args.memory:
        make(root, f"memory-{n}", TINY, n)
        peaks.append((f"{n:,}", f"{in_a_process(memory, root, f'memory-{n}'):.0f}"))
    yield from table(
        ("frames of a stream that costs nothing", "peak memory of the extraction, MiB"), peaks
    )


def measured(root: Path, key: str, args: argparse.Namespace) -> tuple[str, ...]:
    """A row of the table: one case, all ways in turn in every round."""
    make(root, key, CASES[key], args.frames)
    rounds = []
    for turn in range(args.rounds):
        rounds.append([in_a_process(way, root, key, turn) for way in (usual, ours)])
    by_way = [spread(rates) for rates in zip(*rounds, strict=True)]
    return (CASES[key].name, spread([mine / theirs for theirs, mine in rounds]), *by_way)


def main() -> None:
    """Make the data, measure, print, write the report."""
    options = parser(__doc__, at="the files, 1 GB")
    options.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    options.add_argument("--frames", type=int, default=1600, help="crops a case")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--memory", nargs="*", type=int, default=[1_000, 40_000], help="frames")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        lines = tables(Path(folder), args)
        report("Made-up pixels.", "How fast are features extracted?", lines, args)


if __name__ == "__main__":
    main()
