"""Tables of people that other tools write: the user states which columns are read."""

import csv
import io
import json
import math
from itertools import cycle

import numpy as np
import pytest

from pipeline import datasets
from pipeline.clips.labels.detections import read_detections
from pipeline.errors import RawDataError
from pipeline.files.formats import large_json
from tests.pipeline.clips.labels.made_detections import SIZE, N, box, coco_object, xywh
from tests.raising import config_refuses, raw_refuses

EVERY = range(N)
SUPERVISION = (
    "track:tracker_id frame:frame_index x:x_min y:y_min x2:x_max y2:y_max score:confidence "
    "class:class_name"
)


def supervision(t):
    """As its CSVSink and JSONSink write a detection, of a person and of a ball."""
    names = ("x_min", "y_min", "x_max", "y_max")
    end = {"confidence": 0.75, "tracker_id": 4, "class_name": "person", "frame_index": t}
    person = dict(zip(names, map(float, box(t)), strict=True)) | {"class_id": 0} | end
    return [person, person | {"class_id": 32, "class_name": "sports ball", "tracker_id": -1}]


def in_per_cent(t):
    return [100 * n / side for n, side in zip(xywh(t), SIZE * 2, strict=True)]


def as_csv(rows):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def rows(names, row):
    return [dict(zip(names, row(t), strict=True)) for t in EVERY]


SINK = [row for t in EVERY for row in supervision(t)]
NONE = (math.nan, math.nan, "NaN", None)  # rows of people are the even ones
LEFT = ("left edge", "top of it", "w:h", "height%")
FORMS = {  # rows, the map, the identity
    "supervision": (SINK, SUPERVISION, "4"),
    "supervision without a tracker": (
        [row | {"tracker_id": ""} for row in SINK],
        SUPERVISION,
        None,
    ),
    "supervision, whose table went through pandas or MATLAB": (
        [row | {"tracker_id": none} for row, none in zip(SINK, cycle(NONE), strict=False)],
        SUPERVISION,
        None,
    ),
    "a person who is called Nan": (
        rows(("id", "no", *"xywh"), lambda t: ("Nan", t, *xywh(t))),
        "track:id frame:no",
        "Nan",
    ),
    "frames from 1, as pandas writes them": (
        rows(("id", "no", *"xywh"), lambda t: ("7.0", f"{t + 1}.0", *xywh(t))),
        "track:id frame:no-1",
        "7",
    ),
    "frames from 0 in a column that ends in -1": (
        rows(("no-1", "no", *"xywh"), lambda t: (t, 90, *xywh(t))),
        "frame:no-1",
        None,
    ),
    "per cent": (
        rows(("track", "frame", *"xywh"), lambda t: ("ann", t, *in_per_cent(t))),
        "x:x% y:y% w:w% h:h%",
        "ann",
    ),
    "names with a blank, a colon and %": (
        rows((*LEFT, "of the clip", "height"), lambda t: (*xywh(t), t + 1, 9999)),
        'x:"left edge" y:"top of it" w:"w:h" h:height% frame:"of the clip"-1',
        None,
    ),
    "names in quotes, in per cent": (
        rows(("frame", *LEFT[:3], "height"), lambda t: (t, *in_per_cent(t))),
        'x:"left edge"% y:"top of it"% w:"w:h"% h:"height"%',
        None,
    ),
    "corners that are called a size": (
        rows(("track", "frame", *"xywh"), lambda t: ("ann", t, *box(t))),
        "x2:w y2:h",
        "ann",
    ),
}


def read(folder, text, stated, dataset="videos", **options):
    (folder / "c").write_text(text)
    reader = datasets.get(dataset, table_columns=stated, **options)
    return read_detections(folder / "c", "c", lambda: [SIZE], reader.stated("train/c.mp4"))


@pytest.mark.parametrize("write", [as_csv, json.dumps])
@pytest.mark.parametrize("form", FORMS)
def test_a_table_has_the_rows_that_its_map_states(tmp_path, form, write, monkeypatch):
    monkeypatch.setattr(large_json, "LARGE", 0)
    table, stated, who = FORMS[form]
    found = read(tmp_path, write(table), stated)
    assert found.boxes_alone
    assert found.frame_index.tolist() == [*EVERY]
    corners = np.array([box(t) for t in EVERY], float).reshape(N, 1, 2, 2)
    np.testing.assert_allclose([frame[..., :2] for frame in found.keypoints], corners, atol=1e-9)
    score = 0.75 if "score" in stated else 1
    assert {*found.keypoints.rows[..., 2].ravel().tolist()} == {score}
    assert [*found.names] == ([] if who is None else [who])


