"""A copy of the project's code in which one number differs, as after a change that raised no
version.
"""

import shutil
import sys
from pathlib import Path

from tests.environments import run

ROOT = Path(__file__).parents[1]
PACKAGES = ("cache", "pipeline", "tasks", "vibe_model")
CHANGES = {
    "pipeline/people/boxes.py": ("REFERENCE_PX: Final = 150.0", "REFERENCE_PX: Final = 180.0"),
    "pipeline/people/homography.py": ("RESIDUAL: Final = 0.01", "RESIDUAL: Final = 0.05"),
}


def copy_code(folder):
    """Copy the packages into `folder`, with other boxes and homographies. Returns it, for
    PYTHONPATH.
    """
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name, (before, after) in CHANGES.items():
        text = (folder / name).read_text()
        assert text.count(before) == 1, name
        (folder / name).write_text(text.replace(before, after))
    return folder


def run_other(code, *words):
    """Run `python -m pipeline` of a copy. Returns what it prints."""
    done = run([sys.executable, "-m", "pipeline", *words], code, PYTHONPATH=str(code))
    assert done.returncode == 0, done.stderr
    return done.stdout
