"""What a conversion would do, and why.  [raw -> tracks] -> features -> windows

Planning looks at names, sizes and times of the raw files and at what the cache has; it reads no label that has not
changed. `pipeline.conversion.convert` does what a plan says.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import cache
from cache import fingerprint
from pipeline.cli.text import command, count
from pipeline.conversion.differences import Difference, differing
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError, RawDataError
from pipeline.raw import RawVideo
from pipeline.raw import changes as inputs
from pipeline.raw.stand_in import is_stand_in, refuse_mixture

UNSETTLED: Final = "a killed run has left something to finish or to clear up"


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """What a conversion would do, and why. Cheap to make: it reads no label that has not changed."""

    dataset: Dataset
    split: str
    raw: Path
    root: cache.Root
    body: Path | None
    reader: Mapping[str, Any]  # all that decides the tracks besides the raw files
    append: tuple[RawVideo, ...]  # new or changed
    drop: tuple[str, ...]  # committed videos that changed or are gone
    kept: int  # committed videos that stay as they are
    stamps: Mapping[str, inputs.Stamp]
    why: str  # in words; "" when there is nothing to do
    differs: tuple[Difference, ...] = ()  # why all videos are read again: parts of `reader`
    was: Mapping[str, inputs.Stamp] = field(default_factory=dict)  # how changed videos looked when they were read
    touched: tuple[str, ...] = ()  # videos that looked changed and are not: what says so is their whole content
    forget: tuple[int, ...] = ()  # damaged shards that the split names no longer; their videos are among `drop`

    @property
    def changed(self) -> tuple[str, ...]:
        """Committed videos that are read again, in order."""
        gone = frozenset(self.drop)
        return tuple(video.name for video in self.append if video.name in gone)

    @property
    def new(self) -> tuple[str, ...]:
        gone = frozenset(self.drop)
        return tuple(video.name for video in self.append if video.name not in gone)

    @property
    def removed(self) -> tuple[str, ...]:
        again = {video.name for video in self.append}
        return tuple(name for name in self.drop if name not in again)

    @property
    def name(self) -> str:
        return name_of(self.dataset, self.split)

    @property
    def up_to_date(self) -> bool:
        return not self.why

    @property
    def identity(self) -> str:
        """What a killed run must have been doing for this one to go on from it."""
        videos = {video.name: self.stamps[video.name] for video in self.append}
        return fingerprint({"reader": dict(self.reader), "append": videos, "drop": sorted(self.drop)})


def name_of(dataset: Dataset, split: str) -> str:
    """The split's name in the cache."""
    return f"{dataset.name}/{split}"


def reader_parts(dataset: Dataset, split: str, raw: Path, body: Path | None) -> dict[str, Any]:
    """All that can change a split's tracks besides its raw files.

    Raises StandInMixed when a stand-in and the real thing would meet, MissingAssets without the body's files.
    """
    parts: dict[str, Any] = {
        "dataset": dataset.name,
        "split": split,
        "version": dataset.version,
        "parameters": dataset.parameters(),
        "stand_in": is_stand_in(raw),
        "body": None,
    }
    if dataset.uses_body and body is not None:
        from pipeline.smpl import assets  # imports a part of SciPy that takes as long to load as all the rest

        digests = {gender: assets.digest(body, gender) for gender in dataset.genders}
        refuse_mixture(raw, parts["stand_in"], body, any(stands_in for _, stands_in in digests.values()))
        parts["body"] = " ".join(digest for digest, _ in digests.values())
    plain: dict[str, Any] = json.loads(json.dumps(parts))  # as the manifest gives it back: a tuple becomes a list
    return plain


def plan_conversion(
    dataset: Dataset, split: str, *, raw: Path, root: cache.Root, body: Path | None = None
) -> ConversionPlan:
    """Compare what lies in the raw folder with what the cache has of it.

    Raises RawDataError when the raw folder is missing or not the dataset's, PipelineError for an unknown split, where
    the columns would be others than the committed ones, and where the raw folder has nothing left of what is committed.
    """
    committed = committed_split(root, name_of(dataset, split))
    return compare_raw(dataset, split, raw=raw, root=root, body=body, committed=committed)