@pytest.mark.parametrize("dataset", ["videos", "kinetics", "insta_variety"])
def test_an_entry_of_the_map_may_be_of_some_clips(tmp_path, dataset):
    stated = f"train/c*={SUPERVISION}, x:left"
    assert read(tmp_path, as_csv(SINK), stated, dataset).n_persons == N
    with raw_refuses(rf"missing or twice: .*left.*Correct \[{dataset}\] table_columns"):
        read(tmp_path, as_csv(SINK), stated.replace("train/c", "val/c"), dataset)


def test_classes_without_names_are_people_by_their_numbers(tmp_path):
    stated = SUPERVISION.replace("class_name", "class_id")
    found = read(tmp_path, as_csv(SINK), stated)
    assert (found.n_persons, found.unread["people skipped by class"]) == (0, {"0": N, "32": N})
    found = read(tmp_path, json.dumps(SINK), stated, people_classes="0")
    assert (found.n_persons, found.unread["people skipped by class"]) == (N, {"32": N})


def test_a_clip_without_a_person_is_no_error(tmp_path):
    found = read(tmp_path, as_csv(SINK[1::2]), SUPERVISION)
    assert (found.n_persons, found.unread) == (0, {"people skipped by class": {"sports ball": N}})


def test_files_of_other_formats_are_read_as_without_a_map(tmp_path):
    files = {
        "coco": json.dumps(coco_object(track_id=6)),
        "coco's results": json.dumps([{"image_id": t, "bbox": xywh(t)} for t in EVERY]),
        "mot": "".join(f"{t + 1},6,{','.join(map(str, xywh(t, 1)))},1\n" for t in EVERY),
    }
    for text in files.values():
        found = read(tmp_path, text, SUPERVISION)
        before = read(tmp_path, text, None)
        assert found.format == before.format
        np.testing.assert_array_equal(found.keypoints.rows, before.keypoints.rows)


MISTAKES = [  # rows, the map, words of the message
    (SINK, "track:id", "found class_id, class_name, c", "missing or twice: id, frame, x, y, w, h."),
    (
        SINK,
        SUPERVISION.replace("x2:x_max ", ""),
        "missing or twice: w.",
        "Correct [videos] table_columns.",
    ),
    (SINK, SUPERVISION.replace("frame_index", "frame_no-1"), "twice: frame_no."),
    (SINK, SUPERVISION.replace("frame_index", "frame_index-1"), "frames from 1 on", "found 0"),
    (SINK, SUPERVISION.replace("frame_index", "class_name"), "found a text 'person' as the frame"),
    (SINK, SUPERVISION.replace("confidence", "class_name"), "no number: a text 'person'"),
    (SINK[::2] + SINK[:1], SUPERVISION, "'4' a second time in frame 0"),
    (SINK, SUPERVISION.replace("x:x_min", "x:x_max").replace("x2:x_max", "x2:x_min"), "a width"),
    ([SINK[0] | {"x_min": [1, 2]}], SUPERVISION, "image_id"),
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_map_is_refused_with_the_columns_that_there_are(tmp_path, mistake):
    table, stated, *texts = mistake
    with pytest.raises(RawDataError) as refused:
        read(tmp_path, json.dumps(table), stated)
    assert all(text in str(refused.value) for text in texts), refused.value


def test_a_column_that_is_there_twice_is_refused_if_it_is_read(tmp_path):
    text = as_csv(SINK[::2]).replace("class_id", "x_min")
    with raw_refuses(r"missing or twice: x_min"):
        read(tmp_path, text, SUPERVISION)
    text = as_csv(SINK[::2]).replace("class_id", "class_name")
    assert read(tmp_path, text, SUPERVISION.partition(" class")[0]).n_persons == N


@pytest.mark.parametrize(("sign", "signs"), [(";", "semicolons"), ("\t", "tabs")])
def test_columns_that_other_signs_separate_are_no_wrong_map(tmp_path, sign, signs):
    for stated in ("x2:w y2:h", "frame:no"):
        text = "frame,x,y,w\n1,2,3,4".replace(",", sign)
        with raw_refuses(f"found {signs} between columns") as refused:
            read(tmp_path, text, stated)
        assert "table_columns" not in str(refused.value)


@pytest.mark.parametrize("text", [as_csv(SINK), json.dumps(SINK)])
def test_a_table_without_a_map_names_the_setting(tmp_path, text):
    with raw_refuses(r"table_columns"):
        read(tmp_path, text, None)


@pytest.mark.parametrize(
    "stated",
    [
        "tracker_id",
        "track=tracker_id",
        "track:tracker_id,frame:frame_index",
        "tracks:tracker_id",
        "track:a track:b",
        "x2:x_max w:width",
        "x:left edge",
        "x:a:b",
        'x:"left edge',
        'x:"a"-1',
        'frame:"a"%',
        'score:"a"%',
        "train/*=",
    ],
)
def test_a_map_that_cannot_be_read_is_refused_before_any_file(stated):
    for dataset in ("videos", "kinetics", "insta_variety"):
        with config_refuses(r"expected OURS:THEIRS"):
            datasets.get(dataset, table_columns=stated)
