"""The videos that a raw folder has of a split, each under a name of its own, and which of them were
renamed since the last commit.  [raw] -> tracks

Only folders and label files are listed, by the dataset's own code (`Dataset.videos`). A name that
is not UTF-8 is escaped, since tables of the cache hold text.

A renamed video would otherwise be one video gone and another one new. It is recognized by its
content: by the digest of its files, or, for a clip, by that of its images alone, since keypoint
files name their clip inside and change when it is renamed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cache
from pipeline.cli.text import count
from pipeline.conversion.committed import MOUNT, ConversionRecord
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.sources import file_part
from pipeline.files.raw import RawVideo, changes, files
from pipeline.files.raw.files import VIDEOS


def list_videos(
    committed: cache.Split | None, dataset: Dataset, split: str, raw: Path
) -> tuple[RawVideo, ...]:
    """The split's raw videos, each with a name that tables can hold and no other video has.

    committed: the split in the cache; None if it is not there yet. Raises PipelineError if it has
    videos and the folder has none; RawDataError if the folder is not the dataset's.
    """
    earlier = committed if committed is not None and len(committed.videos) else None
    try:
        videos = dataset.videos(raw, split)
    except RawDataError as error:
        if earlier is None:
            raise
        raise _no_videos(raw, earlier) from error
    if earlier is not None and not videos:
        raise _no_videos(raw, earlier)
    return tuple(_escape_names(videos))


def _escape_names(videos: Sequence[RawVideo]) -> list[RawVideo]:
    """Escape names that are not UTF-8. An escaped name that another video has gets a "?"."""
    used_names = {video.name for video in videos}
    named = []
    for video in videos:
        name = changes.utf8(video.name)
        if name == video.name:
            named.append(video)
            continue
        while name in used_names:
            name += "?"
        used_names.add(name)
        named.append(replace(video, name=name))
    return named


def renamed_videos(
    committed: cache.Split,
    raw: Path,
    gone: Mapping[str, str],
    coming: Sequence[RawVideo],
    digests: Mapping[str, str],
) -> dict[str, str]:
    """New name -> old name of the renamed videos.

    gone: committed videos that the raw folder does not list any more -> their digests. coming: its
    new and changed videos. digests: of some of these, by name, where they are known already.
    """
    if not gone:
        return {}
    contents = {}
    for video in coming:
        digest = digests.get(video.name) or changes.video_digest(raw, video)
        contents[video.name] = _content(digest)
    old_contents = {name: _content(digest) for name, digest in gone.items()}
    renamed = _pair_equal(old_contents, contents)
    old_images = _recorded_images(committed, gone.keys() - renamed.values())
    if not old_images:
        return renamed
    others = [video for video in coming if video.name not in renamed]
    return renamed | _pair_equal(old_images, _read_images(raw, others))


def _content(digest: str) -> str:
    """The part of a video's digest that does not depend on the names of its files."""
    return digest[: changes.CONTENTS]


def _recorded_images(committed: cache.Split, names: Collection[str]) -> dict[str, str]:
    """The clips among these videos -> the digest of their images at the commit."""
    images = {}
    for number, name in enumerate(committed.videos.names):
        if name in names:
            digest = file_part(committed.videos[number].pixels)
            if digest:
                images[name] = digest
    return images


def _read_images(raw: Path, videos: Iterable[RawVideo]) -> dict[str, str]:
    """The clips among these videos -> the digest of their images now."""
    images = {}
    for video in videos:
        if video.files and video.files[0].suffix.lower() in VIDEOS:
            with contextlib.suppress(RawDataError, OSError):  # the conversion reports it
                images[video.name] = Video(raw, str(video.files[0])).digest()
    return images


def _pair_equal(gone: Mapping[str, str], coming: Mapping[str, str]) -> dict[str, str]:
    """New name -> old name of videos with equal content, each old name once.

    gone, coming: name -> content. Of several with the same content, the first names by the alphabet
    are paired.

    >>> _pair_equal({"b": "0", "a": "0"}, {"c": "0", "d": "1"})
    {'c': 'a'}
    """
    by_content: dict[str, list[str]] = {}
    for name in sorted(gone, reverse=True):
        by_content.setdefault(gone[name], []).append(name)
    renamed = {}
    for name, content in sorted(coming.items()):
        if by_content.get(content):
            renamed[name] = by_content[content].pop()
    return renamed


def _no_videos(raw: Path, committed: cache.Split) -> PipelineError:
    """The error about a raw folder in which none of a committed split's videos is left: a disk is
    not mounted, or the name is misspelt.
    """
    actual = "no such folder"
    if files.is_folder_there(raw):
        actual = "none" if files.list_names(raw) else "an empty folder"
    n_videos = f"and the cache has {count(len(committed.videos), 'video')}"
    expected = f"expected videos of {committed.name}, found {actual}, {n_videos}"
    origin = ConversionRecord(committed).raw or "an unknown folder"
    origin = f"{committed.name} was converted from {origin}"
    do = "name the dataset's raw folder (--raw DIR, or [paths] raw in luigi.cfg)."
    return PipelineError(f"{raw}: {expected}. {origin}. {MOUNT}, or: {do}")
