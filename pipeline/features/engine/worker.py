"""What a decoding process does: decode frames, and write crops into slots of the shared memory.
pixels -> [crops] -> features

`run.py` sends `Slots` once, then one `Task` after the other: some frames of one video, and by
*output* (a stream that is computed) the crops to make of them. A *crop* is the part of a frame that
shows the person of one row; a *row* is one person in one frame, and has a number in the split. Each
crop of a task has a *slot*, a piece of shared memory that gets its pixels, or for a stream without
a network, the numbers of its row.

`CropDecoding` is called with each task. `_JobVideo` keeps the video open from task to task, and
`_TaskFilling` fills the slots of one task. The answer, `Decoded`, only has the problems.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cache.arrays import Ints
from pipeline.features.computing import compute_row
from pipeline.features.engine.meter import Meter
from pipeline.features.inputs import CUT, Pixels, VideoLost, crop_labels
from pipeline.features.streams.base import Labels, Stream
from pipeline.files.pixels.frames import Frame, Image
from pipeline.processes import PREPARING, Failed, alive
from pipeline.processes.pool import TRIALS

AHEAD: Final = 2  # tasks that a process has: one that runs, and one that waits
CROP: Final = np.dtype(  # one output's crop for one row
    [
        ("row", np.int64),  # of the split
        ("frame", np.int64),
        ("previous", np.int64),  # the frame one step before, for a stream of pairs
        ("slot", np.int64),  # where the crop, or the row's numbers, are to be written
        ("cut", CUT),  # how the crop is cut from the frame
    ]
)
KINDS: Final = {  # reason of `pipeline.processes.Failed` -> kind of a frame's problem
    "reader_timeout": "decoder_hung",
    "reader_crashed": "decoder_crashed",
    "reader_memory": "decoder_memory",
    "machine_memory": "decoder_memory",
}
AFTER: Final = "after_decoder_failure"  # the problem of frames after one at which decoders failed


class Slots(NamedTuple):
    """The slots of one output: memory that several processes share.

    A slot has a crop; or, if decoding processes compute the rows, a row's float32 numbers, and its
    size in bytes, which is 0 if the row's value is unknown.
    """

    crop_size: int  # px
    # the stream whose rows a decoding process computes; None: slots have crops
    stream: Stream | None
    n_slots: int
    slot_bytes: int

    @property
    def n_bytes(self) -> int:
        """Size of the memory: the slots, then an int64 size for each."""
        return -(-self.n_slots * self.slot_bytes // 8) * 8 + self.n_slots * 8

    def map(self, memory: mmap.mmap) -> tuple[NDArray[np.uint8], Ints]:
        """View the memory as the slots' contents (n_slots, slot_bytes), and their sizes
        (n_slots,).
        """
        slots: NDArray[np.uint8] = np.frombuffer(memory, np.uint8, self.n_slots * self.slot_bytes)
        sizes: Ints = np.frombuffer(memory, np.int64, self.n_slots, self.n_bytes - self.n_slots * 8)
        return slots.reshape(self.n_slots, self.slot_bytes), sizes


class Crops(NamedTuple):
    """The crops of one output in some frames, and the labels of their rows."""

    rows: NDArray[np.void]  # (n,) of `CROP`, ascending by frame
    labels: Labels  # (n, ...) stored columns that the stream reads

    def within(self, first: int, last: int) -> Crops:
        """The crops in frames `first` to `last`, inclusive."""
        frame = self.rows["frame"]
        start = np.searchsorted(frame, first)
        stop = np.searchsorted(frame, last, side="right")
        labels = {name: values[start:stop] for name, values in self.labels.items()}
        return Crops(self.rows[start:stop], labels)

    def __reduce__(self) -> tuple[Any, ...]:  # NumPy would describe `CROP` each time
        return _unpickle_crops, (self.rows.tobytes(), self.labels)


def _unpickle_crops(rows: bytes, labels: Labels) -> Crops:
    return Crops(np.frombuffer(rows, CROP), labels)


class Task(NamedTuple):
    """A few frames of one job. One process runs a job's tasks in order; if it fails, another one
    can continue from any task.
    """

    number: int
    job: int
    pixels: Pixels
    frames: list[int]  # ascending
    crops: list[Crops]  # by output
    n_kept: int  # number of decoded frames to keep, as later rows need them as previous frames
    # the `n_kept` frames before these, for a process that starts the job with this task
    earlier_frames: list[int]
    # whether to compare the video's pixels with those of the conversion, before the first frame and
    # after the last one
    compare_before: bool
    compare_after: bool


# (output, index in its crops) of a crop that failed -> (kind, message)
Problems = dict[tuple[int, int], tuple[str, str]]


class Decoded(NamedTuple):
    """The result of a task; the crops are in their slots."""

    problems: Problems
    meter: Meter
    lost: str = ""  # why the video cannot be read now; "" if it can


class CropDecoding:
    """The function of a decoding process: it fills the slots of each `Task`.

    Args:
        slots: by output.

    A frame at which decoding processes crash or hang is skipped: its rows get a problem, and if the
    video can only be decoded in order, so do the rows of all later frames.
    """

    def __init__(self, slots: Sequence[Slots]) -> None:
        self._slots = slots
        # by output: the slots' contents and sizes, as `Slots.map` returns them; set by `share`
        self._mapped: list[tuple[NDArray[np.uint8], Ints]]
        self._video: _JobVideo | None = None  # that of the last task; None: none is open
        self._lost_job = -1  # the last job whose video cannot be read; -1: none
        self._lost_reason = ""  # why it cannot be read

    def share(self, *memories: mmap.mmap) -> None:
        """Map the shared memory of the slots, one for each output. Called before the first task."""
        cv2.setNumThreads(1)  # processes already use all cores
        self._mapped = [
            slots.map(memory) for slots, memory in zip(self._slots, memories, strict=True)
        ]

    def __call__(self, task: Task, skipped: Mapping[int, Failed]) -> Decoded:
        """Fill the slots of a task.

        Args:
            skipped: frames of its job at which processes failed, and how.
        """
        filling = _TaskFilling(task, self._slots, self._mapped)
        if task.job != self._lost_job:
            try:
                self._decode(task, skipped, filling)
                return Decoded(filling.problems, filling.meter)
            except VideoLost as error:
                self._lost_job = task.job
                self._lost_reason = str(error)
                self._video = None
        return Decoded({}, filling.meter, self._lost_reason)

    def _decode(self, task: Task, skipped: Mapping[int, Failed], filling: _TaskFilling) -> None:
        """Decode the task's frames, and fill their slots. Raises VideoLost."""
        video = self._video
        numbers = task.frames
        if video is None or video.job != task.job:
            if task.compare_before:
                alive(PREPARING)
                task.pixels.check()
            video = _JobVideo(task)
            self._video = video
            numbers = task.earlier_frames + task.frames
        for number in numbers:
            if filling.skip(number, skipped):
                continue
            alive(number)  # reports progress; before the video is opened, which may hang, too
            with filling.meter.measure("decode"):
                frame = video.decode(number)
            filling.fill(frame, video)
            video.keep(frame)
        if task.compare_after:
            alive(PREPARING)
            task.pixels.check()


