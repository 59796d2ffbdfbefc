"""Does this code work on a GPU, how fast, and what limits it? `make gpu-check` runs:

    .venv/bin/python benchmarks/gpu_check.py --out benchmarks/gpu_check.md

In order: the GPU; the tests that need one; the network without decoding, in several sizes of a
batch; extraction of images, videos and several streams; extraction by two processes; a training
step of every model at its published sizes. It goes on after a failure, and says what to do at the
end. With 8 cores or more it takes about 10 minutes. `--device cpu` measures the same on a CPU;
`--tiny` makes all sizes small, for a trial run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

import cache
from pipeline.features import networks
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Machine
from pipeline.features.streams.homography import Homography
from pipeline.people.boxes import CROP_SIZE
from pipeline.processes.settings import Resources

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks import features
from benchmarks.common import ROOT, page, parser, report, table
from benchmarks.features import weights
from benchmarks.gpu_training import device_of, forget_peak, on_gpu, peak, training

# Precision, crops at once (0: as usual)
NETWORKS: Final = (("fast", 0), ("exact", 0), ("fast", 64), ("fast", 1024))
COMPARED: Final = 8192  # rows of fast and exact features
LEAST_COSINE: Final = 0.999  # of fast and exact features, both rounded to float16
CASES: Final = {
    "vga4": features.Case("640 x 480 JPEG, 4 persons", features.VGA, 4),
    "hd1": features.CASES["hd1"],
    "video4": features.Case("640 x 480 MPEG-4, 4 persons", features.VGA, 4, video=True),
}
TINY_VIDEO: Final = features.Case("64 x 48 MPEG-4, 1 person", (64, 48), 1, video=True)


def main() -> None:
    """Check and measure, print, write the page. Exits with the failures and what to do, if any."""
    options = parser(__doc__)
    options.add_argument("--device", default="cuda", help="cuda, cuda:1, ..., or cpu")
    options.add_argument("--tiny", action="store_true", help="small sizes, for a trial run")
    options.add_argument("--rows", type=int, default=40_000, help="crops of each extraction")
    options.add_argument("--steps", type=int, default=30, help="of each training")
    args = options.parse_args()
    if args.tiny:
        args.rows, args.steps = 16, 2
    if args.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(
            "gpu-check: torch finds no CUDA GPU here (`nvidia-smi`?). A trial run: --tiny "
            "--device cpu"
        )
    about = "Random weights, labels and images: no result about any model."
    title = "What a GPU does with this code"
    lines = list[str]()
    failed = list[str]()
    began = time.monotonic()
    if args.tiny:
        lines += ["**A trial run at small sizes: its figures mean nothing.**", ""]
    with tempfile.TemporaryDirectory() as folder:
        for name, part, do in PARTS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            lines += [f"## {name}", ""]
            try:
                lines.extend(part(Path(folder), args))  # those before a failure, too
            except Exception as error:
                traceback.print_exc()
                failed.append(f"{name}: {type(error).__name__}: {error}. What to do: {do}")
                lines += ["", f"**Failed.** {failed[-1]}"]
            lines.append("")
            if args.out:  # as far as it came, should the machine be taken away
                args.out.write_text(page(about, title, lines, args))
    lines.append(f"All of it took {time.monotonic() - began:.0f} s.")
    report(about, title, lines, args)
    if failed:
        raise SystemExit("\n".join(failed))


# --------------------------------------------------------------------------------------------------
# the GPU


def gpu(root: Path, args: argparse.Namespace) -> Iterator[str]:
    """Its properties, and whether it computes."""
    del root
    if not on_gpu(args):
        yield f"None: {args.device}, {len(os.sched_getaffinity(0))} cores."
        return
    device = networks.chosen_device(args.device)
    card, n = torch.cuda.get_device_properties(device), torch.cuda.device_count()
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    yield (
        f"{n} x {card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability "
        f"{card.major}.{card.minor}; "
    )
    bf16 = "yes" if networks.arithmetic.has_bf16(device) else "no, fast is fp32"
    yield f"CUDA {torch.version.cuda}, cuDNN {cudnn}; bf16: {bf16}."
    x = torch.ones(512, 512, device=device)
    if float((x @ x).sum()) != 512.0**3:
        raise RuntimeError("a product of two matrices of ones is wrong")


def tests(root: Path, args: argparse.Namespace) -> Iterator[str]:
    """The tests that are skipped without a GPU."""
    del root
    if not on_gpu(args):
        yield "Not run: they need a GPU."
        return
    # Only their files: collecting all tests takes longer than these, and wants every extra package.
    files = []
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        if "mark.gpu" in file.read_text():
            files.append(str(file))
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "gpu", *files]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = ran.stdout.strip().rpartition("\n")[2]
    if ran.returncode or "skipped" in last:
        raise RuntimeError(f"{last}\n{ran.stdout[-4000:]}")
    yield f"{last}."


# --------------------------------------------------------------------------------------------------
# extraction


def network(root: Path, args: argparse.Namespace) -> Iterator[str]:
    """The network on noise."""
    yield (
        "Only ResNet-50, on noise in memory that it may pin. Memory: the most that torch had "
        "allocated.\n"
    )
    rows = []
    for precision, size in NETWORKS if on_gpu(args) else NETWORKS[:2]:
        forget_peak(args)
        computer = weights(root, precision).load(Machine(device_of(args), size), None)
        rate = _rate_of(computer, 0.1 if args.tiny else 5.0)
        cells = (precision, computer.arithmetic, computer.batch_size)
        rows.append((*cells, f"{rate:,.0f}", peak(args)))
    header = ("precision", "arithmetic", "crops at once", "crops a second", "memory, GiB")
    yield from table(header, rows)


def _rate_of(computer: networks.Network, seconds: float) -> float:
    """Crops a second of a network in all its threads, on noise."""
    shape = (computer.lanes, computer.batch_size, CROP_SIZE, CROP_SIZE, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    computer.adopt(noise)

    def rate(batch: NDArray[np.uint8]) -> float:
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


def extraction(root: Path, args: argparse.Namespace) -> Iterator[str]:
    """Each kind of pixels, by a stream that costs nothing, and by the network in either
    precision.
    """
    yield (
        f"{args.rows:,} crops each, rates of the middle. Decode: a stream that costs nothing. "
        "Least cosine of"
    )
    yield "fast and exact features. Busy: of the fast extraction as a whole.\n"
    on, rows = Resources(device=device_of(args)), []
    for key, case in cases(args).items():
        features.make(root, key, case, args.rows)
        forget_peak(args)
        made = {
            "decode": features._MeanColours(),
            "fast": weights(root, "fast"),
            "exact": weights(root, "exact"),
        }
        specs = {name: StreamSpec(name, stream) for name, stream in made.items()}
        rates = {name: features._middle_rate(root, key, on, spec) for name, spec in specs.items()}
        split = cache.open(root / "cache")[f"{key}/train"]
        columns = (split.column(f"features/{name}") for name in ("fast", "exact"))
        fast, exact = (np.asarray(column[:COMPARED], np.float64) for column in columns)
        lengths = np.linalg.norm(fast, axis=1) * np.linalg.norm(exact, axis=1)
        least = float(((fast * exact).sum(axis=1) / lengths).min())
        if not least >= LEAST_COSINE:
            raise RuntimeError(
                f"{case.name}: fast features differ from exact ones: the least cosine is "
                f"{least:.5f}"
            )
        busy = ", ".join(f"{stage} {share:.0%}" for stage, share in rates["fast"][1].busy().items())
        shown = (f"{rates[name][0]:,.0f}" for name in specs)
        rows.append((case.name, *shown, busy, f"{least:.6f}", peak(args)))
    header = (
        "pixels",
        "decode, rows/s",
        "fast, rows/s",
        "exact, rows/s",
        "busy",
        "least cosine",
        "memory, GiB",
    )
    yield from table(header, rows)
    key, both = (
        next(iter(cases(args))),
        (StreamSpec("one", weights(root, "fast")), StreamSpec("pairs", Homography())),
    )
    meter = features.extract(root, key, on, *both).meter
    yield f"\n`resnet50` and `homography` of {cases(args)[key].name} in one pass: {meter}."


def two_processes(root: Path, args: argparse.Namespace) -> Iterator[str]:
    """The shards of a split by two processes, on two GPUs, or on the only one."""
    key, gpus = next(iter(cases(args))), "0,1" if torch.cuda.device_count() > 1 else "0,0"
    two = Resources(devices=gpus if on_gpu(args) else "cpu,cpu")
    meter = features.extract(root, key, two, StreamSpec("two", weights(root, "exact"))).meter
    split = cache.open(root / "cache")[f"{key}/train"]
    one, shared = (np.asarray(split.column(f"features/{name}")) for name in ("exact", "two"))
    if one.tobytes() != shared.tobytes():
        raise RuntimeError("two devices gave other exact features than one: are they of one kind?")
    yield (
        f"{cases(args)[key].name}, exact, devices {two.devices}, the same bytes as by one, "
        f"with its start: {meter}."
    )


def cases(args: argparse.Namespace) -> Mapping[str, features.Case]:
    """The kinds of pixels, images first."""
    if args.tiny:
        return {"tiny": features.TINY, "tiny_video": TINY_VIDEO}
    return CASES


Part = Callable[[Path, argparse.Namespace], Iterator[str]]
MEMORY: Final = "see with nvidia-smi whether other programs fill the GPU; the traceback is above."
PARTS: Final[Sequence[tuple[str, Part, str]]] = (
    (
        "The GPU",
        gpu,
        "`nvidia-smi` must show it, and torch must be built for CUDA (docs/installing.md).",
    ),
    ("Tests that need a GPU", tests, "run them: .venv/bin/python -m pytest -m gpu tests"),
    ("The network without decoding", network, MEMORY),
    ("Extraction", extraction, f"{MEMORY} `--rows 1000` is quicker."),
    ("Extraction by two processes", two_processes, f"{MEMORY} `[features] device` uses one."),
    (
        "Training",
        training,
        f"{MEMORY} The CPU gives the reference: `--tiny --device cpu` must pass.",
    ),
)

if __name__ == "__main__":
    main()
