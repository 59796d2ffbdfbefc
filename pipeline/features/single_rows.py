"""A stream's numbers of single rows, computed apart from the engine: what stored ones are compared with.

Frames are decoded by another way than in an extraction (`pipeline.files.pixels.another_way`). Which rows, frames, crops
and neighbours belong together is decided apart from the engine; loading a stream, its computation, and reading a column
of labels are shared with it. So a row in the wrong place there is found here.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import Split
from pipeline.errors import PipelineError
from pipeline.features.computing import labelled, load, numbers_of, region_slices, row_of
from pipeline.features.engine.shards import column
from pipeline.features.pixel_sources import Cut, Decoded, Labels, Pixels, Target, labels_in, pixels
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Computer, Stream
from pipeline.files.pixels.frames import Image
from pipeline.processes import Failed, alive
from pipeline.processes.ordered_map import ordered_map

AT_ONCE: Final = 256  # rows that one process makes at once: of 224 px, 39 MB of crops

Rows = NDArray[np.int64]
Numbers = NDArray[Any]


class Asked(NamedTuple):
    """What is computed, n times: for `row`, with the frame (of pairs, and the one before) of one row, by one's box."""

    row: Rows  # (n,) that the numbers are compared with
    of: Rows  # (n,) a row of the same track, whose frame or labels are taken
    box: Rows  # (n,) a row of the same track, whose box is cut out


class Answer(NamedTuple):
    """What was computed of one of those asked for."""

    at: int  # which
    numbers: Numbers | None  # as `ByteStream.numbers` for bytes; None: nothing is known of it, or `problem`
    way: str  # how its frame was decoded
    problem: str = ""  # why it could not be


class _One(NamedTuple):
    """One of those asked for, as a process makes it."""

    frames: tuple[int, ...]  # of its pixels: its own, the last, and of a pair the one before
    cut: Cut
    labels: Labels


class _Item(NamedTuple):
    """What a process makes at once, of one video."""

    pixels: Pixels
    stream: Stream | None  # what computes a row of its crops; None: the crop itself is compared
    size: int  # px, of the crop
    ones: tuple[_One, ...]  # ascending by their own frame
    stored: Mapping[int, Cut]  # of stored crops: what each shows


class SingleRows:
    """One committed stream of a split. Raises what loading raises, and PipelineError where its pixels are not found."""

    def __init__(self, split: Split, spec: StreamSpec, workers: int) -> None:
        self._split, self._spec, self._workers = split, spec, workers
        self._policy = spec.stream.policy
        self._computer = load(spec.stream, spec.resources.machine, split.stream_manifest(spec.name)["backbone"])[0]
        if spec.stream.reads.crops:
            self._pixels = pixels(split, spec.crops, spec.raw)

    def numbers(self, asked: Asked) -> Iterator[Answer]:
        """Of each of those asked for, in an order that suits their videos."""
        if not self._spec.stream.reads.crops:
            yield from self._of_labels(self._spec.stream, asked)
        elif self._computer is not None:
            yield from self._through_network(self._computer, self._made(asked))
        else:
            yield from self._made(asked)

    def _of_labels(self, stream: Stream, asked: Asked) -> Iterator[Answer]:
        for start in range(0, len(asked.row), AT_ONCE):
            rows = asked.of[start : start + AT_ONCE]
            labels = {name: column(self._split, name, rows) for name in stream.reads.labels}
            computed, known = labelled(stream, self._computer, labels, len(rows))
            for i in range(len(rows)):
                yield Answer(start + i, computed[i] if known[i] else None, "labels")

    def _through_network(self, computer: Computer, crops: Iterator[Answer]) -> Iterator[Answer]:
        """The numbers of crops, in batches of the network's size."""
        size, lanes = computer.batch_size, computer.lanes
        memory = np.zeros((size * lanes, self._policy.size, self._policy.size, 3), np.uint8)
        region, made_of = region_slices(self._policy), functools.partial(numbers_of, self._spec.stream, computer)
        computer.adopt(memory)
        try:
            with ThreadPoolExecutor(lanes) as threads:
                while some := list(itertools.islice(crops, len(memory))):
                    made = [(answer, answer.numbers) for answer in some if answer.numbers is not None]
                    yield from (answer for answer in some if answer.numbers is None)
                    for slot, (_, crop) in zip(memory, made, strict=False):
                        slot[:] = crop
                    batches = [memory[first : first + size][:, *region] for first in range(0, len(made), size)]
                    computed = itertools.chain.from_iterable(threads.map(made_of, batches))
                    yield from (one._replace(numbers=found) for (one, _), found in zip(made, computed, strict=False))
        finally:
            computer.release()

    def _made(self, asked: Asked) -> Iterator[Answer]:
        """Crops, or what is made of them where pictures are decoded."""
        items = _Items(self._split, self._spec, self._pixels, asked, by_worker=self._computer is None)
        for number, made in enumerate(ordered_map(_make, items, self._workers)):
            at, way = items.at(number).tolist(), items.way(number)
            if isinstance(made, Failed):
                yield from (Answer(i, None, way, f"a process that decoded it {made.message}") for i in at)
                continue
            for i, one in zip(at, made, strict=True):
                yield Answer(i, None, way, one) if isinstance(one, str) else Answer(i, one, way)