def compare_raw(
    dataset: Dataset,
    split: str,
    *,
    raw: Path,
    root: cache.Root,
    body: Path | None,
    committed: cache.Split | None,
    any_reader: bool = False,
) -> ConversionPlan:
    """The same for a split that is open; None: there is none yet.

    `any_reader`: compare the videos one by one also where another reader than this one has read them.
    """
    with _no_collection():
        videos = _listed(dataset, split, raw)
        reader = reader_parts(dataset, split, raw, body)
        stamps = {video.name: inputs.stamp(raw, video) for video in videos}
    name = name_of(dataset, split)
    make = functools.partial(ConversionPlan, dataset, split, raw, root, body, reader, stamps=stamps)
    if committed is None:
        return make(append=tuple(videos), drop=(), kept=0, why="not converted before")
    _refuse_what_is_no_update(f"{root}/{name}", committed, dataset, raw, videos, reader)
    known, before = digests_of(committed), committed.manifest["reader"]
    if (differs := differing(before, reader)) and not any_reader:
        why = "; ".join(changes(before, reader))
        return make(append=tuple(videos), drop=tuple(known), kept=0, why=why, differs=tuple(differs))
    with _no_collection():
        seen = inputs.read_stamps(root, name)
    return make(**_video_by_video(raw, seen, videos, stamps, known, unsettled=committed.has_unfinished_commit()))


def _refuse_what_is_no_update(
    folder: str,
    committed: cache.Split,
    dataset: Dataset,
    raw: Path,
    videos: Sequence[RawVideo],
    reader: Mapping[str, Any],
) -> None:
    """Raise PipelineError where a conversion would destroy what is committed rather than bring it up to date."""
    before = committed.manifest["reader"]
    if "imported" in before:
        raise PipelineError(
            f"{folder}: was imported from {before['imported']['file']}: a conversion would replace its rows and leave "
            "its features without them. Convert into another cache, or remove that split, its features included."
        )
    columns = dataset.columns(committed.name.partition("/")[2], body=reader["body"] is not None)
    _refuse_other_columns(folder, committed, columns, reader)
    n_known = len(committed.videos)
    if n_known and not videos:
        raise PipelineError(
            f"{raw}: expected videos of {committed.name}, found none, and the cache has {count(n_known, 'video')} of "
            f"it. Is this the raw folder, and is it whole? If all of them are to go, remove {folder}."
        )


def _video_by_video(
    raw: Path,
    seen: Mapping[str, inputs.Seen],
    videos: Sequence[RawVideo],
    stamps: Mapping[str, inputs.Stamp],
    known: Mapping[str, str],
    *,
    unsettled: bool,
) -> dict[str, Any]:
    """What a plan says of the videos where the reader is the same: those that are new, changed, gone or touched."""
    new = [v for v in videos if v.name not in known]
    unlike = [v for v in videos if v.name in known and seen.get(v.name) != (stamps[v.name], known[v.name])]
    altered = [v for v in unlike if inputs.video_digest(raw, v) != known[v.name]]  # a look does not tell: content does
    changed = {v.name for v in altered}
    gone = sorted(known.keys() - stamps.keys())
    told = [(len(new), "new"), (len(altered), "changed"), (len(gone), "removed")]
    why = ", ".join(f"{n} {word} video{'s' if n > 1 else ''}" for n, word in told if n)
    return {
        "append": tuple(sorted(new + altered, key=lambda v: v.name)),
        "drop": tuple(sorted([v.name for v in altered] + gone)),
        "kept": len(known) - len(altered) - len(gone),
        "why": why or (UNSETTLED if unsettled else ""),
        "was": {name: seen[name][0] for name in changed if _is_of(seen.get(name), known, name)},
        "touched": tuple(v.name for v in unlike if v.name not in changed),
    }


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of objects without a cycle among them: searching them for cycles takes as long as making them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def plan_again(
    dataset: Dataset, split: str, names: Collection[str], *, raw: Path, root: cache.Root, body: Path | None = None
) -> ConversionPlan:
    """Read these committed videos once more, whether or not their raw files changed, and nothing else.

    Those that are no longer in the raw folder stay as they are. Raises PipelineError when the split is not committed,
    or when another reader would read them than read the rest; else as `plan_conversion`.
    """
    videos = {video.name: video for video in _listed(dataset, split, raw)}
    reader = reader_parts(dataset, split, raw, body)
    name = name_of(dataset, split)
    committed = committed_split(root, name)
    if committed is None:
        raise PipelineError(f"{root}: {name} is not converted yet: convert it first")
    if told := changes(committed.manifest["reader"], reader):
        why = "; ".join(told)
        raise PipelineError(f"{name}: all of it is to be converted anew, since {why}: convert it instead of a retry")
    known = digests_of(committed)
    again = tuple(videos[video] for video in sorted(names) if video in videos)
    # Stamps of the others are those of their commit: a change since then must not be hidden by a look at it now.
    stamps = {name: seen[0] for name, seen in inputs.read_stamps(root, name).items() if _is_of(seen, known, name)}
    stamps |= {video.name: inputs.stamp(raw, video) for video in again}
    drop = tuple(video.name for video in again)
    why = f"{len(again)} video{'s' if len(again) != 1 else ''} to be tried again" if again else ""
    return ConversionPlan(
        dataset, split, raw, root, body, reader, again, drop, len(known) - len(drop), stamps=stamps, why=why
    )


