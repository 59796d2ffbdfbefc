"""Is a download all there, and does it lie as it should?  [raw] -> tracks -> features -> windows

`examine` compares a dataset's raw folder with the parts that its release consists of (`pipeline.datasets.release`), by
names alone: seconds on a full download. It knows no dataset, so one from another package is examined like ours.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pipeline import assets, raw_names
from pipeline.datasets.base import Dataset
from pipeline.datasets.release import Mistake, Part
from pipeline.errors import RawDataError
from pipeline.stand_in import MARKER

State = Literal["there", "incomplete", "missing", "left out"]

SMPL: Final = "SMPL for Python, of smpl.is.tue.mpg.de, renamed"
SPIN: Final = "data of SPIN, by fetch_data.sh of github.com/nkolot/SPIN"
BODY: Final = "body"  # the name under which the body model's files are examined
BODY_PAGE: Final = "https://smpl.is.tue.mpg.de"
BODY_PARTS: Final = (
    Part("SMPL, neutral", ("SMPL_NEUTRAL.pkl", "SMPL_NEUTRAL.npz"), SMPL),
    Part("joints for spin49", (assets.REGRESSOR_EXTRA,), SPIN),
    Part("Human3.6M's joints", (assets.REGRESSOR_H36M,), SPIN),
    Part("mean parameters", (assets.MEAN_PARAMS,), SPIN),
    Part("SMPL, male", ("SMPL_MALE.pkl", "SMPL_MALE.npz"), SMPL, without="no evaluation with the actors' own bodies"),
    Part("SMPL, female", ("SMPL_FEMALE.pkl", "SMPL_FEMALE.npz"), SMPL, without="as without the male one"),
)
# What SMPL's own archives call their models, by version.
_SMPL_FILE: Final = re.compile(r"basicmodel_(neutral|m|f)_.*\.pkl", re.IGNORECASE)
_GENDERS: Final = {"neutral": "NEUTRAL", "m": "MALE", "f": "FEMALE"}


@dataclass(frozen=True, slots=True)
class Found:
    """One part of a release, and how much of it lies there."""

    part: Part
    found: int
    known: int | None  # how many the release has; None: not known, or stand-ins, which are no release

    @property
    def state(self) -> State:
        if not self.found:
            return "left out" if self.part.without else "missing"
        return "incomplete" if self.known is not None and self.found < self.known else "there"


@dataclass(frozen=True, slots=True)
class Examination:
    """What a look at one raw folder found."""

    dataset: str
    page: str
    raw: Path
    splits: tuple[str, ...]
    uses_body: bool
    stand_in: bool
    parts: tuple[Found, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def missing(self) -> tuple[Found, ...]:
        """The parts without which a split cannot be converted."""
        return tuple(found for found in self.parts if found.state == "missing")

    @property
    def incomplete(self) -> tuple[Found, ...]:
        """The parts of which there is something, and less than the release has."""
        return tuple(found for found in self.parts if found.state == "incomplete")

    @property
    def usable(self) -> tuple[str, ...]:
        """The splits of which every needed part is there, if not all of it."""
        lacking = [found.part.splits or self.splits for found in self.missing]
        return tuple(split for split in self.splits if not any(split in splits for splits in lacking))

    def as_dict(self) -> dict[str, Any]:
        """For a machine to read."""
        parts = [
            {
                "what": found.part.what,
                "where": list(found.part.patterns),
                "source": found.part.source,
                "splits": list(found.part.splits or self.splits),
                "found": found.found,
                "known": found.known,
                "state": found.state,
                "without": found.part.without,
            }
            for found in self.parts
        ]
        return {
            "dataset": self.dataset,
            "page": self.page,
            "raw": str(self.raw),
            "stand_in": self.stand_in,
            "splits": list(self.splits),
            "usable": list(self.usable),
            "parts": parts,
            "mistakes": [mistake._asdict() for mistake in self.mistakes],
        }


def examine(dataset: Dataset, raw: Path) -> Examination:
    """Look at a dataset's own raw folder. Never raises for what lies there, or does not."""
    stand_in = _stands_in(raw)
    unreadable: raw_names.Unreadable = {}
    if dataset.parts:
        known, defects = ([None] * len(dataset.parts), []) if stand_in else _known(dataset, raw)
        parts = _count(dataset.parts, raw, unreadable, known)
        mistakes = [*_mistakes(dataset.name, dataset.parts, raw, parts, unreadable), *defects]
    else:
        parts, mistakes = _listed_videos(dataset, raw)
        mistakes = [*_unreachable(dataset.name, (), raw), *mistakes]
    if _is_folder(raw):
        mistakes += [*_told_by(dataset, raw), *_marked_as_stand_in(raw, parts)]
    return Examination(
        dataset.name, dataset.page, raw, dataset.splits, dataset.uses_body, stand_in, parts, tuple(mistakes)
    )