class _Items(Sequence[_Item]):
    """The items of those asked for, each made when a process is given it."""

    def __init__(
        self, split: Split, spec: StreamSpec, pixels: Callable[[int], Pixels], asked: Asked, *, by_worker: bool
    ) -> None:
        self._split, self._asked, self._by_row = split, asked, bool(spec.crops)
        self._stream, self._policy, self._pixels = spec.stream, spec.stream.policy, pixels
        self._by_worker = by_worker
        video = split.tracks.video[split.track_of(asked.row)]
        self._order = np.lexsort((asked.of, self._frames(asked.of), video))
        self._video = video[self._order]
        ends = [0, *(np.flatnonzero(np.diff(self._video)) + 1).tolist(), len(video)]
        self._bounds = [
            (start, min(start + AT_ONCE, stop))
            for first, stop in itertools.pairwise(ends)
            for start in range(first, stop, AT_ONCE)
        ]

    def __len__(self) -> int:
        return len(self._bounds)

    def at(self, number: int) -> Rows:
        """Which of those asked for an item has."""
        return self._order[slice(*self._bounds[number])]

    def way(self, number: int) -> str:
        """How its frames are decoded."""
        return self._decoded(number)[1]

    def _decoded(self, number: int) -> tuple[Pixels, str]:
        return self._pixels(int(self._video[self._bounds[number][0]])).another_way()

    def __getitem__(self, number: Any) -> Any:  # an _Item; no slices are taken
        at = self.at(number)
        of, box = self._asked.of[at], self._asked.box[at]
        reads = self._stream.reads
        places = [of - back for back in reversed(range(reads.crops))]
        frames = np.stack([self._frames(rows) for rows in places], axis=1).tolist()
        names = reads.labels
        labels = [column(self._split, name, of) for name in names]
        ones = tuple(
            _One(tuple(one), cut, dict(zip(names, values, strict=True)))
            for one, cut, *values in zip(frames, self._cuts(box), *labels, strict=True)
        )
        stored: dict[int, Cut] = {}
        if self._by_row:
            rows = np.unique(np.concatenate(places))
            stored = dict(zip(rows.tolist(), self._cuts(rows), strict=True))
        stream = self._stream if self._by_worker else None
        return _Item(self._decoded(number)[0], stream, self._policy.size, ones, stored)

    def _frames(self, rows: Rows) -> Rows:
        """By which the pixels know them."""
        return rows if self._by_row else column(self._split, "frame_index", rows)

    def _cuts(self, rows: Rows) -> list[Cut]:
        """What the crops of rows show, by the stream's crop policy."""
        track = self._split.track_of(rows)
        scale = np.asarray(self._split.tracks.crop_scale[track], np.float64)
        keys = self._policy.keys(self._split.tracks[number].name for number in track.tolist())
        frame, bbox = (column(self._split, name, rows) for name in ("frame_index", "bbox"))
        boxes, mirrored = self._policy.boxes(bbox, scale, keys, frame)
        return [
            Cut(tuple(box), *of) for box, *of in zip(boxes.tolist(), scale.tolist(), mirrored.tolist(), strict=True)
        ]


def _make(item: _Item) -> list[Numbers | str | None]:
    """Of each: its crop or what the stream makes of it, None where nothing is known, or why it cannot be made."""
    try:
        item.pixels.check()
    except PipelineError as error:
        return [str(error)] * len(item.ones)
    frames = sorted({frame for one in item.ones for frame in one.frames})
    targets = (Target(frame, (), stored=item.stored.get(frame)) for frame in frames)
    made: list[Numbers | str | None] = []
    kept: dict[int, Decoded] = {}
    for frame, decoded in zip(frames, item.pixels.decode(targets, alive), strict=True):
        kept[frame] = decoded
        while len(made) < len(item.ones) and item.ones[len(made)].frames[-1] == frame:
            made.append(_made_of(item, item.ones[len(made)], kept))
        first = min((one.frames[0] for one in item.ones[len(made) :]), default=0)
        kept = {number: one for number, one in kept.items() if number >= first}
    return made


def _made_of(item: _Item, one: _One, kept: Mapping[int, Decoded]) -> Numbers | str | None:
    crops: list[Image] = []
    for frame in one.frames:
        decoded = kept[frame]
        if decoded.crop is None:
            return decoded.problem
        crops.append(decoded.crop(one.cut, item.size))
    if item.stream is None:
        return crops[0]
    row = row_of(item.stream, crops, labels_in(one.labels, one.cut), f"frame {one.frames[-1]}")
    return item.stream.numbers(row) if isinstance(row, bytes) else row
