"""Parts of an extraction by themselves: what is decoded when, where crops go, and when shards are whole."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import CropPolicy, Jitter
from pipeline.features.engine import tasks
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.shards import EXAMPLES, OpenShards
from pipeline.features.engine.tasks import MOST_SHARDS, NONE, Batches, Job, Tasks, jobs
from pipeline.features.engine.worker import Done
from pipeline.features.pixel_sources import Cut

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
        "pending": [draw(st.sets(st.integers(0, row // size), max_size=40)) for _ in range(2)],
        "every": draw(st.sampled_from([1, 2, 3, 10**9])),  # of so many keys, the streams have one
        "in_order": draw(st.sets(st.integers(0, 5))),
        "by_row": draw(st.booleans()),
        "most_persons": draw(st.integers(1, 4)),
        "run_rows": draw(st.integers(1, 50)),
    }


@given(layout=layouts())
def test_every_row_of_any_layout_is_decoded_once_for_each_stream_and_its_shard_is_finished(
    made_up: Any, layout: dict[str, Any]
) -> None:
    split = made_up.Split([made_up.Track(*track) for track in layout["tracks"]], layout["size"])
    every, most = np.uint64(layout["every"]), layout["most_persons"]
    streams = [made_up.Colour(), made_up.Steps()]
    shards = [made_up.Shards(split, stream, lambda keys: keys[:, 0] % every == 0) for stream in streams]
    pending = [sorted(of & set(shards[0].pending)) for of in layout["pending"]]
    outputs = [OpenShards(split, *of) for of in zip(shards, streams, pending, strict=True)]

    def pixels_of(video: int) -> Any:
        return SimpleNamespace(name=video, in_order=video in layout["in_order"], by_row=layout["by_row"])

    seen: list[list[int]] = [[], []]
    done: list[dict[int, Any]] = [{}, {}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "RUN_ROWS", layout["run_rows"])
        for through in jobs(split, outputs, pixels_of, most):
            if through:
                check_jobs(through, split, layout)
                for output, shard in through[0].shards:  # shards are opened no earlier than a video needs them
                    assert shards[output].opened[-1] <= max(s for o, s in through[0].shards if o == output), shard
            for job in through:
                for output, todo in enumerate(job.todo):
                    rows = job.rows[todo]
                    seen[output] += rows.tolist()
                    computed = np.stack([rows] * streams[output].dim, axis=1).astype(np.float32)
                    outputs[output].put(rows, computed)
            for of, open_shards in zip(done, outputs, strict=True):
                of |= {shard.number: shard for shard in open_shards.finished()}
                assert len(open_shards) <= 1
    for output in (0, 1):
        assert sorted(done[output]) == pending[output]
        assert shards[output].opened == pending[output]  # each once, in order
        expected: list[int] = []
        for number, shard in sorted(done[output].items()):
            live = shards[output].live(number)
            missing = live & (shard.keys[:, 0] % every != 0)
            rows = np.arange(shard.start, shard.stop)
            first = missing & np.isin(rows, split.tracks.start) & (output == 1)  # with nothing to be compared
            expected += rows[missing & ~first].tolist()
            values = np.where(missing, np.where(first, 0, rows), -1)
            assert (shard.data[live] == values[live, None]).all()
            assert (shard.ok[live] == np.where(first, 2, 1)[live]).all()
            assert (shard.counts.computed, shard.counts.carried) == (missing.sum(), (live & ~missing).sum())
        assert sorted(seen[output]) == expected


def check_jobs(through: list[Job], split: Any, layout: dict[str, Any]) -> None:
    """Jobs that go together are of one video, and go through its frames once."""
    most = layout["most_persons"]
    for job in through:
        frame = job.rows if layout["by_row"] else split.frame[job.rows]
        assert job.frame.tolist() == sorted(frame.tolist()) == frame.tolist()
        wanted = job.todo.any(axis=0)
        assert np.unique(job.frame[wanted], return_counts=True)[1].max() <= most
        tracks = split.track[job.rows]
        assert (split.tracks.video[tracks] == job.pixels.name).all()
        for i, (row, previous) in enumerate(zip(job.rows.tolist(), job.previous.tolist(), strict=True)):
            if not job.todo[1, i]:
                assert previous == -1
                continue
            assert row - 1 in job.rows[: i + 1]  # the row one step before is decoded, too, and kept until then
            assert previous == (row - 1 if layout["by_row"] else split.frame[row] - 1)
            assert (job.keep_from[: i + 1] <= previous).all()
        for output, cuts in enumerate(job.cuts):
            boxes = [cut and (cut.bbox, cut.scale) for cut in cuts]
            expected = zip(split.bbox[job.rows].tolist(), split.tracks.crop_scale[tracks].tolist(), strict=True)
            assert boxes == [
                (tuple(box), scale) if todo else None
                for (box, scale), todo in zip(expected, job.todo[output], strict=True)
            ]
    assert 1 <= len({shard for _, shard in through[0].shards}) <= MOST_SHARDS
    assert not any(job.shards for job in through[1:])
    rows = np.concatenate([job.rows[job.todo.any(axis=0)] for job in through])
    assert set(rows // layout["size"]) <= {shard for _, shard in through[0].shards}
    wanted = [job.frame[job.todo.any(axis=0)] for job in through]
    at = np.concatenate([np.unique(frames) for frames in wanted])
    assert (np.diff(at) >= 0).all()
    persons = np.unique(np.concatenate(wanted), return_counts=True)
    for frame, decoded in zip(*np.unique(at, return_counts=True), strict=True):
        n = persons[1][persons[0] == frame][0]
        assert decoded <= -(-n // most) + 1  # the first persons of a crowd may be the last of a job
        assert decoded == 1 or n > most
    if through[0].pixels.in_order and persons[1].max() <= most:
        assert len(through) == 1


def test_a_crowd_is_cropped_in_several_passes_over_its_one_frame(made_up: Any) -> None:
    split = made_up.Split([made_up.Track(0, person * 2, 2) for person in range(300)], 4096)
    open_shards = OpenShards(split, made_up.Shards(split, made_up.Colour()), made_up.Colour(), [0])
    pixels = SimpleNamespace(in_order=True, by_row=False)
    (found,) = jobs(split, [open_shards], lambda _: pixels, 256)
    assert [np.unique(job.frame, return_counts=True)[1].tolist() for job in found] == [[256], [44, 256], [44]]


def test_a_split_without_tracks_or_with_nothing_pending_has_no_jobs(made_up: Any) -> None:
    of_nobody: Any = None
    for tracks, pending in (([], [0]), ([made_up.Track(0, 0, 5)], [])):
        split = made_up.Split(tracks, 4)
        open_shards = OpenShards(split, made_up.Shards(split, made_up.Colour()), made_up.Colour(), pending)
        assert list(jobs(split, [open_shards], of_nobody, 256)) == []


# ----------------------------------------------------------------------------------------------------- slabs


def a_job(frames: list[int], number: int = 0) -> Job:
    n = len(frames)
    rows = 1000 * number + np.arange(n)
    cuts = tuple(Cut((1.0 + row, 2.0, 3.0, 4.0), 1.0) for row in rows.tolist())
    pixels: Any = None  # not used
    none, no_row = np.full(n, -1), np.full(n + 1, NONE)
    todo = np.ones((1, n), bool)
    labels = ((None,) * n,)
    return Job(number, pixels, rows, np.array(frames), todo, (cuts,), labels, none, (None,) * n, ((0, 0),), no_row)


def test_a_frame_may_lie_in_two_batches_and_a_batch_waits_for_all_its_pieces() -> None:
    batches = Batches(20, 5)
    given_out = Tasks([batches])
    job, more = a_job([7] * 8), a_job([1, 2], 1)
    (task, stop), (second, _) = given_out.ask(job, 0) or (None, 0), given_out.ask(more, 0) or (None, 0)
    assert task is not None
    assert second is not None
    assert (stop, [p.slot for p in task.targets[0].persons]) == (8, list(range(8)))
    batches.close_batch()
    given_out.fill(Done(task.number))
    assert [batch.first for batch in batches.full] == [0]
    given_out.fill(Done(second.number, {(0, 9): ("kind", "words")}))
    assert [batch.rows.tolist() for batch in batches.full] == [[0, 1, 2, 3, 4], [5, 6, 7, 1000, -1]]


# ----------------------------------------------------------------------------------------------------- open_shards


def test_a_shard_waits_for_its_videos_pixels_to_be_compared(made_up: Any) -> None:
    split = made_up.Split([made_up.Track(0, 0, 6)], 4)
    open_shards = OpenShards(split, made_up.Shards(split, made_up.Colour()), made_up.Colour(), [0, 1])
    for shard in (0, 1):
        open_shards.open(shard)
    open_shards.put(np.array([4, 5]), np.zeros((2, 3), np.float32))
    assert list(open_shards.finished(but={0, 1})) == []
    assert [shard.number for shard in open_shards.finished(but={0})] == [1]


def test_bytes_and_numbers_find_their_rows_and_what_is_given_up_is_counted(made_up: Any) -> None:
    split = made_up.Split([made_up.Track(0, 0, 12)], 8)
    open_shards = OpenShards(split, made_up.Shards(split, made_up.Bytes()), made_up.Bytes(), [0, 1])
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


def test_a_row_has_another_key_when_what_it_depends_on_is_another(made_up: Any) -> None:
    def keys(stream: Any, *tracks: tuple[int, ...], change: Any = None) -> np.ndarray:
        split = made_up.Split([made_up.Track(*track) for track in tracks], 8)
        if change is not None:
            change(split)
        return np.asarray(OpenShards(split, made_up.Shards(split, stream), stream, [0]).open(0).keys)

    everything = {  # what changes -> it does
        "pixels": lambda split: setattr(split.videos[0], "pixels", "other"),
        "frame": lambda split: split.frame.__iadd__(8),
        "box": lambda split: split.bbox.__iadd__(np.float32(2**-16)),
        "scale": lambda split: split.tracks.crop_scale.__iadd__(2**-40),
    }
    jittered = made_up.Colour(crop=CropPolicy(jitter=Jitter(copy=1)))
    for stream in (made_up.Colour(), made_up.Steps(), jittered):
        plain = keys(stream, (0, 0, 8))
        assert len(np.unique(plain, axis=0)) == 8
        np.testing.assert_array_equal(keys(stream, (0, 0, 8)), plain)
        for change in everything.values():
            assert (keys(stream, (0, 0, 8), change=change) != plain).any(axis=1).all()
        assert (keys(stream, (0, 2, 6))[:2] == 0).all()  # rows of no track
    # Of pairs, another previous row, or none, is another pair; a frame alone does not know.
    halves = ((0, 0, 4), (0, 4, 4, 4))
    for stream, changed in ((made_up.Colour(), []), (made_up.Steps(), [4])):
        same = [
            keys(stream, *tracks, change=lambda split: split.tracks.crop_scale.fill(1))
            for tracks in (halves, ((0, 0, 8),))
        ]
        assert np.flatnonzero((same[0] != same[1]).any(axis=1)).tolist() == changed
    # Another copy, or track of another name, is another crop.
    other = made_up.Colour(crop=CropPolicy(jitter=Jitter(copy=2)))
    assert (keys(other, (0, 0, 8)) != keys(jittered, (0, 0, 8))).any(axis=1).all()


# ----------------------------------------------------------------------------------------------------- the rest


def test_the_meter_says_what_everything_else_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    meter = Meter(decoders=4, lanes=2, began=now)
    assert (str(meter), meter.busy()) == ("0 rows/s", {})
    now += 10
    meter.add(decode=30, crop=6)
    meter.add(decode=2, model=4, write=5)
    meter.rows = 50
    assert meter.busy() == {"decode": 0.8, "crop": 0.15, "model": 0.2, "write": 0.5}
    assert meter.bottleneck == "decode"
    assert str(meter).startswith("5 rows/s, ")
    meter.device = "cpu"
    assert str(meter).startswith("5 rows/s on cpu, ")
    assert "decode 80%, crop 15%, model 20%, write 50%" in str(meter)
    meter.add(model=16, copy=30)
    assert (meter.bottleneck, meter.busy()["copy"]) == ("model", 1.0)
    meter.stop()
    now += 1000
    assert (meter.elapsed, meter.as_dict()["seconds"], meter.as_dict()["rows_a_second"]) == (10, 10, 5)
    assert all(math.isfinite(share) for share in meter.busy().values())
