"""`make clean`: delete demo data, and all that was made of them.  [raw, cache, runs]

Works in the working folder. A folder is deleted as a whole, or not at all if it has a file that may
not be made of demo data.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cache.format import layout
from pipeline.cli.console import out, plain
from pipeline.demo.writing import LAYOUTS, find_foreign

RAW: Final = Path("data/embedded/raw")
BODY: Final = Path("data/embedded/body")
CACHE: Final = Path("data/cache")
RUNS: Final = Path("runs")
_NAME: Final = layout.NAME
_HOME: Final = rf"({layout.FEATURES}/{_NAME}/)?"  # of a manifest, below a split
_OF_SPLIT: Final = re.compile(  # files of docs/cache-format.md
    rf"(?P<split>{_NAME}/{_NAME})/"
    rf"((({layout.FEATURES}|{layout.TABLE_FOLDER})/)?(zarr\.json|{_NAME}/(zarr\.json|c(/\d+)+))"
    rf"|{_HOME}(manifest\.json|provenance\.json|stamps\.json|seal\.npz)"
    rf"|{_HOME}\.(writing|commit)/.+)"
)
_OF_CACHE: Final = re.compile(rf"({_NAME}/)?zarr\.json")
_OF_RUN: Final = re.compile(  # below runs/<run>/
    r"config\.json|curves\.jsonl|metrics\.json|results\.csv|(last|best|best\.next)\.pt|(sequences|worst_windows)\.(json|csv)"
    r"|events\.out\.tfevents\..+|predictions/.+\.npz|\..+\.part|\.writing/lock"
)
_OF_RUNS: Final = ("report.html", "report.csv", "ablation.csv", "ablation.json")


def clean() -> None:
    """Delete the folders that have demo data only. Print which folders stay, and why."""
    for folder in (*(RAW / name for name in LAYOUTS), BODY):
        _remove(folder, find_foreign)
    _remove(CACHE, _find_foreign_in_cache)
    _remove(RUNS, _find_foreign_in_runs)


def _find_foreign_in_cache(folder: Path) -> str:
    """Find a file in a cache that was not made of demo data, or belongs to no cache; "" if none."""
    splits = set()
    for path in _paths(folder):
        if (folder / path).is_symlink():
            return path
        if _OF_CACHE.fullmatch(path):
            continue
        match = _OF_SPLIT.fullmatch(path)
        if match is None:
            return path
        splits.add(match["split"])
    manifests = (f"{split}/{layout.MANIFEST}" for split in sorted(splits))
    return _find_real(folder, manifests)


def _find_foreign_in_runs(folder: Path) -> str:
    """Find a file in a folder of runs that no training on demo data has written; "" if none."""
    trained = set()
    for path in _paths(folder):
        run, _, inner = path.partition("/")
        if (folder / path).is_symlink():
            return path
        if path in _OF_RUNS:
            continue
        if not _OF_RUN.fullmatch(inner):
            return path
        trained.add(run)
    return _find_real(folder, (f"{run}/config.json" for run in sorted(trained)))


def _paths(folder: Path) -> Iterator[str]:
    """All files, and links to folders, below a folder."""
    for top, folders, names in os.walk(folder):
        links = [name for name in folders if Path(top, name).is_symlink()]
        for name in sorted((*names, *links)):
            yield Path(top, name).relative_to(folder).as_posix()


def _find_real(folder: Path, records: Iterator[str]) -> str:
    """The first of these JSON files that does not say `stand_in`."""
    for record in records:
        try:
            is_demo = json.loads((folder / record).read_bytes())["stand_in"] is True
        except (OSError, ValueError, KeyError, TypeError):
            is_demo = False
        if not is_demo:
            return record
    return ""


def _remove(folder: Path, find: Callable[[Path], str]) -> None:
    if not folder.is_dir():
        return
    foreign = "a link"
    if not folder.is_symlink():
        foreign = find(folder)
    if foreign:
        text = (
            f"{folder} is left: not all of it is known to be demo data ({foreign}). To "
            f"delete it: rm -r {folder}"
        )
        out.print(plain(text), soft_wrap=True)
    else:
        shutil.rmtree(folder)


if __name__ == "__main__":
    clean()