class _JobVideo:
    """The video of a job, which stays open while one process decodes the job's tasks. Its frames
    come from one iterator, which takes the number of each frame when the frame is asked for.

    The iterator must not refer to this object: so the video is closed when this object is dropped,
    not at some later garbage collection.
    """

    def __init__(self, task: Task) -> None:
        self.job = task.job
        self._number = deque[int]()  # that of the next frame, until the iterator takes it
        self._frames = task.pixels.decode(iter(self._number.popleft, None))
        self._kept = deque[Frame](maxlen=task.n_kept)

    def decode(self, number: int) -> Frame:
        """Decode a frame after those that have been decoded."""
        self._number.append(number)
        return next(self._frames)

    def keep(self, frame: Frame) -> None:
        """Keep a frame as one of the last `n_kept`."""
        self._kept.append(frame)

    def find_kept(self, number: int) -> Frame | None:
        """The kept frame of this number; None if there is none."""
        for frame in self._kept:
            if frame.index == number:
                return frame
        return None


class _TaskFilling:
    """Fills the slots of one task.

    Args:
        slots, mapped: by output, as in `CropDecoding`.
    """

    def __init__(
        self,
        task: Task,
        slots: Sequence[Slots],
        mapped: Sequence[tuple[NDArray[np.uint8], Ints]],
    ) -> None:
        self.problems: Problems = {}  # of crops whose slots are not filled
        self.meter = Meter()
        self._task = task
        self._slots = slots
        self._mapped = mapped
        # frame number -> its crops, each as (output, index in the output's crops)
        self._crops_by_frame: dict[int, list[tuple[int, int]]] = {}
        for output, crops in enumerate(task.crops):
            for i, number in enumerate(crops.rows["frame"].tolist()):
                self._crops_by_frame.setdefault(number, []).append((output, i))

    def skip(self, number: int, skipped: Mapping[int, Failed]) -> bool:
        """Skip a frame if processes failed at it, or at an earlier frame of a video that is decoded
        in order: record the problem for its crops. Returns whether the frame is skipped.
        """
        pixels = self._task.pixels
        failed = [frame for frame in skipped if frame == number]
        if pixels.in_order:
            failed = [frame for frame in skipped if frame <= number]
        if not failed:
            return False
        first = min(failed)
        ended = f"{TRIALS} processes that decoded it ended, the last one {skipped[first].message}"
        kind = KINDS[skipped[first].reason] if first == number else AFTER
        for output_crop in self._crops_by_frame.get(number, ()):
            self.problems[output_crop] = (kind, f"{pixels.name}, frame {first}: {ended}")
        return True

    def fill(self, frame: Frame, video: _JobVideo) -> None:
        """Fill the slots of a decoded frame's crops, or record their problems."""
        self.meter.frames += frame.image is not None
        for output, i in self._crops_by_frame.get(frame.index, ()):
            frames = self._frames_of_crop(output, i, frame, video)
            if frames:
                self._fill_slot(output, i, frames)

    def _frames_of_crop(self, output: int, i: int, frame: Frame, video: _JobVideo) -> list[Frame]:
        """The frame, and for a pair the previous one before it. If one has no image, records the
        problem, and returns [].
        """
        if frame.image is None:
            self.problems[output, i] = (frame.kind, str(frame.problem))
            return []
        stream = self._slots[output].stream
        if stream is None or stream.reads.crops == 1:
            return [frame]
        number = self._task.crops[output].rows["previous"][i]
        previous = video.find_kept(number)
        if previous is not None and previous.image is not None:
            return [previous, frame]
        why = "its decoder crashed"
        if previous is not None:
            why = str(previous.problem)
        message = f"frame {frame.index}: its previous frame {number} is missing: {why}"
        self.problems[output, i] = ("previous_undecodable", message)
        return []

    def _fill_slot(self, output: int, i: int, frames: Sequence[Frame]) -> None:
        """Fill the slot of an output's i-th crop: with its pixels, or with its row's numbers.

        frames: those to crop; the crop's own is the last.
        """
        crops = self._task.crops[output]
        crop = crops.rows[i]
        stream = self._slots[output].stream
        slots, sizes = self._mapped[output]
        slot = crop["slot"]
        with self.meter.measure("crop"):
            images = self._cut(output, crop["cut"], frames)
            if stream is None:
                slots[slot] = images[0].reshape(-1)
                return
        with self.meter.measure("row"):
            labels: Labels = {name: values[i] for name, values in crops.labels.items()}
            labels = crop_labels(labels, crop["cut"])
            row = compute_row(stream, images, labels, f"frame {crop['frame']}")
            if row is None:
                slots[slot] = 0
                sizes[slot] = 0
            else:
                slots[slot] = row.view(np.uint8)
                sizes[slot] = row.nbytes

    def _cut(self, output: int, cut: np.void, frames: Sequence[Frame]) -> list[Image]:
        """Cut a crop of an output from each of the frames."""
        size, stream, *_ = self._slots[output]
        is_whole = stream is not None and stream.reads.is_whole
        pixels = self._task.pixels
        return [pixels.crop(frame, cut, size, is_whole=is_whole) for frame in frames]
