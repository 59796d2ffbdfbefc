"""How long does it take from a clone to the report?

    .venv/bin/python benchmarks/fresh_clone.py --out benchmarks/fresh_clone.md

Clones this repository's last commit into a folder of its own, and runs the README's commands there, one after the
other: what a new user waits for. How long pip takes depends on the network. DEMO DATA: the embedded
default.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
STEPS: Final = (  # a command, and what it is to a new user
    ("make setup", "packages"),
    ("make data", "data, converted and extracted"),
    ("make data", "again: nothing to do"),
    ("make train", "VIBE and its per-frame baseline trained and evaluated"),
    ("make report", "HMMR trained and evaluated, and the report"),
    ("make report", "again: nothing to do"),
)


def main() -> None:
    """Run each step in a clone, and write how long it took. Raises CalledProcessError for one that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the report; else it is printed")
    args = parser.parse_args()
    rows, after = [], 0.0
    with tempfile.TemporaryDirectory(prefix="fresh-clone-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for command, what in STEPS:
            began = time.monotonic()
            subprocess.run(command.split(), cwd=clone, check=True, stdout=sys.stderr)  # so that one sees how far it is
            seconds = time.monotonic() - began
            rows.append(f"| `{command}` | {what} | {seconds:.0f} |")
            after += 0 if command == "make setup" or "again" in what else seconds
        size = (clone / "runs/report.html").stat().st_size
    text = f"""# How long does it take from a clone to the report?

DEMO DATA, the embedded default. Made by `.venv/bin/python benchmarks/fresh_clone.py`.

{date.today()}, {len(os.sched_getaffinity(0))} cores ({platform.machine()}), Python {platform.python_version()}, \
a load of {os.getloadavg()[2]:.1f} at the end.

| command | what | seconds |
|---|---|---|
{chr(10).join(rows)}

From data to report, once the packages are there: {after / 60:.1f} minutes. The report has {size / 1e6:.1f} MB.
"""
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
