"""Write digests of splits as lines of text, to publish them, and compare a cache with such a list
(docs/digests.md).  [cache]

A line has a SHA-256, a split, and what the digest is of: "labels", or "features/<stream>".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import cache
from cache.format.layout import FEATURES
from pipeline.cli.progress import Progress
from pipeline.cli.text import error_text
from pipeline.errors import PipelineError
from pipeline.features.plan import is_current, is_untrained
from pipeline.processes.software import package_version

_LINE: Final = re.compile(r"([0-9a-f]{64}) +(\S+/\S+) +(labels|features/(\S+))")


class ListedDigest(NamedTuple):
    """One line of a list."""

    digest: str
    split: str
    stream: str | None  # None: the digest is of the labels


def list_digests(
    opened: cache.FeatureCache, names: Sequence[str], problems: list[str], progress: Progress
) -> Iterator[str]:
    """Yield the lines of a list for the labels and streams of these splits. Adds a message to
    `problems` for each that cannot be read.
    """
    yield f"# {package_version()}"
    contents: list[tuple[cache.Split, str | None]] = []
    for name in names:
        try:
            split = opened[name]
            contents.append((split, None))
            contents += [(split, stream) for stream in split.streams]
        except (cache.CacheError, OSError) as error:
            problems.append(error_text(error))
    for number, (split, stream) in enumerate(contents):
        content = _content(stream)
        progress(number, len(contents), f"{split.name} {content}")
        try:
            notes = _split_notes(split, stream)
            line = f"{cache.content_digest(split, stream)}  {split.name}  {content}"
            yield f"{line}  # {', '.join(notes)}" if notes else line
        except (cache.CacheError, OSError) as error:
            problems.append(f"{split.name}: no digest of {content}: {error_text(error)}")


def _content(stream: str | None) -> str:
    """What a digest is of, as a line has it."""
    return "labels" if stream is None else f"{FEATURES}/{stream}"


def _split_notes(split: cache.Split, stream: str | None) -> list[str]:
    """Remarks about labels or a stream that a reader of the list has to know."""
    notes = []
    if stream is None:
        if split.manifest.get("stand_in"):
            notes.append("demo data")
        return notes
    if is_untrained(split, stream):
        notes.append("untrained")
    if not is_current(split, stream):
        notes.append("rows missing")
    return notes


def read_list(file: Path, splits: Sequence[str] | None = None) -> list[ListedDigest]:
    """Read the lines of a published list, for all splits or only these. Text after # is a comment.

    Raises PipelineError for a file without digests of these splits, and for an invalid line; and
    OSError.
    """
    listed = []
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        parts = _LINE.fullmatch(text)
        if parts is None:
            raise PipelineError(
                f"{file}, line {number}: expected SHA-256, split and content, as status --digest "
                f"prints them, found another text"
            )
        if splits is None or parts[2] in splits:
            listed.append(ListedDigest(parts[1], parts[2], parts[4]))
    if not listed:
        names = ""
        if splits:
            names = f" of {', '.join(splits)}"
        do = "Write a list: python -m pipeline status --digest > FILE"
        raise PipelineError(f"{file}: no digests{names}. {do}")
    return listed


def compare_digests(
    opened: cache.FeatureCache, listed: Sequence[ListedDigest], progress: Progress
) -> Iterator[str]:
    """Yield a message for each line of a list whose labels or stream are different in the cache, or
    cannot be read.
    """
    for number, entry in enumerate(listed):
        content = _content(entry.stream)
        progress(number, len(listed), f"{entry.split} {content}")
        try:
            digest = cache.content_digest(opened[entry.split], entry.stream)
        except (cache.CacheError, OSError) as error:
            yield f"{entry.split}: {content} cannot be compared: {error_text(error)}"
            continue
        if digest == entry.digest:
            continue
        do = "Compare release, split, settings and version (docs/digests.md)."
        if entry.stream is not None:
            do = "Other hardware and libraries compute other last digits (docs/digests.md)."
        yield f"{entry.split}: {content}: expected the digest {entry.digest}, found {digest}. {do}"
