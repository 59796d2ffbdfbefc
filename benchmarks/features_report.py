"""The report of benchmarks/features.py. What was not measured is a dash."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from features_measured import CROPPED, PIXELS, Found, Measured, Options, median

GOAL: Final = 4.0  # times the usual way's rate; 5 is the aim
AIM: Final = 5.0
SHARE: Final = 0.9  # of what the limits together allow
COSINE: Final = 0.9999
EXACT: Final = 1e-5  # of exact to torch's own layers
GPU_CROPS: Final = 15_000  # a second, of the network by itself on an H200
GPU_COMMAND: Final = "benchmarks/features.py --device cuda --frames 40000 --usual 2000"

NOTHING: Final = "-"


def report(
    measured: Sequence[Measured], agreed: Found, held: Sequence[tuple[int, int, Found]], options: Options | None
) -> str:
    """All tables. `options` None: nothing has been measured, and this is the form."""
    by_key = {one.key: one for one in measured}
    keys = [*by_key] if options else list(PIXELS)
    cases = [by_key.get(key, Measured(key)) for key in keys]
    on_gpu = options is not None and options.device.startswith("cuda")
    lines = [
        "# How fast are features extracted?",
        "",
        "Made by `.venv/bin/python benchmarks/features.py --out benchmarks/features.md`; what is compared, and how,",
        "stands at its beginning. Pictures and weights are made up: rates do not depend on what is in them.",
        "",
        *machine(agreed, options),
        "",
        "## Speed",
        "",
        f"Crops a second, the median of the rounds (lowest - highest). The goal is {GOAL:.0f} times the usual way in "
        f"every case, {AIM:.0f} times the aim, and {SHARE:.0%} of what both limits together allow.",
        "",
        "| pixels | KB each | ours : usual | worst round | usual | ours | both limits | ours : limits | worst round |",
        "|---|---|---|---|---|---|---|---|---|",
        *(speed_line(one) for one in cases),
        "",
        "## The limits, and what starting costs",
        "",
        "Decoding includes cropping. `start` is what the whole process took beyond its rows at the steady rate.",
        "",
        "| pixels | decode: pictures/s | decode: crops/s | network: crops/s | ours, whole process: crops/s | start s | "
        "busy: decode, crop | busy: network |",
        "|---|---|---|---|---|---|---|---|",
        *(limit_line(one) for one in cases),
        "",
        *agreement_lines(agreed, keys[0]),
        *memory_lines(held),
        "## GPU",
        "",
        *(gpu_lines(cases) if on_gpu else unmeasured()),
        "",
    ]
    return "\n".join(lines)


def machine(agreed: Found, options: Options | None) -> list[str]:
    if options is None:
        return ["TO BE MEASURED: a dash is a figure that is not there yet."]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    what = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory:.0f} GiB"
    device = f" {torch.cuda.get_device_name(options.device)}," if options.device != "cpu" else ""
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}"
    return [
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {what},{device} {versions}, a load of "
        f"{os.getloadavg()[0]:.1f} at the end. The network computes in {agreed['arithmetic']}. Rounds: "
        f"{options.rounds}; in each, ours computes {options.crops:,} crops, the usual way {options.usual:,}."
    ]


def speed_line(one: Measured) -> str:
    has_usual = one.key != CROPPED
    cells = [
        PIXELS[one.key],
        f"{one.kb:.0f}" if one.kb else NOTHING,
        told(one.ratios if has_usual else [], lambda r: f"**{median(r):.1f}**"),
        told(one.ratios if has_usual else [], lambda r: f"{min(r):.1f}"),
        told(one.rates("usual"), spread),
        told(one.rates("ours"), spread),
        told(one.rates("limits", "together_crops_a_second"), spread),
        told(one.shares, lambda r: f"**{median(r):.0%}**"),
        told(one.shares, lambda r: f"{min(r):.0%}"),
    ]
    return row(cells)


def limit_line(one: Measured) -> str:
    starts = [run["wall"] - run["crops"] / run["crops_a_second"] for run in one.ours]
    decoding = [run["busy"].get("decode", 0.0) + run["busy"].get("crop", 0.0) for run in one.ours]
    cells = [
        PIXELS[one.key],
        told(one.rates("limits", "pictures_a_second"), spread),
        told(one.rates("limits"), spread),
        told(one.rates("limits", "network_crops_a_second"), spread),
        told([run["crops"] / run["wall"] for run in one.ours], spread),
        told(starts, lambda r: f"{median(r):.1f}"),
        told(decoding, lambda r: f"{median(r):.0%}"),
        told([run["busy"].get("network", 0.0) for run in one.ours], lambda r: f"{median(r):.0%}"),
    ]
    return row(cells)


def agreement_lines(agreed: Found, key: str) -> list[str]:
    told_of = f"all {agreed['crops']:,} crops" if agreed else "all crops"
    figures = {
        f"fast : exact, smallest cosine (goal {COSINE})": ("cosine", ".7f"),
        "fast : exact, largest error of a crop, by its length": ("relative", ".2e"),
        "fast : exact, largest error of a number, by the largest of its crop": ("largest", ".2e"),
        f"exact : torchvision's layers in fp32, largest error by the largest number (goal {EXACT:g})": ("exact", ".2e"),
    }
    return [
        "## Agreement",
        "",
        f"Over {told_of} of {PIXELS[key]}, before an untrained network's features are standardised.",
        "",
        "| | |",
        "|---|---|",
        *(
            row([what, format(agreed[name], form) if name in agreed else NOTHING])
            for what, (name, form) in figures.items()
        ),
        "",
    ]


def memory_lines(held: Sequence[tuple[int, int, Found]]) -> list[str]:
    rows = [
        row([f"{dim:,}", f"{size:,}", f"{found['peak_mib']:.0f}", f"{found['pss_mib']:.0f}", f"{found['wall']:.1f}"])
        for dim, size, found in held
    ]
    form = [row([dim, size, *[NOTHING] * 3]) for dim in ("3", "2,048") for size in ("1,000", "40,000", "100,000")]
    return [
        "## Memory",
        "",
        "Tiny pictures and streams that cost nothing to compute: what is told is the extraction's own. A few shards",
        "are open at a time, of 8,192 rows each: they grow with the numbers a row, not with the frames of the split.",
        "",
        "| numbers a row | frames | peak RSS of the process, MiB | peak PSS with its decoders, MiB | s |",
        "|---|---|---|---|---|",
        *(rows or form),
        "",
    ]


def gpu_lines(cases: Sequence[Measured]) -> list[str]:
    return [
        f"The goals are {SHARE:.0%} of the smaller limit, and {GPU_CROPS:,} crops a second of the network on an H200.",
        "",
        "| pixels | GPU busy, by nvidia-smi | ours : smaller limit | network: crops/s | ours: crops/s |",
        "|---|---|---|---|---|",
        *(gpu_line(one) for one in cases),
    ]


def gpu_line(one: Measured) -> str:
    busy = [run["gpu_busy"] for run in one.ours if run["gpu_busy"] is not None]
    cells = [
        PIXELS[one.key],
        told(busy, lambda r: f"{median(r):.0%}"),
        told(one.shares, lambda r: f"**{median(r):.0%}**"),
        told(one.rates("limits", "network_crops_a_second"), spread),
        told(one.rates("ours"), spread),
    ]
    return row(cells)


def unmeasured() -> list[str]:
    figures = (
        f"network, crops a second (goal {GPU_CROPS:,} on an H200)",
        f"ours : smaller limit, pictures and videos (goal {SHARE:.0%})",
        f"ours : smaller limit, stored crops (goal {SHARE:.0%})",
        "GPU busy, share of the time",
    )
    said = f"unmeasured: no GPU at hand; `.venv/bin/python {GPU_COMMAND}` measures it"
    return ["| | |", "|---|---|", *(row([figure, said]) for figure in figures)]


def told(numbers: list[float], how: Callable[[list[float]], str]) -> str:
    return how(numbers) if numbers else NOTHING


def spread(numbers: list[float]) -> str:
    return f"{figure(median(numbers))} ({figure(min(numbers))} - {figure(max(numbers))})"


def figure(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
