"""Is a download complete, and where the reader expects it?  [raw] -> tracks -> features -> windows

By the names of files and folders alone, from the parts and the known mistakes that each dataset declares
(`pipeline.datasets.base`): seconds on a full download. Three checks are the same for all datasets: missing, still
packed, one folder off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.accounting import Totals
from pipeline.cli.text import FEW, count
from pipeline.datasets import OWN_CLIPS
from pipeline.datasets.base import Dataset, Mistake, Part, globs, unexpected
from pipeline.detect.clips import EXTENSIONS, clips_in, others_in
from pipeline.errors import RawDataError
from pipeline.files.formats import smpl_files
from pipeline.files.raw import listing
from pipeline.files.raw.files import is_folder
from pipeline.files.raw.stand_in import MARKER

BODY: Final = "body"  # the name under which the body model's files are examined
BODY_PAGE: Final = "https://smpl.is.tue.mpg.de"
SPIN: Final = "data of SPIN, by fetch_data.sh of github.com/nkolot/SPIN"
ARCHIVE: Final = "SMPL_python_v.1.1.0.zip: smpl/models/basicmodel_{}_lbs_10_207_0_v1.1.0.pkl, renamed to {}.pkl"
WITHOUT: Final = "bodies of {} actors in evaluation"
BODY_PARTS: Final = (
    Part("SMPL, neutral", ("SMPL_NEUTRAL.{pkl,npz}",), ARCHIVE.format("neutral", "SMPL_NEUTRAL")),
    Part("joints for spin49", (smpl_files.REGRESSOR_EXTRA,), SPIN),
    Part("Human3.6M's joints", (smpl_files.REGRESSOR_H36M,), SPIN),
    Part("mean parameters", (smpl_files.MEAN_PARAMS,), SPIN),
    *(
        Part(
            f"SMPL, {gender}", (f"{name}.{{pkl,npz}}",), ARCHIVE.format(gender[0], name), without=WITHOUT.format(gender)
        )
        for gender, name in (("male", "SMPL_MALE"), ("female", "SMPL_FEMALE"))
    ),
)
BODY_MISTAKES: Final = tuple(
    Mistake(f"{folder}basicmodel_<gender>_<version>.pkl", "has its name in SMPL's archive", "Rename it: see below.")
    for folder in ("", "*/")
)


class Problem(NamedTuple):
    """What is wrong with a raw folder, and what to do."""

    what: str
    do: str


@dataclass(frozen=True, slots=True)
class Found:
    """One part of a release, and how many of its files or folders were found."""

    part: Part
    found: int
    known: int | None  # how many the release has; None: not known, or demo data, which are no release

    @property
    def state(self) -> str:
        """there, incomplete, missing, or left out: missing and not needed."""
        if not self.found:
            return "left out" if self.part.without else "missing"
        return "incomplete" if self.known is not None and self.found < self.known else "there"


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found in one raw folder."""

    dataset: str
    page: str
    raw: Path
    splits: tuple[str, ...]
    stand_in: bool
    parts: tuple[Found, ...]
    mistakes: tuple[Problem, ...]
    packed: tuple[Path, ...]  # archives, which may hold what is missing
    uses_body: bool = False
    excuse: str = ""  # why the user need not get what is missing

    @property
    def missing(self) -> tuple[Found, ...]:
        """The parts without which a split cannot be converted."""
        return tuple(found for found in self.parts if found.state == "missing")

    @property
    def incomplete(self) -> tuple[Found, ...]:
        """The parts of which fewer files were found than the release has."""
        return tuple(found for found in self.parts if found.state == "incomplete")

    @property
    def usable(self) -> tuple[str, ...]:
        """The splits of which every needed part was found, complete or not."""
        lacking = {split for found in self.missing for split in found.part.splits or self.splits}
        return tuple(split for split in self.splits if split not in lacking)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        parts = [
            {
                "what": found.part.what,
                "where": globs(found.part.patterns),
                "source": found.part.source,
                "without": found.part.without,
                "splits": list(found.part.splits or self.splits),
                "found": found.found,
                "known": found.known,
                "state": self.excuse if self.excuse and found.state == "missing" else found.state,
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
    """Examine a dataset's own raw folder. Raises for nothing that is or is not in it."""
    found = _examine(dataset.name, dataset.page, raw, dataset.splits, dataset.parts, dataset.mistakes)
    found = replace(found, uses_body=dataset.uses_body)
    if (found.stand_in and found.parts) or any(part.known for part in found.parts):
        return found
    listed, defects = _listed_videos(dataset, raw, compare=not found.stand_in)
    if not dataset.page:  # one's own clips need not be in every split
        listed = [row for row in listed if row.found] or listed
        found = replace(found, splits=tuple(split for row in listed for split in row.part.splits))
    if dataset.name in OWN_CLIPS and (others := others_in(raw)):
        names = ", ".join(others[:FEW]) + ", ..." * (len(others) > FEW)
        what = f"{count(len(others), 'file')} below it {'is no clip' if len(others) == 1 else 'are no clips'}: {names}"
        defects.append(Problem(what, f"Clips end in {', '.join(EXTENSIONS)}."))
    return replace(found, parts=(*found.parts, *listed), mistakes=(*found.mistakes, *dict.fromkeys(defects)))


def examine_body(folder: Path) -> Examination:
    """Examine the body model's folder."""
    return _examine(BODY, BODY_PAGE, folder, (), BODY_PARTS, BODY_MISTAKES)


def _examine(
    name: str, page: str, raw: Path, splits: tuple[str, ...], parts: Sequence[Part], mistakes: Sequence[Mistake]
) -> Examination:
    unreadable: listing.Unreadable = {}
    stand_in = listing.is_there(raw / MARKER)
    counts = [sum(1 for glob in globs(part.patterns) for _ in listing.find(raw, glob, unreadable)) for part in parts]
    found = tuple(Found(p, n, None if stand_in else p.known) for p, n in zip(parts, counts, strict=True))
    packed = _packed(raw, parts)
    shown = [(m, [path for glob in globs([m.pattern]) for path in listing.find(raw, glob, {})]) for m in mistakes]
    known = (Problem(f"{min(paths)} {mistake.what}", mistake.do) for mistake, paths in shown if paths)
    problems = (*_problems(raw, found, packed, unreadable), *known)
    return Examination(name, page, raw, splits, stand_in, found, problems, packed)


def unclaimed(raw: Path, own: Collection[str], parts: Sequence[Part]) -> dict[Path, int]:
    """Folders of `raw` with clips that are no dataset's, and how many they are; they can be read as `videos`.

    own: folders in `raw` that are a dataset's affair. parts: of all datasets; where some of one are in `raw` itself, it
    is that dataset's folder, and there is nothing to report.
    """
    if any(listing.any_fits(raw, globs(part.patterns)) for part in parts):
        return {}
    entries = [entry for entry in listing.listed(raw, {}) if not entry.name.startswith(".")]
    folders = [entry.name for entry in entries if is_folder(entry)]
    if not set(own) & set(folders) and any(Path(entry.name).suffix.lower() in EXTENSIONS for entry in entries):
        return {raw: len(clips_in(raw))}
    found = {raw / name: len(clips_in(raw / name)) for name in sorted(set(folders) - set(own))}
    return {folder: n for folder, n in found.items() if n}


def clashing(examined: Sequence[Examination], body: Examination | None) -> list[Examination]:
    """Usable datasets that would mix demo data with real data, if they were converted with this body."""
    if body is None or body.missing:
        return []
    return [e for e in examined if e.usable and e.uses_body and e.stand_in != body.stand_in]


def mixtures(examined: Sequence[Examination], body: Examination | None) -> Iterator[Problem]:
    """Demo data that would meet real data: conversion refuses them with a body, training with each other."""
    kinds = {True: "demo data", False: "real"}
    for e in clashing(examined, body):
        assert body is not None
        what = f"{e.dataset} is {kinds[e.stand_in]}, but the body in {body.raw} is {kinds[body.stand_in]}"
        yield Problem(what, "Point [paths] body (or --body) at SMPL's files for real data.")
    demo, real = ([e.dataset for e in examined if e.usable and e.stand_in == kind] for kind in kinds)
    if demo and real:
        what = f"{', '.join(demo)}: demo data, beside real {', '.join(real)}"
        yield Problem(what, "They can be converted, but no training takes both: enable one kind in [data] datasets.")


def _listed_videos(dataset: Dataset, raw: Path, *, compare: bool) -> tuple[list[Found], list[Problem]]:
    """The videos that the reader lists: for a dataset that declares no parts, or no number of them but of videos."""
    declared = {split: total for split, total in dataset.totals.items() if total.videos is not None}
    rows, defects = [], []
    for split, total in (declared if dataset.parts else {s: declared.get(s, Totals()) for s in dataset.splits}).items():
        splits, videos = dataset.splits if split == "all" else (split,), set[str]()
        try:
            videos = {video.name for each in splits for video in dataset.videos(raw, each)}
        except RawDataError as error:
            if not dataset.parts:  # else it shows as a missing part
                defects.append(Problem(str(error), ""))
        except Exception as error:  # a reader from another package may fail in any way
            do = "A defect of its reader: please report it to its authors."
            defects.append(Problem(f"{dataset.name} cannot be examined: {unexpected(error)}", do))
        if videos or not dataset.parts:
            source = "the download" if dataset.page else "your own clips, or another folder: --raw DIR"
            part = Part("videos" if split == "all" else f"videos of {split}", (), source, splits)
            rows.append(Found(part, len(videos), total.videos if compare else None))
    return rows, defects


def _problems(
    raw: Path, parts: Sequence[Found], packed: Sequence[Path], unreadable: listing.Unreadable
) -> Iterator[Problem]:
    """What goes wrong with any download."""
    if raw.is_symlink() and not listing.is_there(raw):
        yield Problem(f"{raw} is a link to {raw.readlink()}, which is not there", "Is that disk mounted?")
    for place, why in sorted(unreadable.items()):
        yield Problem(f"{place} cannot be read: {why}", "Get the permission to read it.")
    absent = [found.part for found in parts if found.state == "missing"]
    if absent and (elsewhere := _elsewhere(raw, absent)) is not None:
        do = f"Move what is in {elsewhere}, so that it is in {raw}."
        if elsewhere == raw.parent:
            own = elsewhere.resolve()
            renamed = "" if own.name == raw.name else f", with {own.name}/ renamed to {raw.name}"
            do = f"Name the folder above: --raw {own.parent}{renamed}."
        yield Problem(f"{' and '.join(part.what for part in absent)}: one folder off, in {elsewhere}", do)
    elif any(not found.part.without and found.state != "there" for found in parts):
        for folder in dict.fromkeys(archive.parent for archive in packed):
            first, *others = [archive for archive in packed if archive.parent == folder]
            count = f"{first} and {len(others)} more are" if others else f"{first} is"
            yield Problem(f"{count} still packed", f"Unpack in {raw}: {listing.unpacking(first.name)}.")


def _elsewhere(raw: Path, parts: Sequence[Part]) -> Path | None:
    """The folder that holds `parts` instead of `raw`: below it, above it, or beside it in other capitals."""
    patterns = [glob for part in parts for glob in globs(part.patterns)]
    if listing.is_folder_there(raw):
        return listing.deeper(raw, patterns)
    beside = [f for f in listing.folders_in(raw.parent) if listing.letters(f.name) == listing.letters(raw.name)]
    return next((place for place in (raw.parent, *beside) if listing.any_fits(place, patterns)), None)


def _packed(raw: Path, parts: Sequence[Part]) -> tuple[Path, ...]:
    """Archives in the raw folder; where there is none, beside its place, under the names that the parts give."""
    if listing.is_folder_there(raw):
        return tuple(listing.packed(raw))
    named = [part.source.lower() for part in parts]
    return tuple(file for file in listing.packed(raw.parent) if any(file.name.lower() in source for source in named))
