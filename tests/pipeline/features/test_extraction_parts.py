"""Parts of an extraction by themselves: what is decoded when, and where the time goes."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features.engine import tasks
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.shards import OpenShards
from pipeline.features.engine.tasks import MOST_SHARDS, Job, jobs
from pipeline.features.pixel_sources import Cut


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
        for i, person in job.persons[1].items():
            row, previous = job.rows[i], person.previous
            assert row - 1 in job.rows[: i + 1]  # the row one step before is decoded, too, and kept until then
            assert previous == (row - 1 if layout["by_row"] else split.frame[row] - 1)
            assert (job.keep_from[: i + 1] <= previous).all()
        boxes = zip(split.bbox[job.rows].tolist(), split.tracks.crop_scale[tracks].tolist(), strict=True)
        cuts = [Cut(tuple(box), scale) for box, scale in boxes]
        for output, persons in enumerate(job.persons):
            expected = {i: (output, cuts[i]) for i in np.flatnonzero(job.todo[output]).tolist()}
            assert {i: (person.output, person.cut) for i, person in persons.items()} == expected
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
