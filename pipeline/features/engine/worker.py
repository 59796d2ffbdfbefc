"""What a decoding process does: decode frames, and cut crops or compute rows of them.  pixels ->
[crops] -> features

`run.py` sends one `Task` after the other: some frames of one video, and by *output* (a stream that
is computed) the crops to cut from them. A *crop* is the part of a frame that shows the person of
one row; a *row* is one person in one frame, and has a number in the split. A crop for a network is
written into its *slot*, a piece of shared memory. Rows of a stream without a network are computed
here, and sent back.

`CropDecoding` is called with each task. An `_DecodedVideo` stays open from task to task, and a
`_Filling` cuts the crops of one output. The answer is a `Decoded`.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Bools, Floats
from pipeline.features.inputs import crop_labels
from pipeline.features.pixels import Pixels, VideoLost
from pipeline.features.streams import compute_row
from pipeline.features.streams.base import Labels, Stream
from pipeline.files.pixels.frames import Frame
from pipeline.people.boxes import crop_person
from pipeline.processes import PREPARING, Failed, alive
from pipeline.processes.meter import Meter
from pipeline.processes.pool import TRIALS

AHEAD: Final = 2  # tasks that a process has: one that runs, and one that waits
KINDS: Final = {  # reason of `pipeline.processes.Failed` -> kind of a frame's problem
    "reader_timeout": "decoder_hung",
    "reader_crashed": "decoder_crashed",
    "reader_memory": "decoder_memory",
    "machine_memory": "decoder_memory",
}
AFTER: Final = "after_decoder_failure"  # the problem of frames after one at which decoders failed


class Output(NamedTuple):
    """What a decoding process does with the crops of one stream."""

    crop_size: int  # px
    # the stream whose rows the process computes; None: a network computes them, of crops in slots
    stream: Stream | None

    def view_slots(self, memory: mmap.mmap) -> NDArray[np.uint8]:
        """View shared memory as slots for crops (n, crop_size, crop_size, 3)."""
        slots: NDArray[np.uint8] = np.frombuffer(memory, np.uint8)
        return slots.reshape(-1, self.crop_size, self.crop_size, 3)


class Crops(NamedTuple):
    """The crops of one output in some frames, and the labels of their rows."""

    rows: NDArray[np.void]  # (n,) of `CROP`, ascending by frame
    labels: Labels  # (n, ...) stored columns that the stream reads

    def within(self, first: int, last: int) -> Crops:
        """The crops in frames `first` to `last`, inclusive."""
        indices = self.find(first, last)
        labels = {name: values[indices] for name, values in self.labels.items()}
        return Crops(self.rows[indices], labels)

    def find(self, first: int, last: int) -> slice:
        """Which crops are in frames `first` to `last`, inclusive."""
        frame = self.rows["frame"]
        start = int(np.searchsorted(frame, first))
        return slice(start, int(np.searchsorted(frame, last, side="right")))


class Task(NamedTuple):
    """A few frames of a video. One process runs the tasks of a job in order; if it fails, another
    one can continue from any task.
    """

    video: int  # number in the split
    pixels: Pixels
    frames: list[int]  # ascending
    # the last frames that the job has decoded before, for a process that begins with this task; []
    # for the first task of a job
    earlier_frames: list[int]
    crops: list[Crops]  # by output
    n_kept: int  # number of decoded frames to keep, as later rows need them as previous frames
    compare_after: bool  # whether to compare the pixels with the converted ones again at the end


class _Filled(NamedTuple):
    """What became of the n crops of one output in a task."""

    # (kind, message) -> indices of the crops that failed
    problems: dict[tuple[str, str], list[int]]
    # rows that the process has computed; of a network's stream, whose crops are in slots, (n, 0)
    values: Floats  # (n, dim); 0 where they are unknown
    known: Bools  # (n,) whether a row's numbers are known


class Decoded(NamedTuple):
    """The result of a task."""

    filled: list[_Filled]  # by output
    meter: Meter
    lost: str = ""  # why the video cannot be read now; "" if it can


class CropDecoding:
    """The function of a decoding process: it decodes the frames of each `Task`.

    Before a process decodes a video, it compares the pixels with those of the conversion. A frame
    at which decoding processes crash or hang is skipped: its rows get a problem, and if the video
    can only be decoded in order, so do the rows of all later frames.
    """

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs
        self._slots: list[NDArray[np.uint8]] = []  # by network, (n, size, size, 3)
        self._compared: Pixels | None = None  # the video that was compared last
        self._video: _DecodedVideo | None = None  # that of the last task

    def share(self, *memories: mmap.mmap) -> None:
        """Map the shared memory of the slots, one for each network. Called before any task."""
        outputs = [output for output in self._outputs if output.stream is None]
        for output, memory in zip(outputs, memories, strict=True):
            self._slots.append(output.view_slots(memory))

    def __call__(self, task: Task, skipped: Mapping[int, Failed]) -> Decoded:
        """Decode a task.

        Args:
            skipped: frames of its job at which processes failed, and how.
        """
        import cv2

        cv2.setNumThreads(1)  # processes already use all cores
        meter = Meter()
        slots = iter(self._slots)
        fillings = []
        for output, crops in zip(self._outputs, task.crops, strict=True):
            memory = next(slots) if output.stream is None else None
            fillings.append(_Filling(output, crops, memory, meter))
        lost = ""
        try:
            self._decode(task, skipped, fillings, meter)
        except VideoLost as error:
            self._video = None
            self._compared = None
            lost = str(error)
        return Decoded([filling.filled for filling in fillings], meter, lost)

    def _decode(
        self,
        task: Task,
        skipped: Mapping[int, Failed],
        fillings: Sequence[_Filling],
        meter: Meter,
    ) -> None:
        """Decode the task's frames, and cut their crops. Raises VideoLost."""
        if task.pixels != self._compared:
            alive(PREPARING)
            task.pixels.check()
            self._compared = task.pixels
        video = self._video
        numbers = task.frames
        if video is None or not video.precedes(task):
            video = _DecodedVideo(task)
            self._video = video
            numbers = task.earlier_frames + task.frames
        for number in numbers:
            video.position = number
            problem = _why_skipped(task.pixels, number, skipped)
            if problem is not None:
                for filling in fillings:
                    filling.skip(number, problem)
                continue
            alive(number)  # reports progress; before the video is opened, which may hang, too
            with meter.measure("decode"):
                frame = video.decode(number)
            meter.frames += frame.image is not None
            for filling in fillings:
                filling.fill(frame, video)
            video.kept.append(frame)
        if task.compare_after:
            alive(PREPARING)
            task.pixels.check()


