"""What a page shows of a committed split.  cache -> [tracks] -> page"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cache
from cache import Split
from pipeline import datasets
from pipeline.errors import PipelineError
from pipeline.pixels import sources
from pipeline.show.tracks import MOST_TOLD, Choice, Shown, ShownTrack, shown_track, spread


def from_cache(root: cache.Root, name: str, choice: Choice, *, raw: Path | None = None) -> Shown:
    """The chosen tracks of <dataset>/<split>. `raw`: where the raw folder lies now; None: where it lay at conversion.

    Raises cache.CacheError when there is no such split, PipelineError for a track that it does not have, and where
    nobody knows the raw folder of a split with pictures.
    """
    split = cache.open(root)[name]
    folder = _raw_folder(split, raw)
    n_aside, aside = set_aside(split)
    told = tuple(islice(aside, min(n_aside, MOST_TOLD)))
    warnings = []
    if folder is not None and not folder.is_dir():
        warnings.append(f"The raw folder {folder} is not there, so no picture can be shown. Say where it is: --raw DIR")
    return Shown(
        name=name,
        origin=f"the cache {root}",
        raw=folder,
        stand_in=bool(split.manifest.get("stand_in", False)),
        reader=split.manifest.get("reader", {}),
        totals=split.manifest.get("accounting", {}),
        totals_of="the whole split",
        set_aside=told,
        more_set_aside=n_aside - len(told),
        n_tracks=len(split.tracks),
        warnings=tuple(warnings),
        tracks=tuple(_track(split, number, folder, choice.frames) for number in _numbers(split, choice)),
    )


def _numbers(split: Split, choice: Choice) -> list[int]:
    """Numbers of the chosen tracks in `split.tracks`."""
    if not choice.names:
        return spread(len(split.tracks), choice.tracks)
    number = {name: i for i, name in enumerate(split.tracks.names)}
    if unknown := [name for name in choice.names if name not in number]:
        some = ", ".join(islice(number, 3)) or "none"
        raise PipelineError(f"{split.name} has no track {unknown[0]!r}; it has {len(number)}: {some}, ...")
    return [number[name] for name in choice.names]


def _track(split: Split, number: int, raw: Path | None, frames: int) -> ShownTrack:
    record, entry = split.tracks[number], split.videos[int(split.tracks.video[number])]
    columns = {name: split.rows(name, record.start, record.stop) for name in split.columns}
    source = sources.parse(raw, entry.source) if raw is not None and entry.source else None
    notes = [str(note) for note in entry.account.get("notes", ())]
    if source is not None and entry.pixels and source.place.exists() and source.digest() != entry.pixels:
        notes.append("the pictures that lie there now are not those that were converted")
    return shown_track(record, columns, source=source, notes=notes, frames=frames)


def _raw_folder(split: Split, raw: Path | None) -> Path | None:
    recorded = split.provenance.get("raw")
    if raw is None and recorded is None and "bbox" in split.columns:
        raise PipelineError(
            f"{split.name}: where its pictures are is not known, provenance.json is lost. Say where the dataset's own "
            "raw folder is: --raw DIR"
        )
    return raw or (None if recorded is None else Path(str(recorded)))


def set_aside(split: Split) -> tuple[int, Iterator[str]]:
    """How many videos were set aside because something is wrong with them, and each in words."""
    dataset = split.name.split("/")[0]
    harmless = datasets.get(dataset).harmless if dataset in datasets.names() else frozenset()
    reasons = split.manifest.get("accounting", {}).get("videos", {}).get("set_aside", {})
    accounts = ((video.name, video.account) for video in split.videos)
    told = (
        f"{name}: {account['set_aside']}: {account.get('message', '')}"
        for name, account in accounts
        if account.get("set_aside", "") not in ("", *harmless)
    )
    return sum(n for reason, n in reasons.items() if reason not in harmless), told