def examine_body(folder: Path) -> Examination:
    """Look at the body model's folder."""
    unreadable: raw_names.Unreadable = {}
    parts = _count(BODY_PARTS, folder, unreadable, [None] * len(BODY_PARTS))
    mistakes = [*_mistakes(BODY, BODY_PARTS, folder, parts, unreadable), *_smpl_file_names(folder)]
    return Examination(BODY, BODY_PAGE, folder, (), False, _stands_in(folder), parts, tuple(mistakes))


def mixtures(examined: Sequence[Examination], body: Examination | None) -> Iterator[Mistake]:
    """Stand-ins that would meet the real thing: conversion refuses them with a body, training with each other."""
    there = [e for e in examined if e.usable]
    kinds = {True: "a stand-in", False: "real"}
    for e in there:
        if body is not None and not body.missing and e.uses_body and e.stand_in != body.stand_in:
            what = f"{e.dataset} is {kinds[e.stand_in]}, but the body in {body.raw} is {kinds[body.stand_in]}"
            yield Mistake(what, "Point [paths] body (or --body) at SMPL's files for real data.")
    stand_ins = [e.dataset for e in there if e.stand_in]
    real = [e.dataset for e in there if not e.stand_in]
    if stand_ins and real:
        what = f"{', '.join(stand_ins)}: stand-ins, beside real {', '.join(real)}"
        yield Mistake(what, "They can be converted, but no training takes both: enable one kind in [data] datasets.")


def _known(dataset: Dataset, raw: Path) -> tuple[Sequence[int | None], list[Mistake]]:
    """How many of each part the release has, as far as the dataset can say."""
    try:
        return [dataset.known(raw, part) for part in dataset.parts], []
    except Exception as error:  # other people's code may fail in any way: the other datasets are examined all the same
        return [None] * len(dataset.parts), [_defect(dataset, error)]


def _count(
    parts: Sequence[Part], raw: Path, unreadable: raw_names.Unreadable, known: Sequence[int | None]
) -> tuple[Found, ...]:
    """How many files or folders there are of each part, beside how many are known of it."""
    return tuple(
        Found(part, sum(1 for pattern in part.patterns for _ in raw_names.find(raw, pattern, unreadable)), n)
        for part, n in zip(parts, known, strict=True)
    )


def _listed_videos(dataset: Dataset, raw: Path) -> tuple[tuple[Found, ...], list[Mistake]]:
    """A dataset that says nothing of its release: what its reader lists of each split."""
    parts, mistakes = [], []
    for split in dataset.splits:
        totals = dataset.totals.get(split)
        known = None if totals is None or _stands_in(raw) else totals.videos
        n_videos = 0
        try:
            n_videos = len(dataset.videos(raw, split))
        except RawDataError as error:
            mistakes.append(Mistake(str(error), ""))
        except Exception as error:  # as above
            mistakes.append(_defect(dataset, error))
        parts.append(Found(Part(f"videos of {split}", (), "the download", (split,)), n_videos, known))
    return tuple(parts), mistakes


def _told_by(dataset: Dataset, raw: Path) -> list[Mistake]:
    """What the dataset itself knows to go wrong."""
    told: list[Mistake] = []
    try:
        told.extend(dataset.mistakes(raw))
    except OSError as error:
        told.append(Mistake(f"{error.filename or raw} cannot be read: {error.strerror}", "Mend that, and look again."))
    except Exception as error:  # as above
        told.append(_defect(dataset, error))
    return told


def _defect(dataset: Dataset, error: Exception) -> Mistake:
    what = f"looking at {dataset.name} failed: {type(error).__name__}: {error}"
    return Mistake(what, "A defect of its reader: please report it to those who wrote it.")


