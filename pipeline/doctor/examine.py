"""Is a download all there, and does it lie as it should?  [raw] -> tracks -> features -> windows

`examine` compares a dataset's raw folder with the parts that its release consists of (`pipeline.datasets.release`), by
names alone: seconds on a full download. It knows no dataset, so one from another package is examined like ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.datasets.base import Dataset
from pipeline.datasets.release import Mistake, Part
from pipeline.doctor import mistakes as raw_mistakes
from pipeline.errors import RawDataError
from pipeline.raw import listing
from pipeline.raw.stand_in import MARKER
from pipeline.smpl import assets

State = Literal["there", "incomplete", "missing", "left out"]

SMPL: Final = "SMPL_python_v.1.1.0.zip: smpl/models/basicmodel_{}_lbs_10_207_0_v1.1.0.pkl, renamed"
SPIN: Final = "data of SPIN, by fetch_data.sh of github.com/nkolot/SPIN"
BODY: Final = "body"  # the name under which the body model's files are examined
BODY_PAGE: Final = "https://smpl.is.tue.mpg.de"


def _smpl(gender: str, letters: str, without: str = "") -> Part:
    name = f"SMPL_{gender.upper()}"
    source = f"{SMPL.format(letters)} to {name}.pkl"
    return Part(f"SMPL, {gender}", (f"{name}.pkl", f"{name}.npz"), source, without=without)


BODY_PARTS: Final = (
    _smpl("neutral", "neutral"),
    Part("joints for spin49", (assets.REGRESSOR_EXTRA,), SPIN),
    Part("Human3.6M's joints", (assets.REGRESSOR_H36M,), SPIN),
    Part("mean parameters", (assets.MEAN_PARAMS,), SPIN),
    _smpl("male", "m", without="no evaluation with male actors' own bodies"),
    _smpl("female", "f", without="no evaluation with female actors' own bodies"),
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

    @property
    def too_many(self) -> bool:
        """More than the release has: of two kinds of the same, or not of the release."""
        return self.known is not None and self.found > self.known


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
    packed: tuple[Path, ...] = ()  # archives there, which may hold what is missing
    misplaced: tuple[Part, ...] = ()  # of which something is there, elsewhere or under another name

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
    there: listing.Unreadable = {}
    told = _told_by(dataset, raw) if _is_folder(raw) else []
    packed = _packed(raw, dataset.parts)
    if dataset.parts:
        known, defects = ([None] * len(dataset.parts), []) if stand_in else _known(dataset, raw)
        parts = _count(dataset.parts, raw, there, known)
        general, misplaced = _mistakes(dataset.name, raw, parts, there, told, packed)
        mistakes = [*general, *defects]
        if not stand_in and all(n is None for n in known):
            listed, defects = _beside_totals(dataset, raw)
            parts, mistakes = (*parts, *listed), [*mistakes, *defects]
    else:
        parts, mistakes = _listed_videos(dataset, raw)
        mistakes, misplaced = [*raw_mistakes.unreachable(dataset.name, (), raw), *mistakes, *told], ()
    mistakes += _marked_as_stand_in(raw, parts)
    return Examination(
        dataset.name, dataset.page, raw, dataset.splits, dataset.uses_body, stand_in, parts, tuple(mistakes),
        packed, misplaced,
    )  # fmt: skip


def examine_body(folder: Path) -> Examination:
    """Look at the body model's folder."""
    there: listing.Unreadable = {}
    packed = _packed(folder, BODY_PARTS)
    parts = _count(BODY_PARTS, folder, there, [None] * len(BODY_PARTS))
    mistakes, misplaced = _mistakes("", folder, parts, there, list(_smpl_file_names(folder)), packed)
    return Examination(
        BODY,
        BODY_PAGE,
        folder,
        (),
        False,
        _stands_in(folder),
        parts,
        tuple(mistakes),
        _packed(folder, BODY_PARTS),
        misplaced,
    )