def _why_skipped(
    pixels: Pixels, number: int, skipped: Mapping[int, Failed]
) -> tuple[str, str] | None:
    """The problem of a frame at which processes failed, or at an earlier frame of a video that is
    decoded in order: (kind, message). None for another frame.
    """
    failed = [frame for frame in skipped if frame == number]
    if pixels.in_order:
        failed = [frame for frame in skipped if frame <= number]
    if not failed:
        return None
    first = min(failed)
    ended = f"{TRIALS} processes that decoded it ended, the last one {skipped[first].message}"
    kind = KINDS[skipped[first].reason] if first == number else AFTER
    return kind, f"{pixels.name}, frame {first}: {ended}"


class _DecodedVideo:
    """A video that stays open while one process decodes the tasks of a job. Its frames come from
    one iterator, which takes the number of each frame when the frame is asked for.

    The iterator must not refer to this object: so the video is closed when this object is dropped,
    not at some later garbage collection.
    """

    def __init__(self, task: Task) -> None:
        self._pixels = task.pixels
        self.position = -1  # the last frame, decoded or skipped
        self._number = deque[int]()  # that of the next frame, until the iterator takes it
        self._frames = task.pixels.decode(iter(self._number.popleft, None))
        self.kept = deque[Frame](maxlen=task.n_kept)  # the last ones

    def precedes(self, task: Task) -> bool:
        """Whether the task continues where this video is."""
        earlier = task.earlier_frames[-1:]
        return task.pixels == self._pixels and earlier == [self.position]

    def decode(self, number: int) -> Frame:
        """Decode a frame after those that have been decoded."""
        self._number.append(number)
        return next(self._frames)

    def find_kept(self, number: int) -> Frame | None:
        """The kept frame of this number; None if there is none."""
        for frame in self.kept:
            if frame.index == number:
                return frame
        return None


class _Filling:
    """Cuts the crops of one output in a task.

    Args:
        slots: of the output's network (n, size, size, 3); None: the rows are computed here.
    """

    def __init__(
        self,
        output: Output,
        crops: Crops,
        slots: NDArray[np.uint8] | None,
        meter: Meter,
    ) -> None:
        self._size, self._stream = output
        self._is_whole = self._stream is not None and self._stream.reads.is_whole
        self._crops = crops
        self._slots = slots
        self._meter = meter
        n = len(crops.rows)
        dim = self._stream.dim if self._stream is not None else 0
        self.filled = _Filled({}, np.zeros((n, dim), np.float32), np.zeros(n, bool))

    def skip(self, number: int, problem: tuple[str, str]) -> None:
        """Record a problem for the crops of a frame."""
        self._add_problem(problem, self._find_crops(number))

    def _add_problem(self, problem: tuple[str, str], indices: Sequence[int]) -> None:
        if indices:
            self.filled.problems.setdefault(problem, []).extend(indices)

    def fill(self, frame: Frame, video: _DecodedVideo) -> None:
        """Cut the crops of a decoded frame, or record their problem."""
        if frame.image is None:
            self.skip(frame.index, (frame.kind, str(frame.problem)))
            return
        for i in self._find_crops(frame.index):
            if self._stream is None or self._stream.reads.crops == 1:
                self._fill(i, [frame])
                continue
            number = self._crops.rows["previous"][i]
            previous = video.find_kept(number)
            if previous is not None and previous.image is not None:
                self._fill(i, [previous, frame])
                continue
            why = "its decoder crashed" if previous is None else str(previous.problem)
            message = f"frame {frame.index}: its previous frame {number} is missing: {why}"
            self._add_problem(("previous_undecodable", message), [i])

    def _find_crops(self, number: int) -> range:
        """Indices of the crops in a frame."""
        indices = self._crops.find(number, number)
        return range(indices.start, indices.stop)

    def _fill(self, i: int, frames: Sequence[Frame]) -> None:
        """Cut crop i from the frames, the last of which is its own, into its slot; or compute its
        row.
        """
        crop = self._crops.rows[i]
        cut = crop["cut"]
        images = []
        with self._meter.measure("crop"):
            for frame in frames:
                image = frame.image
                assert image is not None, "frames without an image are not cut"
                if not self._is_whole:
                    image = crop_person(
                        image, cut["bbox"], cut["scale"], self._size, mirrored=cut["mirrored"]
                    )
                images.append(image)
            if self._slots is not None:
                self._slots[crop["slot"]] = images[0]
        if self._stream is None:
            return
        with self._meter.measure("row"):
            labels: Labels = {name: values[i] for name, values in self._crops.labels.items()}
            labels = crop_labels(labels, cut)
            row = compute_row(self._stream, images, labels, f"frame {crop['frame']}")
            if row is not None:
                self.filled.values[i] = row
                self.filled.known[i] = True
