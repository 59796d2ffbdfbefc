"""Plan of a conversion: what to read and drop, and why.  [raw -> tracks] -> features -> windows

`plan_conversion` lists the videos of a raw folder, compares them with what the cache has of the
split (`Comparison`), and returns a `ConversionWork`. Nothing is written. The *reader* is what reads
the videos: the dataset's code, with its version and options.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, NamedTuple

import cache
from cache import fingerprint
from pipeline.cli.text import count
from pipeline.datasets.shared.clips.by_clip import check_patterns
from pipeline.files.raw import RawVideo, changes
from pipeline.files.raw.corrections import describe
from pipeline.grades.stored import are_outdated
from pipeline.processes.software import staging_plan
from pipeline.steps.conversion.comparison import (
    Comparison,
    ReadReason,
    compare,
    find_videos,
    recorded_stamp,
)
from pipeline.steps.conversion.identity import Difference, find_differences, reader_parts
from pipeline.steps.conversion.keep import Loss, missing
from pipeline.steps.conversion.listing import list_videos
from pipeline.steps.conversion.refusals import refuse_loss, refuse_mixed_cache, refuse_other_folder
from pipeline.steps.conversion_record import CORRECTIONS, ConversionRecord, committed_split
from pipeline.steps.recipe import Recipe

UNFINISHED: Final = "a killed run left something to finish or to remove"


class Item(NamedTuple):
    """A video to read."""

    video: RawVideo
    stamp: changes.Stamp
    reason: ReadReason
    recorded: changes.Stamp | None = None  # as its committed content was read; None: not known
    name_before: str = ""  # of a renamed video
    by_other_reader: bool = False  # whether another reader made its committed rows


@dataclass(frozen=True)
class ConversionWork:
    """What a conversion of one split is to do: read `items`, and take their rows in place of those
    of the committed videos `drop`. The other committed videos stay as they are.
    """

    recipe: Recipe  # with its dataset's layout, and the settings that last
    reader: Mapping[str, Any]  # identity of the reader: `identity.reader_parts`
    # the plan of uncommitted work: a killed run is continued if it is equal
    staging: Mapping[str, Any]
    committed: cache.Split | None  # the split in the cache, if any
    listed: Sequence[RawVideo]  # all videos of the raw folder
    why: str = ""  # it is needed: `1 new video, 2 changed videos`; "" if the split is up to date
    items: tuple[Item, ...] = ()  # in the order of the commit
    drop: tuple[str, ...] = ()  # committed videos that are read again, renamed or removed
    removed: tuple[str, ...] = ()  # those of them that are gone
    differs: tuple[Difference, ...] = ()  # parts of the reader; if any, all videos are read again
    damaged_shards: tuple[int, ...] = ()  # to be deleted; `drop` has their videos

    # what committed videos would lose, by what is known without reading them: they keep their rows
    losses: Mapping[str, Loss] = field(default_factory=dict)
    # what is recorded of the files of videos that are not read
    unread: Mapping[str, changes.LastReading] = field(default_factory=dict)
    touched: tuple[str, ...] = ()  # videos with other sizes or times, but the same content
    has_moved: bool = False  # whether the raw folder has moved

    @cached_property
    def name(self) -> str:
        return self.recipe.name

    @property
    def up_to_date(self) -> bool:
        return not self.why

    @property
    def renamed(self) -> dict[str, str]:
        """New name -> old name."""
        return {item.video.name: item.name_before for item in self.items if item.name_before}

    @property
    def n_videos(self) -> int:
        """Number of videos that are read, and of others whose files are known."""
        return len(self.items) + len(self.unread)

    @property
    def n_left_alone(self) -> int:
        """Number of committed videos that are not in `drop`."""
        return 0 if self.committed is None else len(self.committed.videos) - len(self.drop)


def plan_conversion(recipe: Recipe, *, reads_contents: bool = True) -> ConversionWork:
    """Compare the raw folder with the cache.

    reads_contents: whether the contents of files with other sizes or times are compared. Without,
    the work is for looking at: it has no video as touched, changed or renamed, and counts those of
    such files.

    Raises RawDataError if the raw folder is missing or another dataset's; PipelineError for
    an unknown split, other columns, and another raw folder; StandInMixed if demo data would replace
    real data, or the reverse; ConfigError for corrections that fit no video.
    """
    committed = committed_split(recipe.root, recipe.name)
    recipe = recipe.keep_lasting(committed)
    split = recipe.split
    raw = recipe.raw
    recipe.dataset.check_split(split)
    dataset = recipe.dataset.detect_layout(raw, split)
    recipe = replace(recipe, dataset=dataset)
    others = recipe.others
    videos = list_videos(committed, others)
    if recipe.selection.corrections or any(getattr(dataset, option) for option in dataset.by_clip):
        names = others.names(videos)
        check_patterns(dataset, names)
        videos = recipe.selection.mark(videos, split, names, dataset)
    reader = reader_parts(dataset, split, raw, recipe.body, recipe.selection)
    work = ConversionWork(recipe, reader, _staging(recipe, reader, videos), committed, videos)
    seen = {} if committed is None else changes.read_stamps(recipe.root, committed.name)
    stamps = changes.stamps(raw, videos, seen)
    if committed is None:
        refuse_mixed_cache(recipe.root, raw, stand_in=reader["stand_in"])
        items = tuple(Item(video, stamps[video.name], ReadReason.NEW) for video in videos)
        return replace(work, items=items, why="not converted before")
    columns = dataset.columns(split, body=reader["body"] is not None)
    refuse_loss(committed, raw, reader, columns)
    return _update(work, committed, stamps, seen, reads_contents=reads_contents)


def _staging(
    recipe: Recipe, reader: Mapping[str, Any], videos: Iterable[RawVideo]
) -> dict[str, Any]:
    parts: dict[str, Any] = {"reader": dict(reader)}
    if recipe.selection.corrections is not None:
        lines = _texts_of(videos)
        if lines:
            parts[CORRECTIONS] = lines
    return staging_plan(fingerprint(parts), recipe.dataset)


def _texts_of(videos: Iterable[RawVideo]) -> list[str]:
    """The corrections of videos."""
    texts = list[str]()
    for video in videos:
        texts += [line.text for line in video.corrections]
    return texts


def _update(
    work: ConversionWork,
    committed: cache.Split,
    stamps: Mapping[str, changes.Stamp],
    seen: Mapping[str, changes.LastReading],
    *,
    reads_contents: bool,
) -> ConversionWork:
    """What is to do for a committed split, or to read all its videos again with another reader.

    work: without what differs. stamps: of the listed videos. seen: as recorded at the commit.
    """
    recipe = work.recipe
    record = ConversionRecord(committed)
    differs = tuple(find_differences(committed.manifest["reader"], work.reader))
    found = compare(
        recipe,
        committed,
        work.listed,
        stamps,
        seen,
        differs=bool(differs),
        reads_contents=reads_contents,
    )
    digests = found.digests
    reasons = found.reasons
    losses = found.losses
    gone = missing(losses)
    has_moved = record.has_moved(recipe.raw)
    if has_moved and not recipe.drop_removed:
        n_changed = len(digests.keys() & reasons.keys()) + len(found.removed)
        n_same = len(digests) - n_changed - len(gone)
        n_new = Counter(reasons.values())[ReadReason.NEW]
        refuse_other_folder(committed, recipe.raw, n_same=n_same, missing=gone, n_new=n_new)
    if differs:
        reasons = dict.fromkeys(stamps.keys() - losses.keys(), ReadReason.OTHER_READER)
    by_others = reasons.keys() if differs else record.earlier_reader
    items = [
        Item(
            video,
            stamps[video.name],
            reasons[video.name],
            recorded_stamp(seen.get(video.name), digests.get(video.name)),
            found.renamed.get(video.name, ""),
            video.name in by_others,
        )
        for video in find_videos(work.listed, reasons)
    ]
    if not differs:
        items.sort(key=lambda item: item.video.name)
    drop = {*found.removed, *found.renamed.values()} | (digests.keys() & reasons.keys())
    why = "; ".join(map(str, differs)) or _describe(items, found)
    if not why and (committed.has_unfinished_commit() or are_outdated(committed)):
        why = UNFINISHED
    return replace(
        work,
        why=why,
        items=tuple(items),
        drop=tuple(sorted(drop)),
        removed=tuple(sorted(found.removed)),
        differs=differs,
        losses=losses,
        unread=_find_unread(found, stamps, seen, reasons),
        touched=tuple(found.touched),
        has_moved=has_moved and not gone,
    )


def _find_unread(
    found: Comparison,
    stamps: Mapping[str, changes.Stamp],
    seen: Mapping[str, changes.LastReading],
    to_read: Mapping[str, ReadReason],
) -> dict[str, changes.LastReading]:
    """What is recorded of the files that are not read; equal records are kept once.

    Of videos that would lose rows, it stays as it was: a new stamp would hide that a file is
    missing.
    """
    unread = {name: seen[name] for name in found.losses if name in seen}
    for name, stamp in stamps.items():
        if name not in to_read and name not in found.losses:
            now = changes.LastReading(stamp, found.digests[name])
            before = seen.get(name)
            unread[name] = before if before == now else now
    return unread


def _describe(items: Iterable[Item], found: Comparison) -> str:
    """Why an update is needed, `1 new video, 2 changed videos`; "" if it is not."""
    numbers = Counter(item.reason for item in items)
    counts = {
        "new video": numbers[ReadReason.NEW],
        "changed video": numbers[ReadReason.CHANGED],
        "renamed video": numbers[ReadReason.RENAMED],
        "removed video": len(found.removed),
        "unreadable video": numbers[ReadReason.UNREADABLE],
    }
    parts = [count(n, noun) for noun, n in counts.items() if n]
    if numbers[ReadReason.CORRECTED]:
        n_videos = count(numbers[ReadReason.CORRECTED], "video")
        corrected = [item.video for item in items if item.reason == ReadReason.CORRECTED]
        lines = describe(_texts_of(corrected))
        parts.append(f"{n_videos} with other corrections ({lines})")
    if found.n_not_compared:
        parts.append(f"{count(found.n_not_compared, 'video')} with other sizes or times")
    return ", ".join(parts)
