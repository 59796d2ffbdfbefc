"""Calls of functions and bytes, which grow with the work, and not faster."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest

from pipeline.clips.labels import people_table
from pipeline.clips.tracks.linking import link
from pipeline.datasets.videos import OwnVideos
from pipeline.files.formats import large_json
from pipeline.processes import pulse
from pipeline.steps.conversion.reading import VideoReader
from tests.pipeline.clips.labels.made_detections import body
from tests.pipeline.growth import FRAMES, RNG, cost, crowd, require_linear
from tests.pipeline.made_grades import RECORD, T, flat, grades_of_people, person

SMALL = (64, 48)  # px


@pytest.mark.parametrize("shift", [0, 250])
def test_people_of_a_crowd_are_linked_to_themselves(shift):
    """Also if the camera moves by nearly the way to a neighbour."""
    frames = crowd(120)
    moved = np.array([shift, 0, 0])
    joints = [keypoints + (t > 2) * moved for t, (keypoints, _) in enumerate(frames)]
    people = [{int(frames[t][1][p]) for t, p in track} for track in link(joints, range(FRAMES))]
    assert len(people) == 120
    assert all(len(person) == 1 for person in people)


@pytest.mark.slow
def test_cost_of_linking_grows_with_the_people_who_are_apart():
    small, large = ([joints for joints, _ in crowd(n)] for n in (200, 800))
    require_linear(lambda: link(small, range(FRAMES)), lambda: link(large, range(FRAMES)), 4)


@pytest.mark.slow
def test_cost_of_grades_grows_with_the_tracks_of_a_clip():
    """Tracks one after the other in a clip of uneven times, which is as long as they are."""

    def work(n):
        people = [flat(person()) | {"frame_index": np.arange(k * T, k * T + T)} for k in range(n)]
        clip = replace(RECORD, times=np.cumsum(RNG.uniform(0.01, 0.05, n * T))).as_dict()
        return lambda: grades_of_people(people, clip)

    require_linear(work(10), work(40), 4)


def long_clip(raw, n):
    """A clip of n frames, and the keypoints of a person in each, as `detect` writes them."""
    (raw / "keypoints").mkdir(parents=True)
    with av.open(str(raw / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height = SMALL
        for _ in range(n):
            container.mux(stream.encode(av.VideoFrame(*SMALL, "yuv420p")))
        container.mux(stream.encode())
    joints = np.stack([body(0)] * n)
    noise = np.random.default_rng(0).normal(0, 0.02, (n, 17, 2))
    joints[..., :2] += noise - [170, 215]
    people = [
        {"image_id": t, "category_id": 1, "keypoints": row, "bbox": [10, 0, 40, 48]}
        for t, row in enumerate(joints.reshape(n, -1).round(2).tolist())
    ]
    images = [{"id": t, "frame_index": t} for t in range(n)]
    # with cuts, as decoding to find them takes more than all else
    info = json.dumps({"description": "python -m pipeline detect", "cuts": []})
    text = (
        f'{{"info": {info},\n"images": {json.dumps(images)}, "annotations": {json.dumps(people)}}}'
    )
    (raw / "keypoints/a.mp4.json").write_text(text)
    return raw


@pytest.mark.slow
def test_memory_grows_by_at_most_4_mib_a_minute_and_person_of_a_clip(tmp_path, monkeypatch):
    """At 30 frames a second, beyond what blocks take. A process takes a little more: what it has
    freed is in pieces.
    """
    monkeypatch.setattr(people_table, "BLOCK", 128)
    monkeypatch.setattr(large_json, "LARGE", 0)
    peaks = []
    for n in (1500, 3000):
        raw = long_clip(tmp_path / str(n), n)
        (video,) = OwnVideos().videos(raw, "train")
        reader = VideoReader(OwnVideos(), "train", raw, None)
        assert reader.read(video).account.kept > 0.99 * n
        peaks.append(cost(lambda reader=reader, video=video: reader.read(video))[1])
    assert (peaks[1] - peaks[0]) / 1500 <= (4 << 20) / 1800


def test_linking_tells_which_frame_it_is_at():
    link([joints for joints, _ in crowd(3)], range(FRAMES))
    assert pulse.done == f"{FRAMES - 1} of {FRAMES} frames linked"