def _mistakes(
    name: str,
    raw: Path,
    parts: Sequence[Found],
    unreadable: listing.Unreadable,
    told: Sequence[Mistake],
    packed: Sequence[Path],
) -> tuple[list[Mistake], tuple[Part, ...]]:
    """What goes wrong with any download, and what is `told` of this one, without what follows from something else.

    And the parts that are misplaced.
    """
    if not _is_folder(raw):
        all_parts = [found.part for found in parts]
        mistakes = list(raw_mistakes.unreachable(name, all_parts, raw))
        astray = len(mistakes) > len(raw_mistakes.beside(all_parts, raw))
        return mistakes, tuple(all_parts) if astray else ()
    lacking = [found.part for found in parts if found.state != "there"]
    absent = [found.part for found in parts if not found.found]
    mistakes = list(raw_mistakes.unreadable(unreadable))
    if others := [mistake for mistake in told if mistake.instead]:
        return [*mistakes, *others], ()
    misplaced, concerned = raw_mistakes.misplaced(raw, lacking, absent)
    if misplaced:
        return [*mistakes, *misplaced], tuple(concerned)
    mistakes += raw_mistakes.empty(raw, absent)
    if any(not part.without for part in lacking):
        mistakes += raw_mistakes.still_packed(raw, packed)
    return [*mistakes, *told], ()


def _packed(raw: Path, parts: Sequence[Part]) -> tuple[Path, ...]:
    return tuple(listing.packed(raw) if _is_folder(raw) else raw_mistakes.beside(parts, raw))


def clash(examined: Examination, body: Examination) -> bool:
    """Would a stand-in meet the real thing, if the dataset were converted with this body?"""
    return examined.uses_body and not body.missing and examined.stand_in != body.stand_in


def mixtures(examined: Sequence[Examination], body: Examination | None) -> Iterator[Mistake]:
    """Stand-ins that would meet the real thing: conversion refuses them with a body, training with each other."""
    there = [e for e in examined if e.usable]
    kinds = {True: "a stand-in", False: "real"}
    for e in there:
        if body is not None and clash(e, body):
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
    parts: Sequence[Part], raw: Path, unreadable: listing.Unreadable, known: Sequence[int | None]
) -> tuple[Found, ...]:
    """How many files or folders there are of each part, beside how many are known of it."""
    return tuple(
        Found(part, sum(1 for pattern in part.patterns for _ in listing.find(raw, pattern, unreadable)), n)
        for part, n in zip(parts, known, strict=True)
    )


def _beside_totals(dataset: Dataset, raw: Path) -> tuple[list[Found], list[Mistake]]:
    """What the reader lists, where only the videos of the release are known and not how much of each part it has."""
    rows, defects = [], []
    for split, total in dataset.totals.items():
        splits = dataset.splits if split == "all" else (split,)
        try:
            videos = {video.name for each in splits for video in dataset.videos(raw, each)}
        except RawDataError:
            continue  # what it misses is told as a missing part
        except Exception as error:  # as above
            defects.append(_defect(dataset, error))
            continue
        if videos and total.videos is not None:
            what = "videos" if split == "all" else f"videos of {split}"
            rows.append(Found(Part(what, (), "the download", splits), len(videos), total.videos))
    return rows, defects


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


def _marked_as_stand_in(raw: Path, parts: Sequence[Found]) -> Iterator[Mistake]:
    """A marker that was left behind makes real data look like embedded data."""
    counted = [found for found in parts if found.part.known]
    if _stands_in(raw) and counted and all(found.found >= (found.part.known or 0) for found in counted):
        what = f"{raw / MARKER} marks this as embedded stand-in data, but it is as large as the release"
        yield Mistake(what, "If it is the real download, remove that file.")


def _smpl_file_names(folder: Path) -> Iterator[Mistake]:
    for place in (folder, *listing.folders_in(folder)):
        for file in sorted(entry.name for entry in listing.listed(place, {})):
            if (model := _SMPL_FILE.fullmatch(file)) is not None:
                wanted = f"SMPL_{_GENDERS[model[1].lower()]}.pkl"
                if not (folder / wanted).exists():
                    yield Mistake(f"{place / file} has the name of SMPL's archive", f"Move it to {folder / wanted}.")


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path's own raises where a folder above may not be read


def _stands_in(folder: Path) -> bool:
    return os.path.isfile(folder / MARKER)  # noqa: PTH113 - likewise
