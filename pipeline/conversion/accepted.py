"""Differences that a person said do not matter: how a manifest remembers them.  raw -> [tracks -> features] -> windows

A manifest's `accepted` is a list of {part, was, is, because}, oldest first. A record stays for as long as anything of
what it speaks of is in the split: until its video comes anew, or all videos do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from pipeline.conversion.differences import short

KEY: Final = "accepted"  # of a manifest
VIDEO: Final = "video "  # a part that is one video: its raw files
PIXELS: Final = "pixels of video "
VIDEOS: Final = "videos"  # many at once: `was` and `is` are a digest over all of them

Record = Mapping[str, Any]


def records(manifest: Mapping[str, Any]) -> list[Record]:
    """What was accepted by the commit of this manifest and those before it; manifests of others may hold anything."""
    held = manifest.get(KEY)
    return [record for record in held if isinstance(record, Mapping)] if isinstance(held, list) else []


def entry(held: Collection[Record]) -> dict[str, Any]:
    """The manifest's entry; none when there is nothing to say."""
    return {KEY: [dict(record) for record in held]} if held else {}


def still(held: Collection[Record], *, gone: Collection[str], all_gone: bool) -> list[Record]:
    """Those that still speak of something when the committed videos `gone` have gone, or come anew."""
    if all_gone:
        return []
    names = set(gone)
    return [record for record in held if _video(str(record.get("part"))) not in names]


def in_words(manifest: Mapping[str, Any]) -> Iterator[str]:
    """version was 1, is 2: accepted, because ..."""
    for record in records(manifest):
        what = f"{record.get('part')} was {short(record.get('was'))}, is {short(record.get('is'))}"
        n_videos = record.get("n_videos")
        told = f"{n_videos:,} {what}" if isinstance(n_videos, int) else what
        yield f"{told}: accepted, because {record.get('because')}"


def _video(part: str) -> str | None:
    """The video that a part is of; None for any other."""
    for kind in (VIDEO, PIXELS):
        if part.startswith(kind):
            return part.removeprefix(kind)
    return None
