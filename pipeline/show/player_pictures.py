"""The video and the portraits of a player, by decoding a clip once.  tracks -> [images]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Frame, FrameSource, Image
from pipeline.people.boxes import crop_person
from pipeline.show.clip import frames_of
from pipeline.show.player_tracks import PlayedTrack, ShownFrames
from pipeline.show.player_video import PlayerVideo, resize, ticks_of

Paint = Callable[[Frame, Image], Image]  # a frame and its image -> the image with bodies

PORTRAIT_PX: Final = 96
PORTRAIT_SCALE: Final = 1.1  # side of a portrait / side of the box


class PageImages(NamedTuple):
    """The pictures of a page."""

    video: bytes
    portraits: list[Image]  # of each track, side by side
    n_frames: int  # fewer than the part has if the video ends before
    undecoded: list[int]  # numbers of frames of the clip


class PictureRecorder:
    """Decodes a clip once, for the video and the portraits."""

    def __init__(
        self,
        source: FrameSource,
        part: ShownFrames,
        tracks: Sequence[PlayedTrack],
        paint: Paint | None,
    ) -> None:
        self._source = source
        self._part = part
        self._tracks = tracks
        self._paint = paint
        shape = (PORTRAIT_PX, PORTRAIT_PX, 3)
        self._crops = [np.zeros((len(track.portraits), *shape), np.uint8) for track in tracks]
        self._wanted: dict[int, list[tuple[int, int]]] = {}
        for number, track in enumerate(tracks):
            for place, row in enumerate(track.portraits):
                self._wanted.setdefault(int(track.frames[row]), []).append((number, place))

    @property
    def has_bodies(self) -> bool:
        return self._paint is not None

    def record(self, progress: Callable[[int], None]) -> PageImages:
        """Encode all frames, with bodies below them if they are painted."""
        part = self._part
        width, height = part.picture
        size = (width, 2 * height if self.has_bodies else height)
        video = PlayerVideo(size, part.seconds)
        ticks = ticks_of(part.times).tolist()
        n_frames = 0
        undecoded = []
        frames = frames_of(self._source, part.stop, first=part.first, step=part.step)
        for (frame, image), tick in zip(frames, ticks, strict=False):
            picture = resize(image, part.picture)
            if self._paint is not None:
                painted = resize(self._paint(frame, image), part.picture)
                picture = np.vstack([picture, painted])
            video.add(picture, tick)
            if frame.problem is None:
                self._crop(n_frames, image)
            else:
                undecoded.append(frame.index)
            n_frames += 1
            progress(n_frames)
        if not n_frames:
            raise PipelineError(f"{self._source.place}: no frame can be decoded")
        portraits = [np.hstack([*crops]) for crops in self._crops]
        return PageImages(video.finish(), portraits, n_frames, undecoded)

    def _crop(self, number: int, image: Image) -> None:
        for track, place in self._wanted.get(number, ()):
            played = self._tracks[track]
            row = played.rows[played.portraits[place]]
            bbox = played.person.track.rows["bbox"][row]
            try:
                crop = crop_person(image, bbox, PORTRAIT_SCALE, PORTRAIT_PX)
            except ValueError:  # invalid box: black
                continue
            self._crops[track][place] = crop
