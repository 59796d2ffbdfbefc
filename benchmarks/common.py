"""What reports of benchmarks begin with: the command, date and machine.  measurements -> [report]"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path


def report(about: str, title: str, lines: Iterable[str], args: argparse.Namespace) -> None:
    """Print the lines with their command, date and machine, and write them to `args.out` where that is set."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    software = f"Python {platform.python_version()}, NumPy {version('numpy')}, torch {version('torch')}"
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory:.0f} GiB, {gpu_of(args)}"
    command = " ".join((f".venv/bin/python benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]))
    text = [f"# {title}", "", f"{about} Made by `{command}`, which describes at its beginning what is compared.", ""]
    text += [f"{datetime.date.today()}, {machine}, {software}, a load of {os.getloadavg()[1]:.0f}.", "", *lines, ""]
    print("\n".join(text))
    if args.out:
        args.out.write_text("\n".join(text))


def gpu_of(args: argparse.Namespace) -> str:
    """The name of the GPU that `--device` names, if any."""
    if not getattr(args, "device", "").startswith("cuda"):
        return "no GPU used"
    import torch

    return torch.cuda.get_device_name(args.device)
