"""How fast are features and homographies computed? Beside the usual ways, in one run each.

    .venv/bin/python benchmarks/features.py --out benchmarks/features.md
    .venv/bin/python benchmarks/features.py homographies

extraction, the default: pictures and videos of noise on all scales, whose files are as large as photographs', and a
split of persons in them in a cache. In every case, round after round, each in a process of its own:

- usual: person by person cv2.imread (of a video: the video once more), crop, normalisation in NumPy in one thread, and
  torchvision's ResNet-50 in fp32 in batches of 200. Its first `--usual` crops are timed, without start-up.
- ours (`pipeline.features.extract`, precision fast): `--frames` crops. Its rate is that of the rows from 20% to
  80%, where nothing starts or ends.
- decode: the same extraction of a stream that costs nothing to compute; model: the network alone, on noise.

Together these two allow 1 / (1/decode + 1/model) crops a second on a CPU, whose cores they share, and the smaller of
both on a GPU. Memory is measured over two lengths, with the stream that costs nothing. Every picture is in the page
cache. The weights are random unless `--weights` names others.

homographies: a row of the stream `homography`, and how far off it is. Pairs of 224 px crops of noise on all scales with
planted motions, without decoding, in one thread, each way in turn. The plain way: OpenCV row by row, the preset's flow
forth and back, a loop over the points, and `findHomography` with RANSAC.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
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
from pipeline import crops, homography
from pipeline.features import networks
from pipeline.features.extract import extract_together
from pipeline.features.networks import backbones
from pipeline.features.networks.base import IMAGENET_MEAN, IMAGENET_STD
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams import Computer, Machine, NumberStream
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import Pictures
from pipeline.track import CROP_SCALE
from vibe_extensions.part_dynamics.homography_stream import Homography

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import paired, parser, report, spread, table

SECONDS: Final = 5.0  # of the model alone
MIDDLE: Final = (0.2, 0.8)  # the part of the rows in which nothing starts or ends
USUAL_BATCH: Final = 200

FRAMES: Final = 100  # of a video, and files of a size: each video of the split shows them once more
STRENGTHS: Final = (3.0, 5.0, 8.0, 10.0, 12.0, 14.0, 16.0)  # of noise at 1, 2, 4, ... px, in grey levels of 255


Found = dict[str, Any]
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
    """Three numbers a crop, its mean red, green and blue: a stream that costs nothing to compute."""

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
        means: Floats = crops[:, ::16, ::16].reshape(len(crops), -1, 3).mean(axis=1, dtype=np.float32)
        return means


# -------------------------------------------------------------------------------------- what is extracted from


def make(work: Path, key: str, case: Case, n_crops: int) -> None:
    """A case's pixels, where they do not exist, and its split of about so many crops."""
    source = sources.parse(work / "raw", case.spec)
    if not source.place.exists():
        source.place.parent.mkdir(parents=True, exist_ok=True)
        write_pictures(source.place, case.size) if isinstance(source, Pictures) else write_video(
            source.place, case.size
        )
    columns, provenance = ("frame_index", "bbox"), {"raw": str(work / "raw")}
    n_frames, pixels, (width, height) = max(1, n_crops // case.persons), source.digest(), case.size
    with cache.SplitWriter(
        work / "cache", f"{key}/train", columns=columns, plan="made up", provenance=provenance
    ) as writer:
        writer.begin()
        for number, start in enumerate(range(0, n_frames, FRAMES)):
            name, frames = f"{number:06d}", np.arange(min(FRAMES, n_frames - start))
            tracks = [
                cache.TrackRows(
                    name=f"{name}/{person}",
                    video=name,
                    step=1,
                    fps=30.0,
                    crop_scale=CROP_SCALE,
                    columns={
                        "frame_index": frames,
                        "bbox": boxes(len(frames), case.size, number * case.persons + person),
                    },
                )
                for person in range(case.persons)
            ]
            entry = cache.VideoEntry(name=name, source=case.spec, pixels=pixels, width=width, height=height)
            writer.append(entry, tracks)
        writer.commit({"stand_in": True})


def boxes(n: int, size: tuple[int, int], seed: int) -> Floats:
    """(n, 4) square cxcywh px: persons of 30% to 80% of the picture's height."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(0.3, 0.8, n) * size[1]
    x, y = rng.uniform(0.3, 0.7, (2, n))
    return np.stack([x * size[0], y * size[1], side, side], axis=1).astype(np.float32)


def write_pictures(folder: Path, size: tuple[int, int]) -> None:
    """JPEG files, about as many bytes each as photographs have."""
    folder.mkdir(parents=True)
    for number in range(FRAMES):
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), textured(size, number), [cv2.IMWRITE_JPEG_QUALITY, 90])


def write_video(file: Path, size: tuple[int, int]) -> None:
    """A camera that moves over a still picture, by 4 px a frame, with some noise of its own."""
    (width, height), rng = size, np.random.default_rng(0)
    scene = textured((width + 4 * FRAMES, height), 0)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, size)
    for number in range(FRAMES):
        frame = scene[:, 4 * number : 4 * number + width] + rng.integers(-4, 5, (height, width, 3), np.int16)
        writer.write(np.clip(frame, 0, 255).astype(np.uint8))
    writer.release()


def textured(size: tuple[int, int], seed: int) -> Bytes:
    """(height, width, 3) noise on all scales, the coarser the stronger, as in photographs."""
    width, height = size
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for octave, strength in enumerate(STRENGTHS):
        shape = (-(-height // 2**octave), -(-width // 2**octave), 3)
        noise = rng.standard_normal(shape, np.float32) * strength
        image += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


# ----------------------------------------------------------------------------------------------------------- ways


def usual(args: argparse.Namespace) -> Found:
    """The usual way, over the first crops of the split."""
    network = backbones.load(WeightsSpec.parse(args.weights))[0].to(args.device)
    coming = usual_crops(opened(args), args.at / "raw")

    @torch.no_grad()
    def features(batch: list[Floats]) -> Floats:
        found: Floats = network(torch.from_numpy(np.stack(batch)).to(args.device)).cpu().numpy()
        return found

    features([np.zeros((3, crops.CROP_SIZE, crops.CROP_SIZE), np.float32)])  # what is done only once
    began, done = time.perf_counter(), 0
    while done < args.usual:
        done += len(features([next(coming) for _ in range(min(USUAL_BATCH, args.usual - done))]))
    return {"rate": done / (time.perf_counter() - began)}


def usual_crops(split: cache.Split, raw: Path) -> Iterator[Floats]:
    """(3, 224, 224) normalised, track by track."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    for track, video in zip(split.tracks, split.tracks.video.tolist(), strict=True):
        source = sources.parse(raw, split.videos[video].source)
        frames = split.rows("frame_index", track.start, track.stop).tolist()
        pictures = read_as_usual(source, frames)
        for bgr, box in zip(pictures, split.rows("bbox", track.start, track.stop), strict=True):
            affine = crops.crop_affine(box, track.crop_scale)
            cropped = cv2.warpAffine(bgr, affine, (crops.CROP_SIZE, crops.CROP_SIZE), flags=cv2.INTER_LINEAR)
            yield ((cropped[..., ::-1].astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)


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


def ours(args: argparse.Namespace, stream: NumberStream | None = None) -> Found:
    """An extraction, as `python -m pipeline extract` does it."""
    stream = stream or ResNet50(weights=WeightsSpec.parse(args.weights), precision="fast")
    seen: list[tuple[float, int]] = []
    spec = StreamSpec(f"{stream.kind}-{args.turn}", stream)
    done = run_extraction(args, spec, lambda rows, *_: seen.append((time.perf_counter(), rows)))
    (began, first), (ended, last) = middle(seen, done.computed)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return {
        "rate": (last - first) / (ended - began),
        "busy": done.meter.busy(),
        "peak_mib": peak / 1024,
    }


def run_extraction(args: argparse.Namespace, spec: StreamSpec, progress: Any = lambda *_: None) -> Any:
    """An extraction without problems."""
    resources = Resources(device=args.device, workers=args.workers)
    done = extract_together(
        [plan_extraction(args.at / "cache", f"{args.case}/train", spec)], resources, progress=progress
    )[0]
    if done.problems:
        raise SystemExit(f"{args.case}: {done.problems}: {done.examples}")
    return done


def middle(seen: Sequence[tuple[float, int]], total: int) -> tuple[tuple[float, int], tuple[float, int]]:
    """The first and the last (time, rows) in the middle of an extraction; of one that was over too soon, of all of it.

    >>> middle([(0, 0), (1, 15), (2, 30), (3, 60), (4, 100)], 100)
    ((2, 30), (3, 60))
    """
    within = [one for one in seen if MIDDLE[0] * total <= one[1] <= MIDDLE[1] * total]
    if within and within[-1][1] > within[0][1]:
        return within[0], within[-1]
    return seen[0], max(seen, key=lambda one: one[1])


def decode(args: argparse.Namespace) -> Found:
    """Decoding alone."""
    return ours(args, MeanColours())


def model(args: argparse.Namespace) -> Found:
    """The network alone, in all its threads, on noise."""
    stream = ResNet50(weights=WeightsSpec.parse(args.weights), precision="fast")
    computer = stream.load(Machine(args.device), None)
    return {"rate": rate_of(computer, SECONDS), "shares_cores": computer.provenance["device"] == "cpu"}


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
        list(threads.map(computer, memory))  # what is done only once
        rates = list(threads.map(rate, memory))
    computer.release()
    return sum(rates)


def opened(args: argparse.Namespace) -> cache.Split:
    return cache.open(args.at / "cache")[f"{args.case}/train"]


# ---------------------------------------------------------------------------------------------------- homographies


def homographies(args: argparse.Namespace) -> Iterator[str]:
    """A line a way; ratios are within rounds."""
    rounds = [errors_and_times(args.pairs, turn) for turn in range(args.rounds)]
    yield f"{args.rounds} rounds of {args.pairs} pairs; CPU time of one thread, the median (lowest - highest).\n"
    ms = {way: [times[way][0] for times in rounds] for way in rounds[0]}
    rows = [
        (
            *(way, spread(of_way, ".1f"), f"{1e3 / statistics.median(of_way):,.0f}"),
            *(f"{paired(ms['plain way'], of_way):.2f}", f"{statistics.median(r[way][1] for r in rounds):.3f}"),
        )
        for way, of_way in ms.items()
    ]
    yield from table(("way", "ms a row", "rows a second of a core", "plain way : it", "mean error, px"), rows)


def errors_and_times(n_pairs: int, turn: int) -> dict[str, tuple[float, float]]:
    """Of each way the CPU time of a pair in ms, and the mean error in px of a crop."""
    cv2.setNumThreads(1)
    ways: Mapping[str, Callable[[Bytes, Bytes], Any]] = {
        "plain way": plain_homography,
        "ours": Homography().pair,
    }
    seconds, errors = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    size = crops.CROP_SIZE
    grid = homography.normalise(homography.grid(size, size), size, size)
    for number in range(-1, n_pairs):  # the first one, in which buffers are made, does not count
        random = np.random.default_rng(turn * FRAMES + number + 1)
        previous, current, planted = moved_crops(number % FRAMES, random)
        for name, way in ways.items():
            began = time.process_time()
            found = way(previous, current)
            if number >= 0:
                seconds[name] += time.process_time() - began
                moved = homography.transfer(np.eye(3) + found.reshape(3, 3), grid)
                off = np.linalg.norm(moved - homography.transfer(planted, grid), axis=1).mean()
                errors[name] += float(off) * size / 2
    return {name: (seconds[name] / n_pairs * 1e3, errors[name] / n_pairs) for name in ways}


def moved_crops(seed: int, rng: np.random.Generator) -> tuple[Bytes, Bytes, NDArray[np.float64]]:
    """Two 224 px crops, and the homography between them: up to 3 degrees, 3%, 4% of the crop, and some perspective."""
    size, angle, scale = crops.CROP_SIZE, np.deg2rad(rng.uniform(-3, 3)), 1 + rng.uniform(-0.03, 0.03)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    planted = np.eye(3)
    planted[:2, :2], planted[:2, 2], planted[2, :2] = turned, rng.uniform(-0.08, 0.08, 2), rng.uniform(-0.01, 0.01, 2)
    of_pixels = np.array([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]])
    matrix, previous = np.linalg.inv(of_pixels) @ planted @ of_pixels, textured((size, size), seed)
    warp = functools.partial(cv2.warpPerspective, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return previous, np.asarray(warp(previous, matrix, (size, size)), np.uint8), planted


def plain_homography(previous: Bytes, current: Bytes) -> NDArray[np.float32]:
    """As it is written at first: H - I, (9,)."""
    first, second = (cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in (previous, current))
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forth, back = dis.calc(first, second, None), dis.calc(second, first, None)
    half, source, target = len(first) / 2, [], []
    for x, y in homography.grid(*first.shape):
        u, v = forth[y, x]
        there = round(float(x + u)), round(float(y + v))
        if not (0 <= there[0] < first.shape[1] and 0 <= there[1] < first.shape[0]):
            continue
        if np.hypot(u + back[there[1], there[0]][0], v + back[there[1], there[0]][1]) < 1:
            source.append([(x + 0.5) / half - 1, (y + 0.5) / half - 1])
            target.append([(x + u + 0.5) / half - 1, (y + v + 0.5) / half - 1])
    found, _ = cv2.findHomography(np.array(source), np.array(target), cv2.RANSAC, 0.01)
    return np.asarray(found - np.eye(3), np.float32).ravel()


# --------------------------------------------------------------------------------------------------------- report

WAYS: Final = {way.__name__: way for way in (usual, ours, decode, model)}


def in_a_process(args: argparse.Namespace, way: str, case: str, turn: int = 0) -> Found:
    """What a way found, measured in a process of its own."""
    words = ["--way", way, "--case", case, "--turn", str(turn), "--at", str(args.at), "--weights", args.weights]
    words += ["--device", args.device, "--workers", str(args.workers), "--usual", str(args.usual)]
    ran = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    found: Found = json.loads(ran.stdout.splitlines()[-1])
    return found


def measured(args: argparse.Namespace, key: str) -> tuple[str, ...]:
    """A row of the table: one case, all ways in turn in every round."""
    make(args.at, key, CASES[key], args.frames)
    rounds = [{way: in_a_process(args, way, key, turn) for way in WAYS} for turn in range(args.rounds)]
    rates = {way: [turn[way]["rate"] for turn in rounds] for way in WAYS}
    shared = rounds[0]["model"]["shares_cores"]
    both = list(zip(rates["decode"], rates["model"], strict=True))
    rates["limit"] = [
        1 / (1 / decoding + 1 / network) if shared else min(decoding, network) for decoding, network in both
    ]
    for name, other in (("share", "limit"), ("ratio", "usual")):
        if other in rates:
            rates[name] = [a / b for a, b in zip(rates["ours"], rates[other], strict=True)]
    busy = ", ".join(f"{stage} {share:.0%}" for stage, share in rounds[-1]["ours"]["busy"].items())
    columns = ("ratio", "usual", "ours", "decode", "model", "limit", "share")
    return (CASES[key].name, *(spread(rates[name]) if name in rates else "-" for name in columns), busy)


def extraction(args: argparse.Namespace) -> Iterator[str]:
    """All tables."""
    if not args.weights:
        torch.manual_seed(0)
        torch.save(resnet50(weights=None).state_dict(), args.at / "random.pt")
        args.weights = f"file:{args.at / 'random.pt'}"
    yield f"{args.rounds} rounds of {args.frames:,} crops, the usual way {args.usual:,}."
    yield "Crops a second: the median of the rounds (lowest - highest). Goals: 4 times usual, 0.9 of the limit.\n"
    header = ("pixels", "ours : usual", "usual", "ours", "decode", "model", "limit", "ours : limit", "busy")
    yield from table(header, (measured(args, key) for key in args.cases))
    yield ""
    for n in args.memory:
        make(args.at, f"memory-{n}", TINY, n)
    peaks = ((f"{n:,}", f"{in_a_process(args, 'decode', f'memory-{n}')['peak_mib']:.0f}") for n in args.memory)
    yield from table(("frames of a stream that costs nothing", "peak memory of the extraction, MiB"), peaks)


PARTS: Final[Mapping[str, tuple[str, Callable[[argparse.Namespace], Iterator[str]]]]] = {
    "extraction": ("How fast are features extracted?", extraction),
    "homographies": ("What does a homography cost?", homographies),
}


def main() -> None:
    """Make the data, measure, print, write the report."""
    options = parser(__doc__, at="the files, 1 GB")
    options.add_argument("part", nargs="?", choices=PARTS, default="extraction")
    options.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    options.add_argument("--frames", type=int, default=1600, help="crops a case; on a GPU 40000")
    options.add_argument("--usual", type=int, default=400, help="crops that the usual way computes of them")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--memory", nargs="*", type=int, default=[1_000, 40_000], help="frames; none: not measured")
    options.add_argument("--pairs", type=int, default=200, help="of crops, a round of homographies")
    options.add_argument("--weights", default="", help="as of `extract`; by default random ones")
    options.add_argument("--device", default="auto")
    options.add_argument("--workers", type=int, default=0, help="decoding processes; 0: one a core")
    for name in ("--way", "--case", "--turn"):  # of the processes that measure
        options.add_argument(name, type=int if name == "--turn" else str, help=argparse.SUPPRESS)
    args = options.parse_args()
    args.device = str(networks.chosen_device(args.device))
    if args.way:
        print(json.dumps(WAYS[args.way](args)))
        return
    title, part = PARTS[args.part]
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        args.at = Path(folder)
        report("Made-up pixels.", title, part(args), args)


if __name__ == "__main__":
    main()
