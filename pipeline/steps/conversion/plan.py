"""Plan of a conversion: what to read and drop, and why.  [raw -> tracks] -> features -> windows

`plan_conversion` lists the videos of a raw folder, compares them with what the cache has of the
split (`Comparison`), and returns a `ConversionPlan`. Nothing is written. The *reader* is what reads
the videos: the dataset's code, with its version and options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import cache
from cache import fingerprint
from pipeline.cli.text import FEW, command, count, few
from pipeline.datasets.base import Dataset
from pipeline.datasets.conversion_record import LEAVE_OUT, ConversionRecord, committed_split
from pipeline.datasets.detected.by_clip import check_patterns
from pipeline.errors import PipelineError
from pipeline.files.raw import RawVideo, changes
from pipeline.processes.software import staging_plan
from pipeline.steps.conversion.comparison import Comparison, compare
from pipeline.steps.conversion.identity import Difference, find_differences, reader_parts
from pipeline.steps.conversion.keep import NOTHING, Kind, MayGo, RowsBefore, reasons_of_kind
from pipeline.steps.conversion.listing import OtherSplits, list_videos
from pipeline.steps.conversion.refusals import refuse_loss, refuse_mixed_cache, refuse_other_folder
from pipeline.steps.conversion.selection import ALL_ROWS, RowSelection

UNFINISHED: Final = "a killed run left something to finish or to remove"


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """What a conversion of one split would do, and why.

    It reads the videos `append`, drops the rows of the videos `drop` (a changed video is in both),
    and leaves the other committed videos alone.

    `plan_conversion` makes three kinds of plans. Besides the first eight fields and `listed`, they
    fill:
        first conversion    append, stamps
        other reader        append, drop, stamps, seen, kept, may_go, differs: all are read again
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
    kept: Mapping[str, RowsBefore] = field(default_factory=dict)  # whatever their files give now
    may_go: MayGo = NOTHING
    touched: tuple[str, ...] = ()  # videos with other sizes or times, but the same content

    selection: RowSelection = ALL_ROWS  # which of the reader's tracks and rows are taken
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
    def others(self) -> OtherSplits:
        return OtherSplits(self.dataset, self.split, self.raw, self.root)

    @property
    def up_to_date(self) -> bool:
        return not self.why

    @property
    def missing(self) -> dict[str, str]:
        """Missing video -> its missing file; "": all files."""
        return reasons_of_kind(self.kept, Kind.MISSING)

    @property
    def missing_lines(self) -> list[str]:
        """The missing videos, each with the file that is gone if others are there:
        `b (without b/labels.json)`.
        """
        missing = self.missing.items()
        return [f"{video} (without {file})" if file else video for video, file in missing]

    @property
    def unusable(self) -> dict[str, str]:
        """Unusable video -> why it was rejected, or how many rows it would lose."""
        return reasons_of_kind(self.kept, Kind.UNUSABLE)

    @property
    def n_left_alone(self) -> int:
        """Number of committed videos that are not in `drop`, including missing ones."""
        return 0 if self.committed is None else len(self.committed.videos) - len(self.drop)

    @property
    def kept_lines(self) -> list[str]:
        """Messages about missing and unusable videos whose rows stay, with what to do; empty
        without any.
        """
        status = command("status", "--all", "--cache", str(self.root))
        if self.committed is None or not self.kept:
            return []
        drop = ConversionRecord(self.committed).drop_command(self.raw)
        or_delete = f"or delete their rows: {drop}"
        lines = []
        if self.missing:
            shown = ", ".join(few(self.missing_lines, FEW, status))
            lines.append(
                f"{count(len(self.missing), 'video')} missing from {self.raw}; the rows are kept: "
                f"{shown}. Restore them (is the disk mounted?), {or_delete}"
            )
        if self.unusable:
            shown = " ".join(few([*self.unusable.values()], FEW, status))
            lines.append(
                f"{count(len(self.unusable), 'video')} would lose rows; the rows are kept: "
                f"{shown} Restore them, {or_delete}"
            )
        moved = [name for name, stays in self.kept.items() if stays.may_have_moved]
        commands = self.others.convert_commands(moved) if moved else []
        if commands:
            stay = "videos that have moved to another split stay until it is converted"
            lines.append(f"{stay}: {' && '.join(commands)}")
        return [f"{self.name}: {line}" for line in lines]

    @property
    def problems(self) -> list[str]:
        """Problems of a split with nothing to convert: missing or unusable videos, or no rows."""
        problems = self.kept_lines
        if self.committed is not None:
            problems += ConversionRecord(self.committed).why_empty()
        return problems

    @property
    def n_videos(self) -> int:
        """Number of committed videos, without those of other splits."""
        if self.committed is None:
            return 0
        return int(self.committed.manifest["accounting"]["videos"]["found"])

    @property
    def provenance(self) -> dict[str, str]:
        """Absolute raw folder, list of left-out tracks, "" for none, and, if tracks depend on it,
        body folder.
        """
        folders = {"raw": str(self.raw.resolve())}
        if self.body is not None and self.reader["body"]:
            folders["body"] = str(self.body.resolve())
        leave_out = self.selection.leave_out
        folders[LEAVE_OUT] = "" if leave_out is None else str(leave_out.resolve())
        return folders

    @property
    def staging(self) -> dict[str, Any]:
        """Plan of uncommitted work: a killed run is continued if it is equal, with its unchanged
        videos.
        """
        parts: dict[str, Any] = {"reader": dict(self.reader)}
        left_out = [name for video in self.listed for name in video.left_out]
        if left_out:
            parts[LEAVE_OUT] = left_out
        if self.may_go.drop:  # what it has dropped is not taken over by a run that may not
            parts["drop"] = True
        return staging_plan(fingerprint(parts), self.dataset)

    def digests(self) -> dict[str, str]:
        """Name -> digest of every committed video."""
        return {} if self.committed is None else ConversionRecord(self.committed).digests()

    def recorded_stamps(self) -> dict[str, changes.Stamp]:
        """Stamps of committed videos whose content is still the committed one."""
        return {} if self.committed is None else ConversionRecord(self.committed).stamps(self.seen)


