"""Pixels of a split's videos, and which videos are lost.  [pixels] -> crops -> features

`Pixels` decodes a video, in the raw folder of its split. A video is *lost* if it is missing, has
changed since it was converted, or cannot be read now: `find_lost` finds such videos before an
extraction, and `VideoLost` is raised for one that is lost meanwhile. Videos and shards are named
by their numbers in the split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cache import Split
from pipeline.accounting import NOT_NOW
from pipeline.errors import PipelineError, is_temporary
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import Frame, FrameSource
from pipeline.files.raw.files import MIB, is_there, list_names, open_regular
from pipeline.processes import alive


class Pixels(NamedTuple):
    """The images of one video of a split, in the raw folder. Picklable."""

    source: FrameSource
    name: str  # of the video, for messages
    digest: str = ""  # `pixels_digest` at the conversion; "": unknown

    @property
    def in_order(self) -> bool:
        """Whether a frame can only be decoded after all frames before it, as in a video file."""
        return not self.source.random_access

    def check(self) -> None:
        """Raise VideoLost if the files are missing, have changed since the conversion, or cannot be
        read.
        """
        self.require_place()
        if self.digest and self.source.digest() != sources.file_part(self.digest):
            self._require_readable()
            raise VideoLost(
                f"{self.source.place} has other images than those that were converted. If they "
                "have moved, name their folder: --raw DIR, or [paths] raw in luigi.cfg. If "
                f"they have changed, run `touch '{self.source.place}'`, and convert again"
            )

    def decode(self, frames: Iterator[int]) -> Iterator[Frame]:
        """Decode ascending frames. A frame without an image has its problem, which names the video.

        Raises VideoLost if the problem is not the frame's: its row would stay without a feature for
        good, while the file is damaged only on a failing disk, or has changed.
        """
        is_checked = False
        for frame in self.source.read(frames):
            if frame.image is not None:
                yield frame
                continue
            if frame.kind == NOT_NOW:
                raise VideoLost(f"frame {frame.index}: {frame.problem}")
            if not is_checked:
                self.check()
                self._require_readable()
                is_checked = True
            yield replace(frame, problem=f"{self.name}, frame {frame.index}: {frame.problem}")

    def require_place(self) -> None:
        """Raise VideoLost if the video's file or folder is missing."""
        if not is_there(self.source.place):
            raise VideoLost(f"no {self.source.place}")

    def _require_readable(self) -> None:
        """Raise VideoLost if an image of the folder cannot be opened now, or the video file cannot
        be read to its end.
        """
        path = self.source.place  # a folder of images, or a video file
        try:
            if path.is_dir():
                for name in list_names(path):
                    alive()
                    open_regular(path / name).close()
                return
            alive()
            with open_regular(path) as stream:
                while stream.read(MIB):
                    alive()
        except OSError as error:
            if is_temporary(error) or not is_there(path):
                file = error.filename or path
                raise VideoLost(f"{file} cannot be read: {error.strerror}") from error


class VideoLost(PipelineError):
    """A committed video is missing, has changed, or cannot be read now. Its rows get no features
    until it is back.
    """


def videos_of(split: Split, shards: Sequence[int]) -> list[int]:
    """Numbers of the videos with rows in these shards, ascending."""
    size = split.rows_per_shard
    tracks = split.tracks  # sorted by row, and disjoint
    videos = set[int]()
    for shard in shards:
        first = np.searchsorted(tracks.stop, shard * size, side="right")
        last = np.searchsorted(tracks.start, (shard + 1) * size)
        videos.update(tracks.video[first:last].tolist())
    return sorted(videos)


def find_lost(
    pixels_of: Callable[[int], Pixels],
    videos: Iterable[int],
    check: Callable[[Pixels], None] = Pixels.require_place,
) -> dict[int, str]:
    """Those of the videos that are lost -> why.

    check: raises VideoLost. By default, it finds missing videos alone; `Pixels.check` finds changed
    and unreadable ones, too, and takes longer.
    """
    lost = {}
    for video in videos:
        try:
            check(pixels_of(video))
        except VideoLost as error:
            lost[video] = str(error)
    return lost
