"""How fast are features extracted, compared with the usual way in the same run?

    .venv/bin/python benchmarks/features.py --out benchmarks/features.md

Images and videos of smooth noise, whose files are as large as photographs', and a split of persons
in them. For each case, round after round, each in its own process:

- usual: track by track OpenCV's reading, crop, normalisation in NumPy in one thread, and
  torchvision's ResNet-50 in fp32 in batches of 200. Its first quarter of the crops is timed,
  without start-up.
- ours (`pipeline.steps.extraction.extract`, precision fast). Its rate is that of the rows from 20%
to 80%,
  where nothing starts or ends.

Memory is measured over two lengths, with a stream that costs nothing. All images are in the page
cache. The weights are random. `--small` makes everything tiny, for a trial run.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models import resnet50

import cache
from pipeline.features.networks.base import IMAGENET_MEAN, IMAGENET_STD
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Computer, Machine, NumberStream
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.files.pixels import sources
from pipeline.people import boxes
from pipeline.processes.meter import Meter
from pipeline.processes.settings import Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import in_a_process, parser, peak_mib, report, spread, table, write_split

USUAL_BATCH: Final = 200
FRAMES: Final = 100  # of a video, and files of a size: each video of the split shows them once more
SHIFT: Final = 4  # px from frame to frame
NOISE: Final = 12  # px; with JPEG_QUALITY, files are as large as photographs'
JPEG_QUALITY: Final = (cv2.IMWRITE_JPEG_QUALITY, 90)

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


VGA: Final = (640, 480)
CASES: Final = {
    "vga1": Case("640 x 480 JPEG, 1 person", VGA, 1),
    "hd1": Case("1920 x 1080 JPEG, 1 person", (1920, 1080), 1),
    "video1": Case("640 x 480 MPEG-4, 1 person", VGA, 1, video=True),
}
TINY: Final = Case("64 x 48 JPEG, 1 person", (64, 48), 1)  # where only memory is measured


@dataclass(frozen=True, kw_only=True)
class _MeanColours(NumberStream):
    """A crop's mean red, green and blue: a stream that costs nothing to compute, which is its own
    computer.
    """

    kind: ClassVar[str] = "mean_colours"
    dim: ClassVar[int] = 3
    lanes: ClassVar[int] = 1
    batch_size: ClassVar[int] = 16

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Computer:  # noqa: ARG002
        return self

    def adopt(self, memory: Bytes) -> None: ...

    def release(self) -> None: ...

    def __call__(self, crops: Bytes) -> Floats:
        pixels = crops[:, ::16, ::16].reshape(len(crops), -1, 3)
        return np.asarray(pixels.mean(axis=1, dtype=np.float32))


# --------------------------------------------------------------------------------------------------
# pixels


def make(root: Path, key: str, case: Case, n_crops: int) -> None:
    """Write a case's pixels, if they are missing, and a split of at most `n_crops` crops."""
    source = sources.parse(root / "raw", case.spec)
    width, height = case.size
    if not source.place.exists():
        _write_pixels(source.place, case)
    n_frames = min(FRAMES, n_crops // case.persons)
    rng = np.random.default_rng(0)

    def track() -> dict[str, NDArray[Any]]:
        """A person of 30% to 80% of the image's height, anywhere in its middle."""
        low, high = (0.3, 0.3, 0.3), (0.7, 0.7, 0.8)
        x_y_side = rng.uniform(low, high, (n_frames, 3)) * (width, height, height)
        return {"frame_index": np.arange(n_frames), "bbox": x_y_side[:, [0, 1, 2, 2]]}

    videos = (
        [track() for _ in range(case.persons)] for _ in range(n_crops // case.persons // n_frames)
    )
    pixels: Any = {"source": case.spec, "pixels": source.digest(), "width": width, "height": height}
    write_split(root / "cache", f"{key}/train", ("frame_index", "bbox"), videos, **pixels)


def _write_pixels(place: Path, case: Case) -> None:
    """A camera that moves over a still scene: a video, or a folder of images."""
    width, height = case.size
    length = width + SHIFT * FRAMES
    coarse = np.random.default_rng(0).integers(
        0, 256, (height // NOISE, length // NOISE, 3), np.uint8
    )
    scene = cv2.resize(coarse, (length, height), interpolation=cv2.INTER_CUBIC)
    frames = [scene[:, SHIFT * number :][:, :width] for number in range(FRAMES)]
    if case.video:
        place.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(place), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, case.size)
        for frame in frames:
            writer.write(frame)
        writer.release()
    else:
        place.mkdir(parents=True)
        for number, frame in enumerate(frames):
            cv2.imwrite(str(place / f"{number:06d}.jpg"), frame, JPEG_QUALITY)


# --------------------------------------------------------------------------------------------------
# ways


@torch.no_grad()
def usual(root: Path, key: str) -> float:
    """Crops a second of the usual way."""
    network = resnet50(weights=None).eval()
    network.fc = torch.nn.Identity()
    network(torch.zeros(1, 3, boxes.CROP_SIZE, boxes.CROP_SIZE))  # start-up
    split = cache.open(root / "cache")[f"{key}/train"]
    total: int = split.manifest["rows"] // 4
    coming = itertools.islice(_usual_crops(split, root / "raw", CASES[key]), total)
    began = time.perf_counter()
    while batch := list(itertools.islice(coming, USUAL_BATCH)):
        network(torch.from_numpy(np.stack(batch)))
    return total / (time.perf_counter() - began)


def _usual_crops(split: cache.Split, raw: Path, case: Case) -> Iterator[Floats]:
    """(3, 224, 224) normalised, track by track."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    place, size = sources.parse(raw, case.spec).place, (boxes.CROP_SIZE, boxes.CROP_SIZE)
    for track in split.tracks:
        capture = cv2.VideoCapture(str(place if case.video else place / "%06d.jpg"))
        for box in split.rows("bbox", track.start, track.stop):
            affine = boxes.crop_affine(box, track.crop_scale)
            crop = cv2.warpAffine(capture.read()[1], affine, size, flags=cv2.INTER_LINEAR)
            rgb = crop[..., ::-1].astype(np.float32) / np.float32(255)
            yield ((rgb - mean) / std).transpose(2, 0, 1)
        capture.release()


def ours(root: Path, key: str, turn: int) -> float:
    """Crops a second as `python -m pipeline extract` does."""
    spec = StreamSpec(f"ours-{turn}", weights(root, "fast"))
    return _middle_rate(root, key, Resources(device="cpu"), spec)[0]


def weights(root: Path, precision: Any) -> ResNet50:
    """A stream of random weights in a file, which are not standardised."""
    file = root / "random.pt"
    if not file.exists():
        torch.manual_seed(0)
        torch.save(resnet50(weights=None).state_dict(), file)
    return ResNet50(weights=WeightsSpec.parse(f"file:{file}"), precision=precision)


def _middle_rate(root: Path, key: str, on: Resources, spec: StreamSpec) -> tuple[float, Meter]:
    """Rows a second from 20% to 80% of an extraction, and the meter of all of it."""
    steps: list[tuple[float, int]] = []
    done = extract(
        root, key, on, spec, progress=lambda n, *_: steps.append((time.perf_counter(), n))
    )
    began, first = max(step for step in steps if step[1] <= 0.2 * done.computed)
    ended, last = min(step for step in steps if step[1] >= 0.8 * done.computed)
    return (last - first) / (ended - began), done.meter


def memory(root: Path, key: str) -> float:
    """The peak memory of an extraction, MiB."""
    extract(root, key, Resources(device="cpu"), StreamSpec("means", _MeanColours()))
    return peak_mib()


def extract(
    root: Path, case: str, resources: Resources, *specs: StreamSpec, progress: Any = lambda *_: None
) -> Any:
    """Extract streams of a case. Ends the benchmark with its problems, if any; else returns the
    first's result.
    """
    plans = [
        plan_extraction(root / "cache", f"{case}/train", replace(spec, raw=root / "raw"))
        for spec in specs
    ]
    result = extract_together(plans, resources, progress=progress)[0]
    if result.problems:
        raise RuntimeError(f"{case}: {result.problems}: {result.examples}")
    return result


# --------------------------------------------------------------------------------------------------
# report


def _tables(root: Path, n_rounds: int, n_crops: int, lengths: tuple[int, int]) -> Iterator[str]:
    """Rates and memory."""
    yield f"{n_rounds} rounds of {n_crops:,} crops, the usual way a quarter of them."
    yield "Crops a second: the median of the rounds (lowest - highest).\n"
    rows = []
    for key, case in CASES.items():
        make(root, key, case, n_crops)
        theirs, mine = [], []
        for turn in range(n_rounds):
            theirs.append(in_a_process(usual, root, key))
            mine.append(in_a_process(ours, root, key, turn))
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        rows.append((case.name, spread(ratios), spread(theirs), spread(mine)))
    yield from table(("pixels", "ours : usual", "usual", "ours"), rows)
    yield ""
    peaks = []
    for n in lengths:
        make(root, f"memory-{n}", TINY, n)
        peaks.append((f"{n:,}", f"{in_a_process(memory, root, f'memory-{n}'):.0f}"))
    yield from table(
        ("frames of a stream that costs nothing", "peak memory of the extraction, MiB"), peaks
    )


def main() -> None:
    """Make the data, measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--small", action="store_true", help="40 crops of a case, one round")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lines = (
            _tables(root, 1, 40, (8, 32)) if args.small else _tables(root, 3, 1600, (1_000, 40_000))
        )
        report("Made-up pixels.", "How fast are features extracted?", lines, args)


if __name__ == "__main__":
    main()
