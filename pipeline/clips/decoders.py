"""Clips in which people are being detected: their frames, decoded by supervised processes
(`ClipDecoding`), and a clip's results so far (`OpenClip`).  [pixels] -> raw keypoints

`run.py` gives the clips to the processes of a `pipeline.processes.pool.Pool`: one process decodes a
clip, in order. A task is the next `size` frames of a clip, which `ClipDecoding` decodes.

How long a clip is, is known only when it has been decoded. So tasks are sent until one has reached
the end, and tasks that were already sent then have no frames.

For each frame, the process also computes a histogram of colours, by which scene cuts are found, and
the camera's motion since the frame before.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from cache.storage.durable import make_folder
from pipeline.clips.detectors import People
from pipeline.clips.files import ClipFiles
from pipeline.errors import RawDataError
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.cuts import LEAST, Histogram, difference, histogram
from pipeline.files.pixels.frames import Frame, Image, Video
from pipeline.files.pixels.survey import Survey
from pipeline.people import homography
from pipeline.processes import alive

SMALL: Final = (320, 192)  # px, size of the reduced images of which the camera's motion is computed
# The camera is still if no corner moves by more, in units of half the image: 1.3 px of 1280.
STILL: Final = 0.002
PLACES: Final = 6  # decimals of the camera's motion
PEOPLE_PLACES: Final = 2  # decimals of px of people
SEEN: Final = 0.3  # least confidence of a joint that COCO's visibility calls visible (2)


class _ClipFrame(NamedTuple):
    """A frame of a clip, decoded or damaged."""

    number: int  # in the clip, from 0
    image: Image | None  # None: it cannot be decoded
    colours: Histogram | None  # histogram of the image's colours; None without an image
    camera: list[float] | None  # `_camera_motion` from the frame before


class DecodedTask(NamedTuple):
    """The result of a task: the next frames of a clip."""

    frames: list[_ClipFrame]
    ended: bool  # this is the clip's last task
    problem: RawDataError | None = None  # why the clip cannot be read
    record: ClipRecord | None = None  # what the clip is; known when it has been decoded to its end
    n_stated: int | None = None  # frames of the clip by its header, if that is known


class _DecodedFrame(NamedTuple):
    """A decoded frame, for the detector."""

    number: int  # in the clip, from 0
    image: Image
    is_key: bool  # people are searched in it, instead of followed from the frame before


Task = tuple[str, int]  # a clip, and the task's first frame


class ClipDecoding:
    """Decodes tasks of up to `size` frames in one process.

    Keeps the clip open between tasks, so that the next task continues where the last one stopped.
    """

    def __init__(self, raw: Path, size: int) -> None:
        self._raw = raw
        self._size = size
        self._next: Task | None = None  # the task that continues the open clip; None: none is open
        self._frames: Iterator[Frame]  # the frames of the open clip that follow
        self._n_stated: int | None = None  # frames of the open clip by its header
        self._before: homography.Bytes | None = None  # the frame before, grey and small

    def __call__(self, task: Task) -> DecodedTask:
        """Decode a task's frames. The result has a `problem` if the clip cannot be read."""
        alive()
        clip, start = task
        if task != self._next:
            # `start` is not 0 if another process began the clip. The frame before is decoded, too:
            # the camera's motion is computed from it.
            self._before = None
            before = max(start - 1, 0)
            video = Video(self._raw, clip)
            self._n_stated = None
            with contextlib.suppress(RawDataError):  # which reading it reports
                self._n_stated = video.header().n_frames
            self._frames = video.read(itertools.count(before), Survey())
            image = next(self._frames).image if before < start else None
            if image is not None:
                self._before = _small(image)
        self._next = clip, start + self._size
        frames: list[_ClipFrame] = []
        for frame in itertools.islice(self._frames, self._size):
            if frame.kind in ("video_ended", "video_unreadable"):
                problem = None
                if not frame.index or frame.record is None:
                    problem = Video(self._raw, clip).unreadable(str(frame.problem))
                return DecodedTask(frames, True, problem, frame.record, self._n_stated)
            colours = None
            small = None
            if frame.image is not None:
                colours = histogram(frame.image)
                small = _small(frame.image)
            camera = _camera_motion(self._before, small)
            frames.append(_ClipFrame(frame.index, frame.image, colours, camera))
            self._before = small
        return DecodedTask(frames, ended=False, n_stated=self._n_stated)


def _small(image: Image) -> homography.Bytes:
    import cv2

    return homography.grey(cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA))


def _camera_motion(
    before: homography.Bytes | None, now: homography.Bytes | None
) -> list[float] | None:
    """The first 8 elements of the homography between two small images (`homography.between`).

    None if an image is missing, the homography is unknown, or the camera is still.
    """
    if before is None or now is None:
        return None
    matrix, is_known = homography.between(before, now)
    moves = homography.transfer(matrix, homography.CORNERS) - homography.CORNERS
    if is_known and np.abs(moves).max() > STILL:
        elements: list[float] = matrix.ravel()[:8].round(PLACES).tolist()
        return elements
    return None


class OpenClip:
    """A clip in progress: its decoded frames (`receive`, `take_frames`) and their people
    (`add_people`), who are written into the temporary file `text`.
    """

    def __init__(self, files: ClipFiles, every: int, digest: str) -> None:
        self.files = files
        self.digest = digest  # `file_digest` of the clip before its first frame was decoded
        self._every = every  # frames from one key frame to the next

        # results of decoding
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

        # results of detection
        self.n_persons = 0
        make_folder(files.out)
        # `_people_text` of the frames in order
        self.text = tempfile.TemporaryFile(dir=files.out)  # noqa: SIM115  closed by the detection

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

    def take_frames(self, task: DecodedTask) -> Iterator[_DecodedFrame]:
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
            yield _DecodedFrame(frame.number, frame.image, is_key)

    def add_people(self, frame: int, people: People) -> None:
        """Write the people of the next decoded frame."""
        self.text.write(_people_text(frame, people, self.n_persons))
        self.n_persons += len(people.boxes)


def _people_text(frame: int, people: People, n_before: int) -> bytes:
    """JSON text of a frame's people, with a comma before each. Ids begin at `n_before` + 1."""
    text = b""
    for number, (box, score, joints) in enumerate(zip(*people, strict=True), n_before + 1):
        corner = box[:2].astype(np.float64)
        side = (box[2:] - box[:2]).astype(np.float64)
        confidence = joints[:, 2].astype(np.float64)
        is_marked = joints[:, 2] > 0
        triples = np.zeros((len(joints), 3))
        triples[is_marked, :2] = np.round(joints[is_marked, :2].astype(np.float64), PEOPLE_PLACES)
        triples[is_marked, 2] = 1
        triples[joints[:, 2] >= SEEN, 2] = 2
        keypoints: list[float] = []
        for x, y, visible in triples.tolist():
            keypoints += (x, y, int(visible))
        annotation = {
            "id": number,
            "image_id": frame + 1,
            "category_id": 1,
            "bbox": np.round([*corner, *side], PEOPLE_PLACES).tolist(),
            "area": round(float(side.prod()), PEOPLE_PLACES),
            "iscrowd": 0,
            "score": round(float(score), 4),
            "num_keypoints": int(is_marked.sum()),
            "keypoints": keypoints,
            "keypoint_scores": np.round(confidence, 4).tolist(),
        }
        text += b",\n" + json.dumps(annotation, separators=(",", ":")).encode()
    return text