def recorded_plan(
    split: cache.Split,
    raw: Path | None = None,
    body: Path | None = None,
    selection: RowSelection | None = None,
    **ways: bool,
) -> ConversionPlan:
    """The plan to convert a committed split again, as it was converted.

    raw, body: new places of the folders, if they moved. selection: in place of the recorded one.
    Raises what `plan_conversion` raises, and PipelineError if a folder is unknown or missing, and
    for a split that was not converted here.
    """
    record = ConversionRecord(split)
    if not record.was_converted_here:
        raise PipelineError(
            f"{split.name}: was not converted from raw data here: it cannot be converted again"
        )
    raw = record.raw_folder(raw)
    return plan_conversion(
        record.dataset(),
        split.name.partition("/")[2],
        raw=raw,
        root=split.root,
        body=record.body_folder(body),
        selection=RowSelection.recorded(record) if selection is None else selection,
        **ways,
    )


def plan_conversion(
    dataset: Dataset,
    split: str,
    *,
    raw: Path,
    root: cache.Root,
    body: Path | None = None,
    drop_removed: bool = False,
    retry: bool = False,
    selection: RowSelection = ALL_ROWS,
    reads_contents: bool = True,
) -> ConversionPlan:
    """Compare the raw folder with the cache.

    drop_removed: drop rows of missing and unusable videos. retry: read rejected and unusable videos
    again. selection: which of the reader's tracks and rows are taken. reads_contents: whether the
    contents of files with other sizes or times are compared. Without, the plan is for looking at:
    it takes no video for touched, changed or renamed, and counts those of such files.

    Raises RawDataError if the raw folder is missing or another dataset's; PipelineError for
    an unknown split, other columns, and another raw folder; StandInMixed if demo data would replace
    real data, or the reverse; ConfigError for a list of tracks that fits no video.
    """
    committed = committed_split(root, f"{dataset.name}/{split}")
    dataset.check_split(split)
    dataset = dataset.detect_layout(raw, split)
    others = OtherSplits(dataset, split, raw, root)
    videos = list_videos(committed, others)
    if selection.leave_out or any(getattr(dataset, option) for option in dataset.by_clip):
        names = others.names(videos)
        check_patterns(dataset, names)
        videos = selection.mark(videos, split, names)
    reader = reader_parts(dataset, split, raw, body, selection)
    unchanged = ConversionPlan(
        dataset,
        split,
        raw,
        root,
        body,
        reader,
        committed,
        may_go=MayGo(drop_removed, retry),
        selection=selection,
        listed=videos,
        stamps={video.name: changes.stamp(raw, video) for video in videos},
    )
    if committed is None:
        refuse_mixed_cache(root, raw, stand_in=reader["stand_in"])
        return replace(unchanged, append=videos, why="not converted before")
    columns = dataset.columns(split, body=reader["body"] is not None)
    refuse_loss(committed, raw, reader, columns)
    return _update(unchanged, committed, reads_contents=reads_contents)