def _mistakes(
    name: str, parts: Sequence[Part], raw: Path, found: Sequence[Found], unreadable: raw_names.Unreadable
) -> Iterator[Mistake]:
    """What goes wrong with any download."""
    yield from _unreachable(name, parts, raw)
    if not _is_folder(raw):
        return
    for place, why in sorted(unreadable.items()):
        yield Mistake(f"{place} cannot be read: {why}", "Take the right to read it, or have its owner give it.")
    lacking = [f.part for f in found if f.state != "there"]
    absent = [f.part for f in found if not f.found and not f.part.without]
    patterns = [pattern for part in absent for pattern in part.patterns]
    misspelt = {seen for seen in (raw_names.misspelt(raw, pattern) for pattern in patterns) if seen is not None}
    for there, wanted in sorted(misspelt):
        yield Mistake(f"{there} is there, {wanted!r} is its name in the release", f"Rename it to {wanted}.")
    if absent and not misspelt and (deep := raw_names.deeper(raw, patterns)) is not None:
        what = f"{' and '.join(part.what for part in absent if raw_names.any_fits(deep, part.patterns))} lie in {deep}"
        yield Mistake(f"{what}: unpacked too deep", f"Move all that is in {deep} to {raw}.")
    for empty in sorted({e for e in (raw_names.empty_folder(raw, pattern) for pattern in patterns) if e is not None}):
        yield Mistake(f"{empty} is empty", f"What belongs there comes with {_sources(absent)}.")
    if lacking:
        yield from _still_packed(raw)


def _unreachable(name: str, parts: Sequence[Part], raw: Path) -> Iterator[Mistake]:
    """Why there is no raw folder, as far as the folder around it tells."""
    try:
        if stat.S_ISDIR(raw.stat().st_mode):
            return
        yield Mistake(f"{raw} is no folder", f"Put the download into a folder of that name: {_sources(parts)}.")
    except (FileNotFoundError, NotADirectoryError):
        if raw.is_symlink():
            yield Mistake(f"{raw} is a link to {raw.readlink()}, which is not there", "Is that disk mounted?")
        else:
            yield from _elsewhere(name, parts, raw)
    except OSError as error:
        yield Mistake(f"{raw} cannot be reached: {error.strerror}", "Take the right to read it, or mend the link.")


def _elsewhere(name: str, parts: Sequence[Part], raw: Path) -> Iterator[Mistake]:
    """What lies around the place where the raw folder should be."""
    patterns = [pattern for part in parts if not part.without for pattern in part.patterns]
    if (spelt := raw_names.same_but_for_spelling(raw.parent, raw.name)) is not None:
        yield Mistake(f"there is {raw.parent / spelt}, but no {raw.name}/ beside it", f"Rename it to {raw.name}.")
    elif name != BODY and raw_names.any_fits(raw.parent, patterns):
        what = f"{raw.parent} itself holds {name}, and {raw} is looked at"
        yield Mistake(
            what, f"Name the folder above as the raw folder, and let {raw.parent.name}/ be called {raw.name}."
        )
    for file in raw_names.packed(raw.parent):
        if any(file.name.lower() in part.source.lower() for part in parts):
            yield Mistake(f"{file} is still packed", f"Unpack it, so that its content lies in {raw}.")


def _still_packed(raw: Path) -> Iterator[Mistake]:
    if archives := raw_names.packed(raw):
        more = f" and {len(archives) - 1} more archives are" if len(archives) > 1 else " is"
        yield Mistake(f"{archives[0]}{more} still packed", "Unpack (unzip, tar -xf), and look again.")
    if partial := raw_names.packed(raw, raw_names.UNFINISHED):
        more = (
            f" and {len(partial) - 1} more are unfinished downloads"
            if len(partial) > 1
            else " is an unfinished download"
        )
        yield Mistake(f"{partial[0]}{more}", "Finish downloading.")


def _marked_as_stand_in(raw: Path, parts: Sequence[Found]) -> Iterator[Mistake]:
    """A marker that was left behind makes real data look like embedded data."""
    counted = [found for found in parts if found.part.known]
    if _stands_in(raw) and counted and all(found.found >= (found.part.known or 0) for found in counted):
        what = f"{raw / MARKER} marks this as embedded stand-in data, but it is as large as the release"
        yield Mistake(what, "If it is the real download, remove that file.")


def _smpl_file_names(folder: Path) -> Iterator[Mistake]:
    for place in (folder, *raw_names.folders_in(folder)):
        for file in sorted(entry.name for entry in raw_names.listed(place, {})):
            if (model := _SMPL_FILE.fullmatch(file)) is not None:
                wanted = f"SMPL_{_GENDERS[model[1].lower()]}.pkl"
                if not (folder / wanted).exists():
                    yield Mistake(f"{place / file} has the name of SMPL's archive", f"Move it to {folder / wanted}.")


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path's own raises where a folder above may not be read


def _stands_in(folder: Path) -> bool:
    return os.path.isfile(folder / MARKER)  # noqa: PTH113 - likewise


def _sources(parts: Iterable[Part]) -> str:
    return ", ".join(dict.fromkeys(part.source for part in parts))
