"""How fast are features extracted, compared with the usual way in the same run?

    .venv/bin/python benchmarks/features.py --out benchmarks/features.md

Images and videos of noise on all scales, whose files are as large as photographs', and a split of
persons in them. For each case, round after round, each in its own process:

- usual: person by person cv2.imread (of a video: the video once more), crop, normalisation in NumPy
  in one thread, and torchvision's ResNet-50 in fp32 in batches of 200. Its first `--usual` crops
  are timed, without start-up.
- ours (`pipeline.features.extract`, precision fast): `--frames` crops. Its rate is that of the rows
  from 20% to 80%, where nothing starts or ends.
- decode: the same extraction of a stream that costs nothing to compute; model: only the network, on
noise.

Decoding and model together allow 1 / (1/decode + 1/model) crops a second on a CPU, whose cores they
share, and the smaller of both on a GPU. Memory is measured over two lengths, with the stream that
costs nothing. All images are in the page cache. The weights are random unless `--weights` names
others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

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
from pipeline.files.pixels.frames import Pictures
from pipeline.track import CROP_SCALE

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import in_a_process, parser, peak_mib, report, spread, table

SECONDS: Final = 5.0  # of the model without decoding
MIDDLE: Final = (0.2, 0.8)  # the part of the rows in which nothing starts or ends
USUAL_BATCH: Final = 200

FRAMES: Final = 100  # of a video, and files of a size: each video of the split shows them once more
# of noise at 1, 2, 4, ... px, in grey levels of 255
STRENGTHS: Final = (3.0, 5.0, 8.0, 10.0, 12.0, 14.0, 16.0)

Clock = Callable[[], float]
Figures = dict[str, Any]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
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


CASES: Final = {
    "vga1": Case("640 x 480 JPEG, 1 person", (640, 480), 1),
    "vga4": Case("640 x 480 JPEG, 4 persons", (640, 480), 4),
    "hd1": Case("1920 x 1080 JPEG, 1 person", (1920, 1080), 1),
    "hd4": Case("1920 x 1080 JPEG, 4 persons", (1920, 1080), 4),
    "video1": Case("640 x 480 MPEG-4, 1 person", (640, 480), 1, video=True),
    "video4": Case("640 x 480 MPEG-4, 4 persons", (640, 480), 4, video=True),
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
        means: Floats = (
            crops[:, ::16, ::16].reshape(len(crops), -1, 3).mean(axis=1, dtype=np.float32)
        )
        return means


@dataclass(frozen=True, kw_only=True)
class Nothing(NumberStream):
    """As many numbers as a ResNet-50's, in a GPU's batches, all 0."""

    kind: ClassVar[str] = "nothing"
    dim: ClassVar[int] = 2048

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Computer:  # noqa: ARG002
        return _Zeros()


class _Zeros(_Means):
    lanes, batch_size = 2, networks.FAST_BATCH
    numbers = np.zeros((batch_size, Nothing.dim), np.float32)

    def __call__(self, crops: Bytes) -> Floats:  # noqa: ARG002
        return self.numbers


# --------------------------------------------------------------------------------------------------
# pixels


def make(work: Path, key: str, case: Case, n_crops: int) -> None:
    """Write a case's pixels, if they are missing, and a split of about `n_crops` crops."""
    source = sources.parse(work / "raw", case.spec)
    if not source.place.exists():
        source.place.parent.mkdir(parents=True, exist_ok=True)
        write = write_video if case.video else write_images
        write(source.place, case.size)
    n_frames, pixels, (width, height) = max(1, n_crops // case.persons), source.digest(), case.size
    provenance, columns = {"raw": str(work / "raw")}, ("frame_index", "bbox")
    split = cache.SplitWriter(
        work / "cache", f"{key}/train", columns=columns, plan="made up", provenance=provenance
    )
    with split as writer:
        writer.begin()
        for number, start in enumerate(range(0, n_frames, FRAMES)):
            name, frames = f"{number:06d}", np.arange(min(FRAMES, n_frames - start))
            facts: Any = {"video": name, "step": 1, "fps": 30.0, "crop_scale": CROP_SCALE}
            tracks = []
            for person in range(case.persons):
                bbox = boxes(len(frames), case.size, number * case.persons + person)
                rows: Any = {"frame_index": frames, "bbox": bbox}
                tracks.append(cache.TrackRows(name=f"{name}/{person}", columns=rows, **facts))
            entry = cache.VideoEntry(
                name=name, source=case.spec, pixels=pixels, width=width, height=height
            )
            writer.append(entry, tracks)
        writer.commit({"stand_in": True})


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
        cv2.imwrite(
            str(folder / f"{number:06d}.jpg"),
            textured(size, number),
            [cv2.IMWRITE_JPEG_QUALITY, 90],
        )


def write_video(file: Path, size: tuple[int, int], n_frames: int = FRAMES) -> None:
    """A camera that moves over a still image, by 4 px a frame, with some noise."""
    (width, height), rng = size, np.random.default_rng(0)
    scene = textured((width + 4 * n_frames, height), 0)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, size)
    for number in range(n_frames):
        frame = scene[:, 4 * number : 4 * number + width] + rng.integers(
            -4, 5, (height, width, 3), np.int16
        )
        writer.write(np.clip(frame, 0, 255).astype(np.uint8))
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