def _is_of(seen: inputs.Seen | None, known: Mapping[str, str], name: str) -> bool:
    """Does what stamps.json holds of a video, whoever wrote it, belong to its committed content?"""
    return seen is not None and isinstance(seen[0], str) and name in known and seen[1] == known[name]


def _listed(dataset: Dataset, split: str, raw: Path) -> list[RawVideo]:
    """The split's raw videos, with names that tables can hold."""
    dataset.check_split(split)
    try:
        listed = [(video, inputs.utf8(video.name)) for video in dataset.videos(raw, split)]
    except RawDataError as error:
        if raw.name != dataset.name:  # doctor wants the folder that holds <dataset>/
            raise
        more = command("doctor", dataset.name, "--raw", str(raw.parent))
        raise error.with_more(f"`{more}` says more.") from None
    return [video if video.name == name else replace(video, name=name) for video, name in listed]


def _refuse_other_columns(
    folder: str, committed: cache.Split, columns: Sequence[str], reader: Mapping[str, Any]
) -> None:
    """Raise PipelineError where this conversion would fill other columns than the committed ones: they never change."""
    held = set(committed.columns)
    if held == set(columns):
        return
    kinds = [
        f"{'without' if parts['body'] is None else 'with'} a body model"
        for parts in (committed.manifest["reader"], reader)
    ]
    was, now = kinds if kinds[0] != kinds[1] else ("by another version of the reader", "by this one")
    told = {"lack": sorted(set(columns) - held), "have besides": sorted(held - set(columns))}
    lacks = " and ".join(f"{verb} {', '.join(names)}" for verb, names in told.items() if names)
    before = committed.manifest["reader"]
    if before["stand_in"] != reader["stand_in"]:
        raise PipelineError(
            f"{folder}: was made from {_kind(before)}, and would now be made from {_kind(reader)}: its rows {lacks}. "
            "Keep the two apart: name another cache (--cache, or [paths] cache in luigi.cfg), or remove that folder, "
            "its features included."
        )
    raise PipelineError(
        f"{folder}: was converted {was}, and would now be converted {now}: its rows {lacks}. A split's columns stay "
        "the same over all commits. Remove that folder, its features included, and convert the split anew, or convert "
        f"it {was}, as before."
    )


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Why another reader than before is at work, in words; empty when it is the same.

    >>> changes({"stand_in": True, "version": 1}, {"stand_in": False, "version": 2})
    ['what was there was made from embedded stand-in data, and this is real data']
    """
    if before["stand_in"] == now["stand_in"]:
        return differences(before, now)
    return [f"what was there was made from {_kind(before)}, and this is {_kind(now)}"]


def _kind(reader: Mapping[str, Any]) -> str:
    return "embedded stand-in data" if reader["stand_in"] else "real data"


def both_kinds(plan: ConversionPlan, but: Collection[str] = ()) -> str:
    """That a cache is about to hold stand-ins beside real data, in words; "" where it is not.

    `but`: splits that do not count, as those that the same run makes anew.
    """
    if not (others := sorted(_of_the_other_kind(plan) - {plan.name, *but})):
        return ""
    kinds = ("embedded stand-in data", "real data")
    this, that = kinds if plan.reader["stand_in"] else reversed(kinds)
    return (
        f"{plan.root}: will hold both kinds, {plan.name} from {this} and {', '.join(others)} from {that}: training "
        "refuses to use them together. Another cache (--cache, or [paths] cache in luigi.cfg) keeps them apart."
    )


def _of_the_other_kind(plan: ConversionPlan) -> set[str]:
    """Splits that are stand-ins where this one is real, or the other way round. `verify` tells what is unreadable."""
    found: set[str] = set()
    with contextlib.suppress(cache.CacheError):
        opened = cache.open(plan.root)
        for name in opened.splits:
            with contextlib.suppress(cache.CacheError):
                if bool(opened[name].manifest.get("stand_in")) != plan.reader["stand_in"]:
                    found.add(name)
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which parts of a fingerprint differ, in words.

    >>> differences({"version": 1, "body": None}, {"version": 2, "body": None})
    ['version was 1, is 2']
    """
    return [str(difference) for difference in differing(before, now)]


def committed_split(root: cache.Root, name: str) -> cache.Split | None:
    """The split as it is in the cache; None when there is no such split, or no cache yet."""
    return cache.open(root)[name] if name in cache.FeatureCache(root) else None


def digests_of(committed: cache.Split | None) -> dict[str, str]:
    """Name -> digest of every committed video."""
    if committed is None:
        return {}
    return dict(zip(committed.videos.names, committed.videos.fingerprints, strict=True))