def _update(
    unchanged: ConversionPlan, committed: cache.Split, *, reads_contents: bool
) -> ConversionPlan:
    """The plan to update a committed split, or to read all its videos again with another reader.

    unchanged: the plan if there were nothing to do.
    """
    differs = tuple(find_differences(committed.manifest["reader"], unchanged.reader))
    may_go = unchanged.may_go._replace(other_reader=bool(differs))
    stamps = unchanged.stamps
    found = compare(
        committed, unchanged.listed, stamps, unchanged.others, may_go, reads_contents=reads_contents
    )
    moved = ConversionRecord(committed).has_moved(unchanged.raw)
    missing = reasons_of_kind(found.kept, Kind.MISSING)
    drop = found.removed | {video.name for video in found.changed}
    if moved and not may_go.drop:
        n_same = len(committed.videos) - len(drop) + len(found.renamed) - len(missing)
        refuse_other_folder(
            committed, unchanged.raw, n_same=n_same, missing=missing, n_new=len(found.new)
        )
    # Missing videos keep the stamps of the last commit: new ones would hide that one is missing.
    stamps = {name: stamp for name, stamp in stamps.items() if name not in missing}
    stamps |= {name: found.recorded[name] for name in missing if name in found.recorded}
    plan = replace(unchanged, stamps=stamps, seen=found.seen, kept=found.kept, may_go=may_go)
    if differs:
        return replace(
            plan,
            append=tuple(video for video in plan.listed if video.name not in missing),
            drop=tuple(name for name in committed.videos.names if name not in missing),
            renamed=found.renamed,
            why="; ".join(map(str, differs)),
            differs=differs,
        )
    why = _describe(found)
    if not why and committed.has_unfinished_commit():
        why = UNFINISHED
    return replace(
        plan,
        append=tuple(sorted([*found.coming, *found.changed], key=lambda video: video.name)),
        drop=tuple(sorted(drop)),
        renamed=found.renamed,
        touched=tuple(found.touched),
        moved=moved and not missing,
        why=why,
    )


def _describe(found: Comparison) -> str:
    """Why an update is needed, `1 new video, 2 changed videos`; "" if it is not."""
    changed = {video.name for video in found.changed} - found.renamed.keys()
    unreadable = changed & found.unreadable
    reselected = (changed & found.reselected) - unreadable
    counts = {
        "new video": len(found.new),
        "changed video": len(changed - unreadable - reselected),
        "renamed video": len(found.renamed),
        "removed video": len(found.removed - set(found.renamed.values())),
        "unreadable video": len(unreadable),
    }
    parts = [count(n, noun) for noun, n in counts.items() if n]
    if reselected:
        parts.append(f"{count(len(reselected), 'video')} with other tracks left out")
    if found.not_compared:
        parts.append(f"{count(len(found.not_compared), 'video')} with other sizes or times")
    return ", ".join(parts)
