"""A clip in which people are being detected.  [pixels -> raw keypoints] -> tracks"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.clips.detection.decoders import DecodedTask, Task
from pipeline.clips.detection.writing import open_people, people_text
from pipeline.clips.detectors import People
from pipeline.clips.files import ClipFiles
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.cuts import LEAST, Histogram, difference
from pipeline.files.pixels.frames import Image


class OpenClip:
    """A clip in progress: its decoded frames (`receive`, `take_frames`) and their people
    (`add_people`), who are written into the temporary file `text`.
    """

    def __init__(self, files: ClipFiles, every: int, digest: str) -> None:
        self.files = files
        self.digest = digest  # `file_digest` of the clip before its first frame was decoded
        self._every = every  # frames from one key frame to the next

        # what was decoded
        self.has_ended = False
        self.record: ClipRecord | None = None  # known once the clip has ended
        self.decoded = deque[DecodedTask]()  # tasks whose frames are not taken
        self.decoded_frames: list[int] = []  # numbers of taken frames in the clip, ascending
        self.damaged_frames: list[int] = []
        self.size = (0, 0)  # width, height px; (0, 0) until a frame is decoded
        self.camera: dict[int, list[float]] = {}  # frame before which the camera moved -> motion
        # difference of each frame's colours from the frame before (pipeline.files.pixels.cuts)
        self.differences: list[float] = []
        self._last_colours: Histogram | None = None  # of the last decoded frame
        self._last_group = -1  # number of the last decoded frame, divided by `every`

        # what was detected
        self.n_persons = 0
        self.text = open_people(files)

    @property
    def n_frames(self) -> int:
        """Number of frames that were taken, damaged ones among them."""
        return len(self.differences)

    @property
    def is_complete(self) -> bool:
        """Whether the detector has seen all frames."""
        return self.has_ended and not self.decoded

    def tasks(self, size: int) -> Iterator[Task | None]:
        """Yield the tasks of the clip, of `size` frames each; None ("later") while decoded frames
        of it are not taken, so that memory is bounded.
        """
        start = 0
        while not self.has_ended:
            if self.decoded:
                yield None
            else:
                yield self.files.clip, start
                start += size

    def receive(self, task: DecodedTask) -> None:
        """Add a decoded task, unless it is beyond the end of the clip."""
        if not self.has_ended:
            self.decoded.append(task)
            self.has_ended = task.ended
            self.record = task.record

    def take_frames(self, task: DecodedTask) -> Iterator[DecodedFrame]:
        """Record the frames of a task, and yield the decoded ones for the detector.

        A frame is a key frame if it begins a group of `every` frames, or a scene.
        """
        for frame in task.frames:
            changed = 0.0
            if frame.colours is not None:
                if self._last_colours is not None:
                    changed = difference(self._last_colours, frame.colours)
                self._last_colours = frame.colours
            self.differences.append(changed)
            if frame.camera is not None:
                self.camera[frame.number] = frame.camera
            if frame.image is None:
                self.damaged_frames.append(frame.number)
                continue
            height, width = frame.image.shape[:2]
            self.size = (width, height)
            group = frame.number // self._every
            is_key = group != self._last_group or changed >= LEAST
            self._last_group = group
            self.decoded_frames.append(frame.number)
            yield DecodedFrame(frame.number, frame.image, is_key)

    def add_people(self, frame: int, people: People) -> None:
        """Write the people of the next decoded frame."""
        self.text.write(people_text(frame, people, self.n_persons))
        self.n_persons += len(people.boxes)


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """A decoded frame, for the detector."""

    number: int  # in the clip, from 0
    image: Image
    is_key: bool  # people are searched in it, instead of followed from the frame before
