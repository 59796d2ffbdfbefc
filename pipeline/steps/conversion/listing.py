"""The videos that a raw folder has of a split, each under a name of its own, and which of them were
renamed, or have moved to another split, since the last commit.  [raw] -> tracks

Only folders and label files are listed, by the dataset's own code (`Dataset.videos`). A name that
is not UTF-8 is escaped, since tables of the cache hold text.

A renamed video would otherwise be one video gone and another one new. It is recognized by its
content: by the digest of its files, or, for a clip, by that of its images alone, since keypoint
files name their clip inside and change when it is renamed.

A video moves to another split by its folder, its label or an option. Its rows stay until that split
has them (`OtherSplits`), so a killed run leaves it in both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cache
from cache.format.track_tables import VideosByName
from pipeline.accounting import BY_USER
from pipeline.cli.text import command, count
from pipeline.datasets.base import Dataset
from pipeline.datasets.releases.misplaced import videos_of
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.sources import file_part
from pipeline.files.raw import RawVideo, changes, files, texts_of
from pipeline.files.raw.files import VIDEOS
from pipeline.files.raw.video_names import VideoNames
from pipeline.steps.conversion_record import MOUNT, ConversionRecord, committed_split


@dataclass(frozen=True)
class OtherSplits:
    """The other splits of a dataset: what the raw folder lists of them, and the cache has."""

    dataset: Dataset
    split: str  # not this one
    raw: Path
    root: cache.Root

    @cached_property
    def listed(self) -> Mapping[str, set[str]]:
        """Split -> names of its videos now. Without splits that cannot be listed now."""
        listed = {}
        for split in self.dataset.splits:
            if split != self.split:
                with contextlib.suppress(PipelineError, OSError):
                    videos = texts_of(self.dataset.videos(self.raw, split))
                    listed[split] = {video.name for video in videos}
        return listed

    def names(self, listed: Sequence[RawVideo]) -> VideoNames:
        """The names of all splits, for settings: of listed videos, and of those that only the cache
        has. listed: those of this split.
        """
        by_split = {**self.listed, self.split: {video.name for video in texts_of(listed)}}
        all_listed = set().union(*by_split.values())
        for split in self.dataset.splits:
            with contextlib.suppress(cache.CacheError):
                committed = committed_split(self.root, f"{self.dataset.name}/{split}")
                if committed is not None:
                    gone = {*committed.videos.names} - all_listed
                    by_split[split] = by_split.get(split, set()) | gone
        return VideoNames(self.dataset.name, by_split)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Digests of the listed videos that have rows in the cache, and of what `_parts` gives ->
        how many rows, of several videos the most.
        """
        rows = dict[str, int]()
        for split, names in self.listed.items():
            with contextlib.suppress(cache.CacheError):
                committed = committed_split(self.root, f"{self.dataset.name}/{split}")
                if committed is None:
                    continue
                for video in committed.videos:
                    account = video.account
                    if video.name in names and account.get("tracks_kept"):
                        dropped = account["dropped"]
                        n_rows = account["kept"] + sum(dropped.get(why, 0) for why in BY_USER)
                        for digest in (video.fingerprint, *_parts(video)):
                            rows[digest] = max(rows.get(digest, 0), n_rows)
        return rows

    def count_rows(self, video: cache.VideoEntry, digest: str = "", *, is_listed: bool) -> int:
        """The number of rows that one of them has of a committed video, under any name, or of files
        with this digest.

        is_listed: whether this split lists the video, too. Then files that were of both splits at
        their commits have not moved.
        """
        if is_listed and video.fingerprint in self.rows:
            return 0
        return max(self.rows.get(known, 0) for known in (digest, *_parts(video)))

    def find_moved(self, videos: Iterable[str]) -> dict[str, str]:
        """Those of these videos which another split lists, in its own folder or not, and has no
        rows of -> the command that converts that split.
        """
        here = {video.removeprefix(f"{self.split}/"): video for video in videos}
        moved = {}
        for split, listed in self.listed.items() if here else ():
            name = f"{self.dataset.name}/{split}"
            there: Mapping[str, cache.VideoEntry] = {}
            with contextlib.suppress(cache.CacheError):
                committed = committed_split(self.root, name)
                if committed is not None:
                    there = VideosByName(committed.tables)
            convert = command("convert", name, "--raw", str(self.raw), "--cache", str(self.root))
            for video in listed:
                before = here.get(video.removeprefix(f"{split}/"))
                has_rows = video in there and there[video].account.get("tracks_kept")
                if before is not None and not has_rows:
                    moved[before] = convert
        return moved


def _parts(video: cache.VideoEntry) -> set[str]:
    """Digests that a video keeps under another name: of its contents, and of its images if any."""
    return {_content(video.fingerprint), file_part(video.pixels)} - {""}


def list_videos(committed: cache.Split | None, others: OtherSplits) -> Sequence[RawVideo]:
    """The split's raw videos, each with a name that tables can hold and no other video has.

    committed: the split in the cache; None if it is not there yet. Raises PipelineError if it has
    videos and the folder has none of any split; as `videos_of` without one.
    """
    raw = others.raw
    earlier = committed if committed is not None and len(committed.videos) else None
    try:
        videos = videos_of(others.dataset, raw, others.split)
    except PipelineError as error:
        if earlier is None:
            raise
        raise _no_videos(raw, earlier) from error
    if earlier is not None and not videos and not any(others.listed.values()):
        raise _no_videos(raw, earlier)
    return _escape_names(videos)


def _escape_names(videos: Sequence[RawVideo]) -> Sequence[RawVideo]:
    """Escape names that are not UTF-8. An escaped name that another video has gets a "?"."""
    if all(changes.utf8(video.name) == video.name for video in texts_of(videos)):
        return videos
    used_names = {video.name for video in texts_of(videos)}
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
    videos = VideosByName(committed.tables)
    images = {name: file_part(videos[name].pixels) for name in names}
    return {name: digest for name, digest in images.items() if digest}


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
