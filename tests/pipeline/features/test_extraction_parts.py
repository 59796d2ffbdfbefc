"""Parts of an extraction by themselves: what is decoded when, where crops go, and when shards are whole."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.features.engine import tasks
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.shards import EXAMPLES, OpenShards
from pipeline.features.engine.tasks import MOST_ROWS, MOST_SHARDS, Batches, Job, jobs
from pipeline.features.engine.worker import Done

ORDERLY = settings(deadline=None, max_examples=80, derandomize=True)


# ----------------------------------------------------------------------------------------------------- jobs


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Videos of some tracks each, with gaps between them, cut into small shards, of which some are pending."""
    tracks, row = [], 0
    for video in range(draw(st.integers(1, 6))):
        for _ in range(draw(st.integers(1, 4))):
            row += draw(st.integers(0, 5))
            length = draw(st.integers(1, 40))
            tracks.append((video, row, length, draw(st.integers(0, 6))))
            row += length
    size = draw(st.sampled_from([4, 8, 16]))
    return {
        "tracks": tracks,
        "size": size,
        "pending": draw(st.sets(st.integers(0, row // size), max_size=40)),
        "every": draw(st.sampled_from([1, 2, 3, 10**9])),  # of so many keys, the stream has one
        "in_order": draw(st.sets(st.integers(0, 5))),
        "by_row": draw(st.booleans()),
        "most_persons": draw(st.integers(1, 4)),
        "run_rows": draw(st.integers(1, 50)),
    }


def laid_out(made_up: Any, layout: dict[str, Any]) -> tuple[Any, Any, OpenShards, list[int], Any]:
    split = made_up.Split([made_up.Track(*track) for track in layout["tracks"]], layout["size"])
    every = np.uint64(layout["every"])
    shards = made_up.Shards(split, made_up.Colour(), lambda keys: keys[:, 0] % every == 0)
    pending = sorted(layout["pending"] & set(shards.pending))

    def pixels_of(video: int) -> Any:
        return SimpleNamespace(name=video, in_order=video in layout["in_order"], by_row=layout["by_row"])

    return split, shards, OpenShards(split, shards, made_up.Colour()), pending, pixels_of


@given(layout=layouts())
@ORDERLY
def test_every_row_of_any_layout_is_decoded_once_and_its_shard_is_finished(
    made_up: Any, layout: dict[str, Any]
) -> None:
    split, shards, open_shards, pending, pixels_of = laid_out(made_up, layout)
    most = layout["most_persons"]
    seen: list[int] = []
    done: dict[int, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "RUN_ROWS", layout["run_rows"])
        for through in jobs(split, pending, open_shards, pixels_of, most):
            if through:
                check_jobs(through, split, layout)
                assert (
                    shards.opened[-1] == through[0].shards[-1]
                )  # shards are opened no earlier than a video needs them
            for job in through:
                seen += job.rows.tolist()
                open_shards.put(job.rows, np.stack([job.rows] * 3, axis=1).astype(np.float32))
            done |= {shard.number: shard for shard in open_shards.finished()}
            assert len(open_shards) <= 1
    assert sorted(done) == pending
    assert shards.opened == pending  # each once, in order
    assert len(open_shards) == 0
    todo: list[int] = []
    for number, shard in sorted(done.items()):
        live = shards.live(number)
        missing = live & (shard.keys[:, 0] % np.uint64(layout["every"]) != 0)
        rows = np.arange(shard.start, shard.stop)
        todo += rows[missing].tolist()
        assert (shard.data[live] == np.where(missing, rows, -1)[live, None]).all()
        assert shard.ok[live].all()
        assert (shard.counts.computed, shard.counts.carried) == (missing.sum(), (live & ~missing).sum())
    assert sorted(seen) == todo


def check_jobs(through: list[Job], split: Any, layout: dict[str, Any]) -> None:
    """Jobs that go together are of one video, and go through its frames once."""
    most = layout["most_persons"]
    for job in through:
        frame = job.rows if layout["by_row"] else split.frame[job.rows]
        assert job.frame.tolist() == sorted(frame.tolist()) == frame.tolist()
        assert np.unique(job.frame, return_counts=True)[1].max() <= most
        tracks = split.track[job.rows]
        np.testing.assert_array_equal(job.bbox, split.bbox[job.rows])
        np.testing.assert_array_equal(job.scale, split.tracks.crop_scale[tracks])
        assert {job.pixels.name} == set(split.tracks.video[tracks].tolist())
    assert 1 <= len(through[0].shards) <= MOST_SHARDS
    assert not any(job.shards for job in through[1:])
    assert set(np.concatenate([job.rows for job in through]) // layout["size"]) <= set(through[0].shards)
    at = np.concatenate([np.unique(job.frame) for job in through])
    assert (np.diff(at) >= 0).all()
    persons = np.unique(np.concatenate([job.frame for job in through]), return_counts=True)
    for frame, decoded in zip(*np.unique(at, return_counts=True), strict=True):
        n = persons[1][persons[0] == frame][0]
        assert decoded <= -(-n // most) + 1  # the first persons of a crowd may be the last of a job
        assert decoded == 1 or n > most
    if through[0].pixels.in_order and persons[1].max() <= most:
        assert len(through) == 1


def test_a_crowd_is_cropped_in_several_passes_over_its_one_frame(made_up: Any) -> None:
    split = made_up.Split([made_up.Track(0, person * 2, 2) for person in range(300)], 4096)
    open_shards = OpenShards(split, made_up.Shards(split, made_up.Colour()), made_up.Colour())
    pixels = SimpleNamespace(in_order=True, by_row=False)
    (found,) = jobs(split, [0], open_shards, lambda _: pixels, 256)
    assert [np.unique(job.frame, return_counts=True)[1].tolist() for job in found] == [[256], [44, 256], [44]]


def test_a_split_without_tracks_or_with_nothing_pending_has_no_jobs(made_up: Any) -> None:
    of_nobody: Any = None
    for tracks, pending in (([], [0]), ([made_up.Track(0, 0, 5)], [])):
        split = made_up.Split(tracks, 4)
        open_shards = OpenShards(split, made_up.Shards(split, made_up.Colour()), made_up.Colour())
        assert list(jobs(split, pending, open_shards, of_nobody, 256)) == []


# ----------------------------------------------------------------------------------------------------- slabs


def a_job(frames: list[int], number: int = 0) -> Job:
    n = len(frames)
    rows = 1000 * number + np.arange(n)
    boxes = np.array([1, 2, 3, 4], np.float32) + rows[:, None].astype(np.float32)
    pixels: Any = None  # not used
    return Job(number, pixels, rows, np.array(frames, np.int64), boxes, np.ones(n), shards=(0,))


class Flow:
    """Rows on their way through slabs, as an extraction sends them; every step is checked."""

    def __init__(self, persons: list[list[int]], size: int, n_slots: int) -> None:
        self.n_slots = n_slots
        self.batches = Batches(n_slots, size)
        self.todo = [(a_job(np.repeat(np.arange(len(of)), of).tolist(), i), 0) for i, of in enumerate(persons)]
        self.asked: dict[int, dict[int, tuple[int, int]]] = {}  # task -> slot -> (row, frame)
        self.holds: dict[int, int] = {}  # slot -> row, filled
        self.came: list[int] = []
        self.lost: list[int] = []

    @property
    def goes_on(self) -> bool:
        return bool(self.todo or self.asked or self.batches.full)

    def ask(self, which: int) -> bool:
        """Give out the next piece of a job, if there are slots for it."""
        job, start = self.todo[which]
        given_out = self.batches.ask(job, start)
        if given_out is None:
            return False
        task, stop = given_out
        taken = [(person.slot, one.frame) for one in task.targets for person in one.persons]
        slots = {slot for slot, _ in taken}
        assert len(slots) == len(taken) == stop - start
        assert slots.isdisjoint(self.holds.keys() | {slot for held in self.asked.values() for slot in held})
        assert slots <= set(range(self.n_slots))
        assert [frame for _, frame in taken] == job.frame[start:stop].tolist()
        assert stop == len(job.rows) or job.frame[stop] != job.frame[stop - 1]
        boxes = [person.bbox[0] for one in task.targets for person in one.persons]
        assert boxes == job.bbox[start:stop, 0].tolist()
        assert len({one.frame for one in task.targets[:-1]} | {-1}) - 1 < MOST_ROWS
        assert task.first == (start == 0)
        rows = job.rows[start:stop].tolist()
        self.asked[task.number] = {slot: (row, frame) for (slot, frame), row in zip(taken, rows, strict=True)}
        self.todo[which : which + 1] = [(job, stop)] if stop < len(job.rows) else []
        return True

    def fill(self, number: int, bad: set[int]) -> None:
        """A piece comes back, without its bad frames."""
        slots = self.asked.pop(number)
        _, of_frames = self.batches.fill(Done(number, dict.fromkeys(bad, ("kind", "words"))))
        expected = {f: sorted(row for row, frame in slots.values() if frame == f) for f in bad}
        assert {f: sorted(rows.tolist()) for f, rows in of_frames.items()} == expected
        self.lost += [row for rows in of_frames.values() for row in rows.tolist()]
        self.holds |= {slot: -1 if frame in bad else row for slot, (row, frame) in slots.items()}

    def compute(self) -> None:
        """The next full batch, or what there is of one when nothing else can come into it."""
        if not self.asked and not self.batches.full:
            self.batches.close_batch()
        if self.batches.full:
            batch = self.batches.full.popleft()
            for slot, row in enumerate(batch.rows.tolist(), batch.first):
                assert self.holds.pop(slot, -1) == row
                self.came += [row] if row >= 0 else []
            self.batches.free(batch)

    def drain(self) -> None:
        self.batches.close_batch()
        while self.batches.full:
            batch = self.batches.full.popleft()
            self.came += batch.rows[batch.rows >= 0].tolist()
            self.batches.free(batch)


@given(
    persons=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=5),
    size=st.integers(1, 40),
    n_slots=st.integers(100, 300),
    data=st.data(),
)
@ORDERLY
def test_every_row_comes_back_once_and_no_slot_is_two_rows_at_a_time(
    persons: list[list[int]], size: int, n_slots: int, data: st.DataObject
) -> None:
    flow = Flow(persons, size, n_slots)
    while flow.goes_on:
        which = data.draw(st.integers(0, max(0, len(flow.todo) - 1))) if flow.todo else None
        what = data.draw(st.sampled_from(["ask", "fill", "compute"]))
        if what == "ask" and which is not None and flow.ask(which):
            continue
        if what in ("ask", "fill") and flow.asked:
            number = data.draw(st.sampled_from(sorted(flow.asked)))
            frames = sorted({frame for _, frame in flow.asked[number].values()})
            flow.fill(number, data.draw(st.sets(st.sampled_from(frames))) if data.draw(st.booleans()) else set())
            continue
        flow.compute()
    flow.drain()
    everything = [1000 * i + row for i, of in enumerate(persons) for row in range(sum(of))]
    assert sorted(flow.came + flow.lost) == everything
    assert flow.batches.capacity == n_slots // size * size


def test_a_frame_may_lie_in_two_batches_and_a_batch_waits_for_all_its_pieces() -> None:
    batches = Batches(20, 5)
    job, more = a_job([7] * 8), a_job([1, 2], 1)
    (task, stop), (second, _) = batches.ask(job, 0) or (None, 0), batches.ask(more, 0) or (None, 0)
    assert task is not None
    assert second is not None
    assert (stop, [p.slot for p in task.targets[0].persons]) == (8, list(range(8)))
    batches.close_batch()
    batches.fill(Done(task.number))
    assert [batch.first for batch in batches.full] == [0]
    batches.fill(Done(second.number, {2: ("kind", "words")}))
    assert [batch.rows.tolist() for batch in batches.full] == [[0, 1, 2, 3, 4], [5, 6, 7, 1000, -1]]


# ----------------------------------------------------------------------------------------------------- open_shards


def test_a_shard_waits_for_its_videos_pixels_to_be_compared(made_up: Any) -> None:
    split = made_up.Split([made_up.Track(0, 0, 6)], 4)
    open_shards = OpenShards(split, made_up.Shards(split, made_up.Colour()), made_up.Colour())
    for shard in (0, 1):
        open_shards.open(shard)
    open_shards.put(np.array([4, 5]), np.zeros((2, 3), np.float32))
    assert list(open_shards.finished(but={0, 1})) == []
    assert [shard.number for shard in open_shards.finished(but={0})] == [1]


def test_bytes_and_numbers_find_their_rows_and_what_is_given_up_is_counted(made_up: Any) -> None:
    split = made_up.Split([made_up.Track(0, 0, 12)], 8)
    open_shards = OpenShards(split, made_up.Shards(split, made_up.Bytes()), made_up.Bytes())
    first, second = open_shards.open(0), open_shards.open(1)
    assert open_shards.open(0) is first
    open_shards.put(np.array([9, 1, 8]), np.array([b"nine", b"one", b"eight"], object))
    assert (first.data[1], second.data) == (b"one", [b"eight", b"nine", b"", b""])
    for row in (0, *range(2, 8)):
        open_shards.give_up(np.array([row]), "odd" if row % 2 else "even", f"row {row}")
    assert (first.counts.computed, first.counts.problems, open_shards.not_computed) == (1, {"odd": 3, "even": 4}, 7)
    assert first.counts.examples == [f"row {row}" for row in (0, 2, 3, 4, 5)]
    assert len(first.counts.examples) == EXAMPLES
    assert [shard.number for shard in open_shards.finished()] == [0]
    assert (second.counts.computed, second.ok.tolist()) == (2, [1, 1, 0, 0])


def test_a_row_has_another_key_when_its_video_frame_box_or_scale_is_another(made_up: Any) -> None:
    def keys(*tracks: tuple[int, ...], change: Any = None) -> np.ndarray:
        split = made_up.Split([made_up.Track(*track) for track in tracks], 8)
        if change is not None:
            change(split)
        return np.asarray(OpenShards(split, made_up.Shards(split, made_up.Colour()), made_up.Colour()).open(0).keys)

    plain = keys((0, 0, 8))
    assert len(np.unique(plain, axis=0)) == 8
    np.testing.assert_array_equal(keys((0, 0, 8)), plain)
    changes = {
        "pixels": lambda split: setattr(split.videos[0], "pixels", "other"),
        "frame": lambda split: split.frame.__iadd__(8),
        "box": lambda split: split.bbox.__iadd__(np.float32(2**-16)),
        "scale": lambda split: split.tracks.crop_scale.__iadd__(2**-40),
    }
    for change in changes.values():
        assert (keys((0, 0, 8), change=change) != plain).any(axis=1).all()
    assert (keys((0, 2, 6))[:2] == 0).all()  # rows of no track


# ----------------------------------------------------------------------------------------------------- the rest


def test_the_meter_says_what_everything_else_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    meter = Meter(decoders=4, lanes=2, began=now)
    assert (str(meter), meter.busy()) == ("0 crops/s", {})
    now += 10
    meter.add(decode=30, crop=6)
    meter.add(decode=2, network=4, write=5)
    meter.rows = 50
    assert meter.busy() == {"decode": 0.8, "crop": 0.15, "network": 0.2, "write": 0.5}
    assert meter.bottleneck == "decode"
    assert str(meter).startswith("5 crops/s")
    assert "decode 80%, crop 15%, network 20%, write 50%" in str(meter)
    meter.add(network=16, copy=30)
    assert (meter.bottleneck, meter.busy()["copy"]) == ("network", 1.0)
    meter.stop()
    now += 1000
    assert (meter.elapsed, meter.as_dict()["seconds"], meter.as_dict()["rows_a_second"]) == (10, 10, 5)
    assert all(math.isfinite(share) for share in meter.busy().values())