def usual(args: argparse.Namespace, case: str, turn: int) -> Figures:
    """Extract the first crops of the split in the usual way."""
    del turn
    network = backbones.load(WeightsSpec.parse(args.weights))[0].to(args.device)
    coming = usual_crops(cache.open(args.at / "cache")[f"{case}/train"], args.at / "raw")

    @torch.no_grad()
    def features(batch: list[Floats]) -> Floats:
        computed: Floats = network(torch.from_numpy(np.stack(batch)).to(args.device)).cpu().numpy()
        return computed

    features([np.zeros((3, crops.CROP_SIZE, crops.CROP_SIZE), np.float32)])  # start-up
    began, n = time.perf_counter(), 0
    while n < args.usual:
        n += len(features([next(coming) for _ in range(min(USUAL_BATCH, args.usual - n))]))
    return {"rate": n / (time.perf_counter() - began)}


def usual_crops(split: cache.Split, raw: Path) -> Iterator[Floats]:
    """(3, 224, 224) normalised, track by track."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    for track, video in zip(split.tracks, split.tracks.video.tolist(), strict=True):
        source = sources.parse(raw, split.videos[video].source)
        frames = split.rows("frame_index", track.start, track.stop).tolist()
        images = read_as_usual(source, frames)
        for bgr, box in zip(images, split.rows("bbox", track.start, track.stop), strict=True):
            affine = crops.crop_affine(box, track.crop_scale)
            cropped = cv2.warpAffine(
                bgr, affine, (crops.CROP_SIZE, crops.CROP_SIZE), flags=cv2.INTER_LINEAR
            )
            yield (
                (cropped[..., ::-1].astype(np.float32) / np.float32(255) - mean) / std
            ).transpose(2, 0, 1)


def read_as_usual(source: Any, frames: list[int]) -> Iterator[Any]:
    """BGR, as OpenCV reads them."""
    if isinstance(source, Pictures):
        yield from (cv2.imread(str(source.path(frame))) for frame in frames)
        return
    capture, target = cv2.VideoCapture(str(source.place)), set(frames)
    for frame in range(frames[-1] + 1):
        _, bgr = capture.read()
        if frame in target:
            yield bgr
    capture.release()


def ours(
    args: argparse.Namespace,
    case: str,
    turn: int,
    stream: NumberStream | None = None,
    clock: Clock = time.perf_counter,
) -> Figures:
    """Extract as `python -m pipeline extract` does."""
    stream = stream or ResNet50(weights=WeightsSpec.parse(args.weights), precision="fast")
    progress: list[tuple[float, int]] = []
    spec, resources = StreamSpec(f"{stream.kind}-{turn}", stream), Resources(device=args.device)
    result = extract(
        args.at, case, resources, spec, progress=lambda n, *_: progress.append((clock(), n))
    )
    (began, first), (ended, last) = middle(progress, result.computed)
    return {
        "rate": (last - first) / (ended - began),
        "busy": result.meter.busy(),
        "peak_mib": peak_mib(),
    }


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


def decode(args: argparse.Namespace, case: str, turn: int) -> Figures:
    """Decode only."""
    return ours(args, case, turn, MeanColours())


def loop(args: argparse.Namespace, case: str, turn: int) -> Figures:
    """Extract with a network that does nothing: rows per second of CPU time of the main thread."""
    return ours(args, case, turn, Nothing(), time.thread_time)


def model(args: argparse.Namespace, case: str, turn: int) -> Figures:
    """Run only the network, in all its threads, on noise."""
    del case, turn
    stream = ResNet50(weights=WeightsSpec.parse(args.weights), precision="fast")
    computer = stream.load(Machine(args.device), None)
    return {
        "rate": rate_of(computer, SECONDS),
        "shares_cores": computer.provenance["device"] == "cpu",
    }


def rate_of(computer: networks.Network, seconds: float) -> float:
    """Crops a second of a network in all its threads, on noise."""
    shape = (computer.lanes, computer.batch_size, crops.CROP_SIZE, crops.CROP_SIZE, 3)
    memory = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    computer.adopt(memory)

    def rate(batch: Bytes) -> float:
        began, n = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds or not n:
            computer(batch)
            n += len(batch)
        return n / took

    with ThreadPoolExecutor(computer.lanes) as threads:
        list(threads.map(computer, memory))  # start-up
        rates = list(threads.map(rate, memory))
    computer.release()
    return sum(rates)


# --------------------------------------------------------------------------------------------------
# report


def measured(args: argparse.Namespace, key: str) -> tuple[str, ...]:
    """A row of the table: one case, all ways in turn in every round."""
    make(args.at, key, CASES[key], args.frames)
    ways = (usual, ours, decode, model)
    rounds = [
        {way.__name__: in_a_process(way, args, key, turn) for way in ways}
        for turn in range(args.rounds)
    ]
    rates = {way.__name__: [turn[way.__name__]["rate"] for turn in rounds] for way in ways}
    shared = rounds[0]["model"]["shares_cores"]
    both = zip(rates["decode"], rates["model"], strict=True)
    rates["limit"] = [
        1 / (1 / fed + 1 / computed) if shared else min(fed, computed) for fed, computed in both
    ]
    for name, other in (("share", "limit"), ("ratio", "usual")):
        rates[name] = [a / b for a, b in zip(rates["ours"], rates[other], strict=True)]
    busy = ", ".join(f"{stage} {share:.0%}" for stage, share in rounds[-1]["ours"]["busy"].items())
    columns = ("ratio", "usual", "ours", "decode", "model", "limit", "share")
    return (CASES[key].name, *(spread(rates[name]) for name in columns), busy)


def tables(args: argparse.Namespace) -> Iterator[str]:
    """Rates and memory."""
    if not args.weights:
        torch.manual_seed(0)
        torch.save(resnet50(weights=None).state_dict(), args.at / "random.pt")
        args.weights = f"file:{args.at / 'random.pt'}"
    yield f"{args.rounds} rounds of {args.frames:,} crops, the usual way {args.usual:,}."
    yield (
        "Crops a second: the median of the rounds (lowest - highest). Goals: 4 times usual, "
        "0.9 of the limit.\n"
    )
    header = (
        "pixels",
        "ours : usual",
        "usual",
        "ours",
        "decode",
        "model",
        "limit",
        "ours : limit",
        "busy",
    )
    yield from table(header, (measured(args, key) for key in args.cases))
    yield ""
    for n in args.memory:
        make(args.at, f"memory-{n}", TINY, n)
    peaks = (
        (f"{n:,}", f"{in_a_process(decode, args, f'memory-{n}', 0)['peak_mib']:.0f}")
        for n in args.memory
    )
    yield from table(
        ("frames of a stream that costs nothing", "peak memory of the extraction, MiB"), peaks
    )
    for n in args.memory[-1:]:
        rates = [
            in_a_process(loop, args, f"memory-{n}", turn)["rate"] for turn in range(args.rounds)
        ]
        yield (
            "\nRows per second of CPU time of the main thread, a network that does nothing: "
            f"{spread(rates, ',.0f')}."
        )


def main() -> None:
    """Make the data, measure, print, write the report."""
    options = parser(__doc__, at="the files, 1 GB")
    options.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    options.add_argument("--frames", type=int, default=1600, help="crops a case; on a GPU 40000")
    options.add_argument(
        "--usual", type=int, default=400, help="crops that the usual way computes of them"
    )
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument(
        "--memory", nargs="*", type=int, default=[1_000, 40_000], help="frames; none: not measured"
    )
    options.add_argument("--weights", default="", help="as of `extract`; random by default")
    options.add_argument("--device", default="auto")
    args = options.parse_args()
    args.device = str(networks.chosen_device(args.device))
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        args.at = Path(folder)
        report("Made-up pixels.", "How fast are features extracted?", tables(args), args)


if __name__ == "__main__":
    main()
