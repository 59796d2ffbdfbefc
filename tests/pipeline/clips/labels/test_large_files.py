"""What is read and held grows with a file, and not faster than the people in it."""

import csv
import io
import json
import tracemalloc

import numpy as np
import pytest

from pipeline.clips.labels.detections import read_detections
from pipeline.errors import RawDataError
from pipeline.files.formats import large_json
from tests.pipeline.clips.labels.made_detections import COCO_NAMES, SIZE, body


def points(t):
    return np.round(body(t % 40), 2)


def as_csv(n):
    stream = io.StringIO()
    rows = [(f"p{t % 3}", t // 3, 100.25, 80.5, 60.75, 150.5) for t in range(n)]
    csv.writer(stream).writerows([("track", "frame", "x", "y", "w", "h"), *rows])
    return {"x.csv": stream.getvalue()}


def as_yolo(n):
    """Twelve people in a frame, so that the list of files takes little."""
    line = "0 0.512345 0.423456 0.091234 0.312345 0.912345"
    texts: dict[str, list[str]] = {}
    for t in range(n):
        texts.setdefault(f"x_{t // 12 + 1}.txt", []).append(f"{line} {t % 12 + 1}")
    return {name: "\n".join(lines) for name, lines in texts.items()}


def as_trc(n):
    header = "PathFileType\t4\nDataRate\n30\t30\nFrame#\tTime\t" + "\t\t\t".join(COCO_NAMES)
    lines = (
        "\t".join([f"{t}", f"{t / 30:.4f}", *(f"{x}\t{y}\t0.0" for x, y, _ in points(t))])
        for t in range(n)
    )
    return {"x.trc": "\n".join([header, "", *lines])}


def as_mot(n):
    rows = [f"{t // 3 + 1},{t % 3},100.25,80.5,60.75,150.5,0.9,-1,-1,-1" for t in range(n)]
    return {"x.txt": "\n".join(rows)}


def as_coco(n):
    people = [
        {"id": t, "image_id": t // 3, "keypoints": points(t).ravel().tolist(), "track_id": t % 3}
        for t in range(n)
    ]
    images = [{"id": t, "file_name": f"clip_{t:09d}.jpg"} for t in range(-(-n // 3))]
    names = [{"id": 1, "name": "person", "keypoints": COCO_NAMES}]
    return {"x.json": json.dumps({"annotations": people, "images": images, "categories": names})}


def as_results(n):
    people = [
        {
            "image_id": t // 3,
            "category_id": 1,
            "keypoints": points(t).ravel().tolist(),
            "idx": t % 3,
        }
        for t in range(n)
    ]
    return {"x.json": json.dumps(people)}


def as_mmpose(n):
    frames = [
        {
            "frame_id": t,
            "instances": [{"keypoints": points(t)[:, :2].tolist(), "keypoint_scores": [0.9] * 17}],
        }
        for t in range(n)
    ]
    return {"x.json": json.dumps(frames)}


def traced(call):
    """What a call returns, and the largest number of bytes that it held."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def read(tmp_path):
    def of_texts(texts):
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
        place = tmp_path if len(texts) > 1 else tmp_path / next(iter(texts))
        return read_detections(place, "x", lambda: [SIZE])

    return of_texts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "n", "times"),
    [
        (as_csv, 40_000, 12),  # a person is a short line
        (as_mot, 30_000, 10),
        (as_yolo, 30_000, 10),
        (as_trc, 8_000, 3),
        (as_coco, 8_000, 3),
        (as_results, 8_000, 3),
        (as_mmpose, 8_000, 3),
    ],
)
def test_memory_grows_by_at_most_so_many_times_the_file(read, made, n, times, monkeypatch):
    """Beyond blocks, which all files need: so much more for a file of twice as many people."""
    monkeypatch.setattr(large_json, "LARGE", 0)
    peaks = []
    sizes = []
    for count in (n, 2 * n):
        texts = made(count)
        results = [traced(lambda texts=texts: read(texts)) for _ in range(2)]
        assert {found.n_persons for found, _ in results} == {count}
        peaks.append(min(peak for _, peak in results))  # threads of other tests may add to one
        sizes.append(sum(map(len, texts.values())))
    assert peaks[1] - peaks[0] <= times * (sizes[1] - sizes[0])


def test_people_without_a_size_are_counted_and_not_held(read):
    def refuse(texts):
        with pytest.raises(RawDataError, match=r"line 2'.*width and a height above 0"):
            read(texts)

    header = "track,frame,x,y,w,h\n"
    texts = [
        {"x.csv": header + "".join(f"a,{t},1,1,0,9\n" for t in range(n))} for n in (100, 4000, 8000)
    ]
    _, *peaks = [traced(lambda files=files: refuse(files))[1] for files in texts]
    assert peaks[1] - peaks[0] < 200_000  # 50 bytes a line


@pytest.mark.parametrize("made", [as_coco, as_results, as_mmpose])
def test_a_large_file_of_json_has_the_people_of_a_small_one(read, made, monkeypatch):
    small = read(made(300))
    monkeypatch.setattr(large_json, "LARGE", 0)
    large = read(made(300))
    np.testing.assert_array_equal(np.concatenate(large.keypoints), np.concatenate(small.keypoints))
    np.testing.assert_array_equal(large.frame_index, small.frame_index)
    np.testing.assert_array_equal(large.frames, small.frames)
    assert (large.names, large.notes) == (small.names, small.notes)
    assert repr(large.identity) == repr(small.identity)


@pytest.mark.parametrize("key", ["keypoints", "bbox", "image_id"])
def test_lists_that_are_nested_too_deeply_are_refused(read, key, monkeypatch):
    monkeypatch.setattr(large_json, "LARGE", 0)
    deep = "[" * 4000 + "]" * 4000
    entry = f'{{"image_id": 1, "{key}": {deep}}}'
    for text in (deep, f"[{entry}]", f'{{"images": [], "annotations": [{entry}]}}'):
        with pytest.raises(RawDataError):
            read({"x.json": text})


def test_a_second_line_of_a_track_in_a_frame_is_named_wherever_it_is(read, monkeypatch):
    """Also blocks after the first line, and in a file that is not in the order of frames."""
    lines = as_csv(9000)["x.csv"].splitlines()
    with pytest.raises(Exception, match=r"line 9002.*'p1' a second time in frame 2\b"):
        read({"x.csv": "\n".join([lines[0], *lines[:0:-1], lines[8]])})
