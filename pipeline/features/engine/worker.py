"""What a decoding process does: decode frames, and write crops into slots of the shared memory.
pixels -> [crops] -> features

`run.py` explains the words. It sends `Slots` once, then one `Task` after the other. `CropDecoding`
decodes the task's frames in order, makes the crops of each frame, fills their slots, and returns
`Decoded`, which only has the problems.
"""

from __future__ import annotations

import functools
import mmap
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cache.arrays import Ints
from pipeline.features.computing import compute_row
from pipeline.features.engine.meter import Meter
from pipeline.features.inputs import CUT, Pixels, VideoLost, crop_labels
from pipeline.features.streams.base import Labels, Stream
from pipeline.files.pixels.frames import Frame
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
        self._job = -1  # the number of the job whose pixels are open; -1: none
        self._lost_job = -1  # the last job whose video cannot be read; -1: none
        self._lost_reason = ""  # why it cannot be read
        self._kept: dict[int, Frame] = {}  # the last few decoded frames, by number
        self._upcoming = deque[int]()  # numbers of the next frames that `_frames` decodes
        # by output: the slots' contents and sizes
        self._mapped: list[tuple[NDArray[np.uint8], Ints]]
        self._frames: Iterator[Frame]  # of the job
        # of the task
        self._task: Task
        # frame number -> its crops, each as (output, index in the output's crops)
        self._crops_by_frame: dict[int, list[tuple[int, int]]]
        self._problems: Problems
        self._meter: Meter

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
        self._task = task
        self._problems = {}
        self._meter = Meter()
        self._crops_by_frame = {}
        if task.job != self._lost_job:
            try:
                self._decode(task, skipped)
                return Decoded(self._problems, self._meter)
            except VideoLost as error:
                self._lost_job = task.job
                self._lost_reason = str(error)
                self._job = -1
        return Decoded({}, self._meter, self._lost_reason)

    def _decode(self, task: Task, skipped: Mapping[int, Failed]) -> None:
        for output, crops in enumerate(task.crops):
            for i, number in enumerate(crops.rows["frame"].tolist()):
                self._crops_by_frame.setdefault(number, []).append((output, i))
        numbers = task.frames
        if task.job != self._job:
            numbers = self._begin(task)
        numbers = [number for number in numbers if not self._skip(number, task, skipped)]
        self._upcoming.extend(numbers)
        for number in numbers:
            alive(number)  # reports progress; before the video is opened, which may hang, too
            began = time.perf_counter()
            frame = next(self._frames)  # takes one number from `_upcoming`
            self._meter.add(decode=time.perf_counter() - began)
            for output, i in self._crops_by_frame.get(number, ()):
                self._fill(output, i, frame)
            self._meter.frames += frame.image is not None
            if task.n_kept:
                self._kept[frame.index] = frame
            if len(self._kept) > task.n_kept:
                del self._kept[next(iter(self._kept))]
        if task.compare_after:
            alive(PREPARING)
            task.pixels.check()

    def _begin(self, task: Task) -> list[int]:
        """Open the pixels of the task's job. Returns all frames to decode for the task."""
        if task.compare_before:
            alive(PREPARING)
            task.pixels.check()
        self._job = task.job
        self._kept = {}
        self._upcoming.clear()
        self._frames = task.pixels.decode(iter(self._upcoming.popleft, None))
        return task.earlier_frames + task.frames

    def _skip(self, number: int, task: Task, skipped: Mapping[int, Failed]) -> bool:
        """Skip a frame if processes failed at it, or at an earlier frame of a video that is decoded
        in order: record the problem for its crops. Returns whether the frame is skipped.
        """
        pixels = task.pixels
        frames = [frame for frame in skipped if frame == number]
        if pixels.in_order:
            frames = [frame for frame in skipped if frame <= number]
        if not frames:
            return False
        frame = min(frames)
        ended = f"{TRIALS} processes that decoded it ended, the last one {skipped[frame].message}"
        kind = KINDS[skipped[frame].reason] if frame == number else AFTER
        for output_crop in self._crops_by_frame.get(number, ()):
            self._problems[output_crop] = (kind, f"{pixels.name}, frame {frame}: {ended}")
        return True

    def _fill(self, output: int, i: int, frame: Frame) -> None:
        """Fill the slot of an output's i-th crop from a decoded frame, or record its problem."""
        frames = self._frames_of_crop(output, i, frame)
        if not frames:
            return
        began = time.perf_counter()
        size, stream, *_ = self._slots[output]
        crops = self._task.crops[output]
        cut = crops.rows["cut"][i]
        slot = crops.rows["slot"][i]
        is_whole = stream is not None and stream.reads.is_whole
        crop = functools.partial(self._task.pixels.crop, cut=cut, size=size, is_whole=is_whole)
        images = [crop(frame) for frame in frames]
        slots, sizes = self._mapped[output]
        if stream is None:
            slots[slot] = images[0].reshape(-1)
            self._meter.add(crop=time.perf_counter() - began)
            return
        cropped = time.perf_counter()
        labels = crop_labels({name: values[i] for name, values in crops.labels.items()}, cut)
        row = compute_row(stream, images, labels, f"frame {frame.index}")
        if row is None:
            slots[slot] = 0
            sizes[slot] = 0
        else:
            slots[slot] = row.view(np.uint8)
            sizes[slot] = row.nbytes
        self._meter.add(crop=cropped - began, row=time.perf_counter() - cropped)

    def _frames_of_crop(self, output: int, i: int, frame: Frame) -> list[Frame]:
        """The frame, and for a pair the previous one before it. If one has no image, records the
        problem, and returns [].
        """
        if frame.image is None:
            self._problems[output, i] = (frame.kind, str(frame.problem))
            return []
        stream = self._slots[output].stream
        if stream is None or stream.reads.crops == 1:
            return [frame]
        number = self._task.crops[output].rows["previous"][i]
        previous = self._kept.get(number)
        if previous is not None and previous.image is not None:
            return [previous, frame]
        why = "its decoder crashed"
        if previous is not None:
            why = str(previous.problem)
        message = f"frame {frame.index}: its previous frame {number} is missing: {why}"
        self._problems[output, i] = ("previous_undecodable", message)
        return []
