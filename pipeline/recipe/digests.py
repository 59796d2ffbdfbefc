"""Digests of splits as lines of text, to publish and to compare (docs/digests.md).  [cache]"""

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

LABELS: Final = "labels"
_LINE: Final = re.compile(r"([0-9a-f]{64}) +(\S+/\S+) +(labels|features/\S+)")


class ContentDigest(NamedTuple):
    """One line of a list. `content`: "labels", or "features/<stream>"."""

    digest: str
    split: str
    content: str
    note: str = ""

    def __str__(self) -> str:
        comment = f"  # {self.note}" if self.note else ""
        return f"{self.digest}  {self.split}  {self.content}{comment}"


def list_digests(
    opened: cache.FeatureCache, names: Sequence[str], problems: list[str], progress: Progress
) -> Iterator[str]:
    """The lines of splits, by name. Adds a problem for what cannot be read."""
    yield f"# {package_version()}"
    contents = []
    for name in names:
        try:
            split = opened[name]
            contents.append((split, LABELS))
            contents += [(split, f"{FEATURES}/{stream}") for stream in split.streams]
        except (cache.CacheError, OSError) as error:
            problems.append(error_text(error))
    for number, (split, content) in enumerate(contents):
        progress(number, len(contents), f"{split.name} {content}")
        try:
            digest = _digest_of(split, content)
            yield str(ContentDigest(digest, split.name, content, _note_on(split, content)))
        except (cache.CacheError, OSError) as error:
            problems.append(f"{split.name}: no digest of {content}: {error_text(error)}")


def _digest_of(split: cache.Split, content: str) -> str:
    stream = None if content == LABELS else content.removeprefix(f"{FEATURES}/")
    return cache.content_digest(split, stream)


def _note_on(split: cache.Split, content: str) -> str:
    """What a reader of a list has to know of a content."""
    if content == LABELS:
        return "demo data" if split.manifest.get("stand_in") else ""
    stream = content.removeprefix(f"{FEATURES}/")
    notes = []
    if is_untrained(split, stream):
        notes.append("untrained")
    if not is_current(split, stream):
        notes.append("rows missing")
    device = (split.stream_manifest(stream).get("backbone") or {}).get("device")
    if device:
        notes.append(f"computed on {device}; on other hardware, the last bits differ")
    return ", ".join(notes)


def read_list(file: Path, splits: Sequence[str] | None = None) -> list[ContentDigest]:
    """The lines of a published list, of all or these splits. Text after # is a comment.

    Raises PipelineError for a file without such digests, and for a line that is none; OSError.
    """
    listed = []
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        text, _, note = line.partition("#")
        if not text.strip():
            continue
        parts = _LINE.fullmatch(text.strip())
        if parts is None:
            raise PipelineError(
                f"{file}, line {number}: expected SHA-256, split and content, as status --digest "
                f"prints them, found {text.strip()[:80]!r}"
            )
        digest, split, content = parts.groups()
        if splits is None or split in splits:
            listed.append(ContentDigest(digest, split, content, note.strip()))
    if not listed:
        names = ""
        if splits:
            names = f" of {', '.join(splits)}"
        do = "Write a list: python -m pipeline status --digest > FILE"
        raise PipelineError(f"{file}: no digests{names}. {do}")
    return listed


def compare_digests(
    opened: cache.FeatureCache, listed: Sequence[ContentDigest], progress: Progress
) -> Iterator[str]:
    """A message about each content of a list that the cache does not have."""
    for number, one in enumerate(listed):
        progress(number, len(listed), f"{one.split} {one.content}")
        try:
            digest = _digest_of(opened[one.split], one.content)
        except (cache.CacheError, OSError) as error:
            yield f"{one.split}: {one.content} cannot be compared: {error_text(error)}"
            continue
        if digest == one.digest:
            continue
        text = f"{one.split}: {one.content}: expected the digest {one.digest}, found {digest}."
        if one.content == LABELS:
            yield f"{text} Compare release, split and version (docs/digests.md)."
        else:
            yield f"{text} Computed on other hardware? To compare: verify --recompute."
