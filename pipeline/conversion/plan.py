"""Plan of a conversion: what to read and drop, and why.  [raw -> tracks] -> features -> windows

`compare` lists the videos of a raw folder, compares them with what the cache has of the split, and
returns a `ConversionPlan`. Names, sizes and times of the raw files are compared with the cache's
records; contents are read only where sizes or times differ. Nothing is written.

Words:
    stamp       sizes and times of a video's files, as text: equal stamps, unchanged files
    digest      hash of a video's contents and paths: it tells a changed video from a touched one
    touched     a committed video with another stamp, but the same digest
    missing     a committed video with rows whose files are gone: its rows are kept
    unusable    a committed video whose files turned bad or lost rows: its rows are kept, too
    reader      what reads the videos: the dataset's code, with its version and options
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import cache
from cache import fingerprint
from pipeline.cli.progress import line_if_slow
from pipeline.cli.text import FEW, command, count, few
from pipeline.conversion.committed import (
    UNUSABLE,
    drop_command,
    earlier_reader,
    has_moved,
    list_rejected,
    missing_names,
    names_with_rows,
    recorded_reader,
    refuse_loss,
    refuse_mixed_cache,
    refuse_other_folder,
    why_empty,
)
from pipeline.conversion.identity import Difference, describe, find_differences, reader_parts
from pipeline.conversion.listing import list_videos
from pipeline.conversion.renamed import renamed_videos
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.files.raw import RawVideo, changes
from pipeline.processes.software import staging_plan

UNFINISHED: Final = "a killed run left something to finish or to remove"


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """What a conversion of one split would do, and why.

    It reads the videos `append`, drops the rows of the videos `drop` (a changed video is in both),
    and leaves the other committed videos alone.

    `compare` makes three kinds of plans. Besides the first eight fields, `drop_removed` and
    `listed`, they fill:
        first conversion    append, stamps
        other reader        append, drop, stamps, seen, missing, kept, differs: all are read again
        update              all fields but differs and invalidate
    """

    dataset: Dataset
    split: str
    raw: Path
    root: cache.Root
    body: Path | None
    reader: Mapping[str, Any]  # identity of the reader: `identity.reader_parts`
    committed: cache.Split | None  # the split in the cache, if any
    why: str = ""  # "" if the split is up to date

    # what to do
    append: tuple[RawVideo, ...] = ()  # new and changed videos
    drop: tuple[str, ...] = ()  # changed, renamed and removed videos
    renamed: Mapping[str, str] = field(default_factory=dict)  # new name -> old name
    invalidate: tuple[int, ...] = ()  # damaged shards to delete; `drop` has their videos

    # videos that stay
    kept: int = 0  # number of committed videos that are not in `drop`, including missing ones
    # missing video -> its missing file; "": all files
    missing: Mapping[str, str] = field(default_factory=dict)
    # unusable video -> why it was rejected, or how many rows it would lose
    unusable: Mapping[str, str] = field(default_factory=dict)
    drop_removed: bool = False  # the user lets the rows of missing and unusable videos go
    touched: tuple[str, ...] = ()  # videos with other sizes or times, but the same content

    # what was compared
    listed: tuple[RawVideo, ...] = ()  # all videos of the raw folder
    # by video of the updated split
    stamps: Mapping[str, changes.Stamp] = field(default_factory=dict)
    # as recorded at the last commit: by video, its stamp then, its digest, and if it was unusable
    seen: Mapping[str, changes.Seen] = field(default_factory=dict)
    moved: bool = False  # the raw folder has moved
    # differing parts of `reader`; if any, all videos are read again
    differs: tuple[Difference, ...] = ()

    @property
    def changed(self) -> tuple[str, ...]:
        """Committed videos that are read again, in order."""
        again = set(self.drop) - self.renamed.keys()
        return tuple(video.name for video in self.append if video.name in again)

    @property
    def new(self) -> tuple[str, ...]:
        """Videos that were not committed before, in order."""
        replaced = {*self.drop, *self.renamed}
        return tuple(video.name for video in self.append if video.name not in replaced)

    @property
    def removed(self) -> tuple[str, ...]:
        """Videos whose rows are deleted."""
        stay = {*(video.name for video in self.append), *self.renamed.values()}
        return tuple(name for name in self.drop if name not in stay)

    @property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split}"

    @property
    def up_to_date(self) -> bool:
        return not self.why

    @property
    def kept_lines(self) -> list[str]:
        """Messages about missing and unusable videos whose rows stay, with what to do; empty
        without any.
        """
        status = command("status", "--all", "--cache", str(self.root))
        drop = "" if self.committed is None else drop_command(self.committed, self.raw)
        or_delete = f"or delete their rows: {drop}"
        lines = []
        if self.missing:
            n_videos = count(len(self.missing), "video")
            shown = ", ".join(few(missing_names(self.missing), FEW, status))
            lines.append(
                f"{self.name}: {n_videos} missing from {self.raw}; the rows are kept: {shown}. "
                f"Restore them (is the disk mounted?), {or_delete}"
            )
        if self.unusable:
            n_videos = count(len(self.unusable), "video")
            shown = " ".join(few([*self.unusable.values()], FEW, status))
            lines.append(f"{self.name}: {n_videos} {UNUSABLE}: {shown} Restore them, {or_delete}")
        return lines

    @property
    def renamed_lines(self) -> list[str]:
        """The first renamed videos."""
        lines = [f"renamed {old} -> {name}" for name, old in self.renamed.items()]
        return few(lines, FEW, command("status", "--csv", "--cache", str(self.root)))

    @property
    def problems(self) -> list[str]:
        """Problems of a split with nothing to convert: missing or unusable videos, or no rows."""
        problems = self.kept_lines
        if self.committed is not None:
            problems += why_empty(self.committed)
        return problems

    @property
    def n_videos(self) -> int:
        """Number of committed videos, without those of other splits."""
        if self.committed is None:
            return 0
        return int(self.committed.manifest["accounting"]["videos"]["found"])

    @property
    def provenance(self) -> dict[str, str]:
        """Absolute raw folder and, if tracks depend on it, body folder."""
        folders = {"raw": str(self.raw.resolve())}
        if self.body is not None and self.reader["body"]:
            folders["body"] = str(self.body.resolve())
        return folders

    @property
    def staging(self) -> dict[str, Any]:
        """Plan of uncommitted work: a killed run is continued if it is equal, with its unchanged
        videos.
        """
        return staging_plan(fingerprint({"reader": dict(self.reader)}), self.dataset)

    def digests(self) -> dict[str, str]:
        """Name -> digest of every committed video."""
        if self.committed is None:
            return {}
        videos = self.committed.videos
        return dict(zip(videos.names, videos.fingerprints, strict=True))

    def recorded_stamps(self) -> dict[str, changes.Stamp]:
        """Stamps of committed videos whose content is still the committed one."""
        digests = self.digests()
        return {
            name: video.stamp
            for name, video in self.seen.items()
            if isinstance(video.stamp, str) and digests.get(name) == video.digest
        }

    def read_again(self, names: Collection[str]) -> ConversionPlan:
        """The plan to read only these committed videos again, even if their raw files have not
        changed.

        Missing videos stay as they are. Raises PipelineError if the split is not committed, or its
        reader differs.
        """
        if self.committed is None:
            raise PipelineError(f"{self.root}: {self.name} is not converted yet. Convert it first.")
        if self.differs:
            raise PipelineError(
                f"{self.name}: all videos must be converted again ({self.why}). Do that first."
            )
        present = set(names) - self.missing.keys()
        videos = tuple(video for video in self.listed if video.name in present)
        drop = tuple(video.name for video in videos)
        # The other videos keep their recorded stamps: new ones would hide changes.
        stamps = self.recorded_stamps() | {name: self.stamps[name] for name in drop}
        kept = len(self.committed.videos) - len(videos)
        why = ""
        if videos:
            why = f"{count(len(videos), 'video')} to read again"
        return replace(
            self, append=videos, drop=drop, kept=kept, renamed={}, stamps=stamps, why=why
        )


def plan_conversion(
    dataset: Dataset,
    split: str,
    *,
    raw: Path,
    root: cache.Root,
    body: Path | None = None,
    drop_removed: bool = False,
) -> ConversionPlan:
    """Compare the raw folder with the cache. Arguments and errors as `compare`."""
    committed = committed_split(root, f"{dataset.name}/{split}")
    return compare(
        committed, dataset, split, raw=raw, root=root, body=body, drop_removed=drop_removed
    )


def recorded_plan(
    split: cache.Split,
    raw: Path | None = None,
    body: Path | None = None,
    *,
    drop_removed: bool = False,
    retry: bool = False,
) -> ConversionPlan:
    """The plan of a committed split. Arguments and errors as `recorded_reader` and `compare`."""
    reader, raw, body = recorded_reader(split, raw, body)
    name = split.name.partition("/")[2]
    return compare(
        split,
        reader,
        name,
        raw=raw,
        root=split.root,
        body=body,
        drop_removed=drop_removed,
        retry=retry,
    )


@line_if_slow("comparing the raw files with the cache ...")
def compare(
    committed: cache.Split | None,
    dataset: Dataset,
    split: str,
    *,
    raw: Path,
    root: cache.Root,
    body: Path | None,
    drop_removed: bool = False,
    retry: bool = False,
) -> ConversionPlan:
    """The plan for an opened split; None: it is not in the cache yet.

    drop_removed: drop rows of missing and unusable videos. retry: read rejected and unusable videos
    again. Raises RawDataError if the raw folder is missing or another dataset's; PipelineError for
    an unknown split, other columns, and another raw folder; StandInMixed if demo data would replace
    real data, or the reverse.
    """
    dataset.check_split(split)
    dataset = dataset.detect_layout(raw, split)
    videos = list_videos(committed, dataset, split, raw)
    reader = reader_parts(dataset, split, raw, body)
    plan = ConversionPlan(
        dataset,
        split,
        raw,
        root,
        body,
        reader,
        committed,
        drop_removed=drop_removed,
        listed=videos,
    )
    if committed is None:
        refuse_mixed_cache(root, plan.name, stand_in=reader["stand_in"])
    else:
        columns = dataset.columns(split, body=reader["body"] is not None)
        refuse_loss(committed, raw, reader, columns)
    stamps = {video.name: changes.stamp(raw, video) for video in videos}
    plan = replace(plan, stamps=stamps)
    if committed is None:
        return replace(plan, append=videos, why="not converted before")
    return _compare_committed(plan, committed, retry=retry)


def _compare_committed(
    plan: ConversionPlan, committed: cache.Split, *, retry: bool
) -> ConversionPlan:
    """The plan to update a committed split, or to read all its videos again with another reader.

    plan: has what `compare` was asked for, and all listed videos with their stamps.
    """
    plan = replace(plan, seen=changes.read_stamps(plan.root, plan.name))
    before = committed.manifest["reader"]
    differs = tuple(find_differences(before, plan.reader))
    moved = has_moved(committed, plan.raw)
    unusable = {} if retry or plan.drop_removed else _find_unusable(plan)
    earlier = earlier_reader(committed) & plan.stamps.keys() - unusable.keys()
    retried = list_rejected(committed, plan.dataset, retry=retry) | earlier
    # If the reader differs, all videos are read again anyway. Then contents only matter in a moved
    # folder, to tell whether it has the same videos.
    update = _plan_update(
        replace(plan, unusable=unusable),
        committed,
        retried,
        compare_contents=moved or not differs,
    )
    if moved and not plan.drop_removed:
        n_same = update.kept + len(update.renamed) - len(update.missing)
        n_new = len(update.new)
        refuse_other_folder(committed, plan.raw, n_same=n_same, missing=update.missing, n_new=n_new)
    if differs:
        gone = update.missing
        append = tuple(video for video in plan.listed if video.name not in gone)
        drop = tuple(name for name in committed.videos.names if name not in gone)
        plan = replace(plan, append=append, drop=drop, stamps=update.stamps, kept=len(gone))
        return replace(plan, missing=gone, why=describe(before, plan.reader), differs=differs)

    why = _describe_update(update, retried)
    if not why and committed.has_unfinished_commit():
        why = UNFINISHED
    return replace(update, moved=moved and not update.missing, why=why)


def _find_unusable(plan: ConversionPlan) -> dict[str, str]:
    """Videos that were unusable when they were last read, and have not changed since -> why."""
    unusable = {}
    for name, video in plan.seen.items():
        if video.unusable and video.stamp == plan.stamps.get(name):
            unusable[name] = video.unusable
    return unusable


def _plan_update(
    plan: ConversionPlan, committed: cache.Split, retried: set[str], *, compare_contents: bool
) -> ConversionPlan:
    """Compare all listed videos with the committed ones, by stamp, then by digest.

    Returns the update without `why` and `moved`.

    retried: committed videos to read again, even if they have not changed. compare_contents:
    compute the digests of videos with other stamps; without, these are neither touched nor changed.
    """
    # listed videos: new, touched, changed, or else unchanged
    committed_digests = plan.digests()
    recorded = plan.recorded_stamps()
    new = [video for video in plan.listed if video.name not in committed_digests]
    suspects = _find_suspects(plan, committed_digests, recorded)
    digests = {}
    if compare_contents:
        digests = {video.name: changes.video_digest(plan.raw, video) for video in suspects}
    with_same_content = {
        name for name, digest in digests.items() if digest == committed_digests[name]
    }
    touched = with_same_content - retried
    reread = (digests.keys() - with_same_content) | retried
    changed = [video for video in plan.listed if video.name in reread]

    # committed videos that are not listed: renamed, missing, or else removed
    unlisted = {
        name: digest for name, digest in committed_digests.items() if name not in plan.stamps
    }
    renamed = renamed_videos(committed, plan.raw, unlisted, [*new, *changed], digests)
    old_names = set(renamed.values())
    vanished = [name for name in unlisted if name not in old_names]
    missing: dict[str, str] = {}
    if not plan.drop_removed:
        altered = [video for video in suspects if video.name not in touched]
        missing = _find_missing(plan, committed, recorded, vanished, altered)

    # a changed video may be missing, too: if a file is gone
    replaced = [video for video in changed if video.name not in missing]
    removed = set(vanished) - missing.keys()
    drop = old_names | removed | {video.name for video in replaced}
    stamps = {name: stamp for name, stamp in plan.stamps.items() if name not in missing}
    # missing videos keep their recorded stamps: new ones would hide that something is missing
    stamps |= {name: recorded[name] for name in missing if name in recorded}
    return replace(
        plan,
        append=tuple(sorted(new + replaced, key=lambda video: video.name)),
        drop=tuple(sorted(drop)),
        stamps=stamps,
        kept=len(committed_digests) - len(drop),
        touched=tuple(video.name for video in suspects if video.name in touched),
        missing=missing,
        renamed=renamed,
    )


def _find_suspects(
    plan: ConversionPlan,
    digests: Mapping[str, str],
    recorded: Mapping[str, changes.Stamp],
) -> list[RawVideo]:
    """Committed videos that may have changed: their stamp is not the recorded one.

    Unusable videos are not among them: their files are still those that were found unusable.
    """
    compared = digests.keys() - plan.unusable.keys()
    suspects = []
    for video in plan.listed:
        if video.name in compared and recorded.get(video.name) != plan.stamps[video.name]:
            suspects.append(video)
    return suspects


def _find_missing(
    plan: ConversionPlan,
    committed: cache.Split,
    recorded: Mapping[str, changes.Stamp],
    vanished: Collection[str],
    altered: Collection[RawVideo],
) -> dict[str, str]:
    """Videos with rows whose files are gone -> the missing file; "": all files.

    vanished: committed videos that the raw folder does not list. altered: those that it lists with
    another stamp and perhaps other content, which may be because a file is gone.
    """
    if not vanished and not altered:  # no look at the tracks, of which there may be millions
        return {}
    with_rows = names_with_rows(committed)
    missing = {name: "" for name in vanished if name in with_rows}
    for video in altered:
        path = changes.lost_input(recorded.get(video.name), plan.stamps[video.name])
        if path and video.name in with_rows:
            missing[video.name] = path
    return missing


def _describe_update(update: ConversionPlan, retried: set[str]) -> str:
    """Why an update is needed, `1 new video, 2 changed videos`; "" if it is not."""
    committed = update.digests().keys()
    names = {video.name for video in update.append} - update.renamed.keys()
    counts = {
        "new video": len(names - committed),
        "changed video": len(names & (committed - retried)),
        "renamed video": len(update.renamed),
        "removed video": len(update.removed),
        "unreadable video": len(names & retried),
    }
    return ", ".join(count(n, noun) for noun, n in counts.items() if n)


def committed_split(root: cache.Root, name: str) -> cache.Split | None:
    """The split in the cache; None if there is no such split or cache, or it was deleted.

    Raises MissingSplit if its disk does not seem to be mounted.
    """
    features = cache.FeatureCache(root)
    if features.is_committed(name):
        return cache.open(root)[name]
    features.refuse_unmounted(name)
    return None
