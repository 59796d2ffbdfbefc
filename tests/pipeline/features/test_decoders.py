"""Decoding in processes that crash, hang, stop and are killed: a frame at most is lost, and no
process is left over.
"""

import itertools
import os
import re
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import cache
from pipeline.errors import PipelineError
from pipeline.features.engine import shards, tasks
from pipeline.features.pixels import Pixels
from pipeline.features.spec import StreamSpec
from pipeline.processes.settings import Resources
from pipeline.steps.extraction import extract as features
from pipeline.steps.extraction.plan import plan_extraction
from tests.raising import pipeline_refuses
from tests.waiting import with_growing_limit

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_process_is_left(made_up, on_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(on_path), str(ROOT)]))
    yield
    assert made_up.decoders_of(os.getpid()) == []


class Extract:
    """Extractions of made-up videos, each of one track from frame 0 on, cut into shards of 16
    rows.
    """

    def __init__(self, made_up, folder, patch):
        self.made_up, self._folder, self._patch, self._roots = (
            made_up,
            folder,
            patch,
            itertools.count(),
        )

    def source(self, name="0", **given):
        return self.made_up.Source(self._folder, name, **given)

    def __call__(self, *sources, n_frames=40, stream=None, also=(), digest="", **resources):
        """(video -> frame -> what the stream has of it, the meter, problems). Of all streams:
        `self.found`.
        """
        root, name = self._folder / f"cache{next(self._roots)}", self.made_up.SPLIT
        self.made_up.convert(root, len(sources), n_frames)

        def of_video(video):
            return Pixels(sources[video], f"video {video}", digest or sources[video].name)

        self._patch.setattr(features, "pixels", lambda *_, **__: of_video)
        self._patch.setattr(features, "raw_folder", lambda *_: None)
        streams, reported = [stream or self.made_up.Colour(), *also], []
        done = features.extract_together(
            [plan_extraction(root, name, StreamSpec(one.kind, one)) for one in streams],
            Resources(**{"batch_size": 4, "workers": 2, "timeout": 60} | resources),
            progress=lambda rows, *_: reported.append(rows),
        )
        assert reported == sorted(reported)
        n_rows = len(sources) * n_frames
        assert reported[-1] == n_rows * len(streams)
        split = cache.open(root)[name]
        self.found = []
        for one in streams:
            values, ok = (
                split.rows(f"features/{one.kind}{flag}", 0, n_rows) for flag in ("", "_ok")
            )
            found = {video: {} for video in range(len(sources))}
            for row in np.flatnonzero(ok).tolist():
                found[row // n_frames][row % n_frames] = tuple(values[row])
            self.found.append(found)
        self.lost = done[0].lost
        self.examples = [example for one in done for example in one.examples]
        problems = sum((Counter(one.problems) for one in done), Counter())
        return self.found[0], done[0].meter, dict(problems)

    def whole(self, n_videos, n_frames=40):
        """What an undisturbed extraction finds."""
        return {i: {f: self.made_up.colour_of(f) for f in range(n_frames)} for i in range(n_videos)}

    def steps(self, n_videos):
        """The same of the stream of pairs."""
        colour = self.made_up.colour_of
        steps = {f: (0,) * 6 if f in (0, 25) else (*colour(f - 1), *colour(f)) for f in range(40)}
        return {i: dict(steps) for i in range(n_videos)}


@pytest.fixture
def extract(made_up, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "EXAMPLES", 100)
    return Extract(made_up, tmp_path, monkeypatch)


def test_every_row_has_its_own_frame_whatever_the_workers_batches_and_lanes(
    extract, tmp_path, monkeypatch
):
    monkeypatch.setattr(tasks, "RUN_ROWS", 10)  # so that several processes share a video
    sources = [extract.source("0"), extract.source("1", random_access=False), extract.source("2")]
    for workers, batch_size, threads in ((1, 7, 1), (2, 1, 2), (5, 32, 1)):
        network = extract.made_up.Mean(batch_size, threads)
        monkeypatch.setattr(extract.made_up.Colour, "load", lambda *_, network=network: network)
        found, meter, problems = extract(*sources, workers=workers)
        assert (found, problems) == (extract.whole(3), {})
        assert (meter.frames, meter.rows, meter.decoders) == (120, 120, workers)
    # by each process that decodes a video; a video in order also after its last frame
    compared = Counter((tmp_path / "digests").read_text().split())
    assert compared["1"] == 2 * 3
    assert {compared["0"], compared["2"]} <= {*range(3, 1 + 2 + 4 + 1)}


def test_a_process_closes_a_video_before_it_opens_the_next_one(extract, made_up, tmp_path):
    sources = [made_up.LoggedSource(tmp_path, name) for name in "abcd"]
    extract(*sources, workers=1)
    lines = made_up.logged(tmp_path)
    opened = [line.removeprefix("opened ") for line in lines[::2]]
    closed = [line.removeprefix("closed ") for line in lines[1::2]]
    assert sorted(opened) == [*"abcd"]
    assert closed[:3] == opened[:3]  # the process may end with the last one open


def test_a_process_that_is_stopped_or_crashes_once_is_replaced_and_costs_no_frame(extract):
    def judge(limit):
        sources = [
            extract.source(f"0 {limit}", deeds=((20, "stop once"),)),
            extract.source(
                f"1 {limit}", random_access=False, deeds=((20, "stop once"), (30, "crash once"))
            ),
            extract.source(f"2 {limit}", deeds=((0, "crash once"), (39, "hang once"))),
            extract.source(
                f"3 {limit}", random_access=False, deeds=((-2, "hang once"), (5, "crash once"))
            ),
        ]
        found, _, problems = extract(*sources, timeout=limit, also=[extract.made_up.Steps()])
        assert (found, problems) == (extract.whole(4), {})
        assert extract.found[1] == extract.steps(4)

    with_growing_limit(judge, 1.0)


@pytest.mark.slow
def test_a_frame_at_which_two_processes_end_is_given_up_and_of_videos_all_after_it(extract):
    sources = [
        extract.source("0", deeds=((5, "hang"),)),
        extract.source("1", random_access=False, deeds=((5, "hang"),)),
        extract.source("2", deeds=((0, "crash"), (17, "grow"), (39, "kill"))),
        extract.source("3", random_access=False, deeds=((18, "crash"),)),
        extract.source("4", random_access=False, deeds=((-2, "crash"),)),  # when it is opened
        extract.source("5", random_access=False),
    ]
    whole = extract.whole(6)
    for video, lost in {
        0: [5],
        1: range(5, 40),
        2: [0, 17, 39],
        3: range(18, 40),
        4: range(40),
    }.items():
        for frame in lost:
            del whole[video][frame]

    def judge(limit):
        found, meter, problems = extract(*sources, timeout=limit)
        assert found == whole
        ended = {"decoder_hung": 2, "decoder_crashed": 3, "decoder_memory": 2}
        assert problems == {**ended, "after_decoder_failure": 34 + 21 + 39}
        assert meter.rows == 240 - 101
        messages = "\n".join(extract.examples)
        told = "2 processes that decoded it ended, the last one made no progress for"
        assert f"video 0, frame 5: {told} {limit:g} s" in messages
        assert (
            "video 3, frame 18: 2 processes that decoded it ended, the last one ended with exit "
            "code 3" in messages
        )

    with_growing_limit(judge, 2.0)


@pytest.mark.parametrize("deed", ["crash", pytest.param("hang", marks=pytest.mark.slow)])
def test_pixels_that_cannot_be_compared_end_the_extraction(extract, monkeypatch, deed):
    sources = [
        extract.source("0", deeds=((-1, deed),)),
        *(extract.source(str(i), takes=0.1) for i in range(1, 3)),
    ]

    def judge(limit):
        monkeypatch.setattr("pipeline.processes.pool.START", limit)
        last = {"crash": "ended with exit code 3", "hang": f"made no progress for {limit:g} s"}[
            deed
        ]
        with pytest.raises(PipelineError) as raised:
            extract(*sources, timeout=limit)
        assert re.search(
            f"2 decoding processes, .* {last} while they compared .* video 0", str(raised.value)
        )

    with_growing_limit(judge, 3.0)


@pytest.mark.parametrize(
    ("stream", "fails", "message"),
    [
        ("Single", "raises", "ZeroDivisionError: no such colour"),
        ("Single", "ends", "EOFError: of something of its own"),
        ("Single", "short", r"expected 3 numbers of frame .*, found the shape \(2,\)"),
        ("Steps", "raises", "ZeroDivisionError: no such pair"),
        ("Steps", "short", "expected 6 numbers"),
    ],
)
def test_a_stream_that_fails_ends_the_extraction(extract, stream, fails, message):
    failing = getattr(extract.made_up, stream)(fails=fails)
    with pipeline_refuses(rf"stream '{failing.kind}' .*{message}") as raised:
        extract(extract.source(), stream=failing, workers=1)
    assert "made_up.py" in "".join(traceback.format_exception(raised.value)) or fails == "short"


def test_a_network_of_another_shape_is_refused(extract, monkeypatch):
    monkeypatch.setattr(
        extract.made_up.Mean, "__call__", lambda self, crops: np.zeros((len(crops), 1), np.float32)
    )
    with pipeline_refuses(r"'colour' does not compute .* expected \(4, 3\) .*, found \(4, 1\)"):
        extract(extract.source())


def test_every_process_compares_the_pixels_of_a_video_before_it_computes_a_row(
    extract, monkeypatch
):
    monkeypatch.setattr(tasks, "RUN_ROWS", 8)
    slow = extract.source(deeds=((-1, "slow once"),))
    found, meter, problems = extract(slow, n_frames=100, digest="another")
    assert (found, problems, meter.rows) == ({0: {}}, {}, 0)
    assert "has other images than those" in extract.lost["0"]


ALONE = """
import sys
from pathlib import Path
import made_up
from pipeline.steps.extraction import extract
from pipeline.features.pixels import Pixels
from pipeline.steps.extraction.plan import plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.processes.settings import Resources

def main(folder, n_rows):
    made_up.convert(folder / "cache", n_rows // 50, 50, 64)
    source = Pixels(made_up.Source(folder), "", "")
    extract.pixels = lambda *_, **__: lambda video: source
    extract.raw_folder = lambda *_: None
    plan = plan_extraction(folder / "cache", made_up.SPLIT, StreamSpec("colour", made_up.Colour()))
    done = extract.extract_together([plan], Resources(batch_size=16, workers=2))[0]
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(done.computed, peak.split()[1])

main(Path(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.mark.promise("flat memory")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    peaks = []
    for n_rows in (1000, 5000):
        folder = tmp_path / str(n_rows)
        folder.mkdir()
        words = [sys.executable, "-c", ALONE, str(folder), str(n_rows)]
        rows, peak = subprocess.run(
            words, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT
        ).stdout.split()
        assert int(rows) == n_rows
        peaks.append(int(peak))
    assert abs(peaks[1] - peaks[0]) < 6 << 10, peaks  # kB; 4,000 crops are a hundred times that
