"""`python -m pipeline check`: what is read from a file of people, and what is odd about it."""

import base64
import re
import shlex

import cv2
import numpy as np
import pytest

from pipeline.files.pixels.frames import Video
from tests.html_pages import Page
from tests.pipeline.clips.labels.made_detections import CASES, COCO_NAMES, coco_object, write
from tests.pipeline.datasets.by_hand import coco, standing, write_json, write_video

SIZE = (480, 360)  # px


@pytest.fixture
def clip(tmp_path):
    """A clip `c` of the people of `made_detections`."""
    return write_video(tmp_path / "c.mp4", 9, size=SIZE)


@pytest.fixture
def check(ran):
    """The printed lines by key; those about what is odd, and about refusals, are lists."""

    def check(file, clip, *options, code=0):
        shown = ran("check", file, clip, *options, code=code).out.splitlines()
        lines = {"odd": [], "refused": []}
        for line in shown:
            kind, _, text = line.removeprefix("error: ").partition(": ")
            if line.startswith("error: "):
                lines[kind].append(text)
            else:
                lines[line[:11].rstrip()] = line[11:]
        return lines

    return check


def test_a_file_is_ten_lines(check, clip, tmp_path):
    content = coco_object(track_id=6, tid=3)
    content["categories"][1]["keypoints"] = [*COCO_NAMES[:-1], "Spine"]
    for entry in content["annotations"][:-1]:
        entry["keypoints"][3 * 3 + 2] = 0
        entry["lefthand_kpts"] = [1] * 63
    write_json(tmp_path / "people.json", content)
    assert check(tmp_path / "people.json", clip) == {
        "odd": [],
        "refused": [],
        "format": "COCO's JSON: people.json",
        "frames": "8 with people, 0 to 7; the clip has 9 by its header, 25 a second, 480 x 360 px",
        "people": "8 detections; 1 in a frame, at most 1",
        "joints": "16 joints, named in the file; in no frame: lear",
        "boxes": "30 x 40 px (median), 11% of the image's height; 0 of 8 wider than high",
        "identities": "1: 6; used",
        "scores": "0.88 to 0.88, median 0.88; 0% below 0.3, which are not used",
        "not read": "hands (hands = true keeps them); joints: Spine (8); keys: tid (8)",
        "classes": "people skipped by category: car (1)",
        # seen from the front: left joints are on the right
        "person": "in frame 0: nose (200, 222), leye (201, 220), reye (199, 220), rear (198, 221), "
        "lshoulder (205, 228), rshoulder (195, 228), lelbow (210, 232), relbow (190, 232), "
        "lwrist (215, 236), rwrist (185, 236), lhip (203, 240), rhip (197, 240), lknee (204, 250), "
        "rknee (196, 250), lankle (204, 260)",
    }


# the person of the other one is smaller than 32 px in this clip, which is noted
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"yolo pose"}))
def test_nothing_is_odd_about_a_right_file_of_any_tool(name, check, clip, tmp_path):
    case = CASES[name]
    lines = check(write(tmp_path / "people", case.files), clip)
    assert (lines["odd"], lines["refused"]) == ([], [])
    assert lines["joints"].startswith("none") != case.joints
    assert lines["identities"].startswith("none") == (case.who is None)


def test_sports2ds_files_are_not_odd_without_a_confidence(check, clip, tmp_path):
    joints = standing("coco", 200, 240)[5:, :2]
    rows = [f"{t}\t{t / 25}" + "".join(f"\t{x + t}\t{y}\t0" for x, y in joints) for t in range(8)]
    names = "\t".join(f"{name}\t\t" for name in COCO_NAMES[5:])
    header = ["PathFileType\t4\tc", "DataRate", "25\t25\t8", f"Frame#\tTime\t{names}", ""]
    file = tmp_path / "c_px_person00.trc"
    file.write_text("\n".join([*header, *rows]))
    lines = check(file, clip)
    assert lines["odd"] == []
    assert lines["scores"].endswith(
        "; joints of TRC files have no confidence: 1 where there is a joint"
    )


def test_only_the_first_frame_is_decoded(check, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(Video, "record", lambda _: pytest.fail("the clip is decoded"))
    check(write(tmp_path / "people", CASES["coco"].files), clip)


def test_what_convert_notes_is_odd_and_what_it_assumes_is_not(check, clip, tmp_path):
    lines = check(write(tmp_path / "people.json", CASES["coco results"].files), clip)
    assert lines["joints"].endswith("assumed, because nothing in the file says so")
    write_json(tmp_path / "twice.json", CASES["coco results"].files[""] * 2)
    assert check(tmp_path / "twice.json", clip, code=1)["odd"] == [
        "8 detections left out: the same joints a second time"
    ]


@pytest.mark.parametrize(("n_frames", "code"), [(7, 1), (8, 0)])
def test_people_behind_the_clips_end_are_odd(n_frames, code, check, tmp_path):
    clip = write_video(tmp_path / "short.mp4", n_frames, size=SIZE)
    file = write(tmp_path / "people.json", CASES["alphapose"].files)
    behind = ["people up to frame 7; the clip's header states 7 frames, from 0"]
    assert check(file, clip, code=code)["odd"] == behind * code


def test_a_refused_file_shows_its_lines_and_the_error_of_convert(check, types, ran, tmp_path):
    """The command is that of convert's own message; prepare prints it, too."""
    raw = tmp_path / "raw"
    write_video(raw / "a.mp4", 60, step=0)
    people = [standing("coco", 60, 60)[:, [1, 0, 2]] + (40, 60, 0) for _ in range(60)]
    content = coco(people)
    for entry in content["annotations"]:
        entry["bbox"] = [50, 5, 30, 60]
    write_json(raw / "keypoints/a.mp4.json", content)
    shown = types("convert videos/train --raw RAW --cache CACHE", code=1)
    prepare = "prepare videos --raw RAW --cache TMP/other --detector none"
    types(prepare, "what is read of a.mp4.json: ", code=1)
    command = re.search(r"what is read of a\.mp4\.json: \S+ -m pipeline (check \S+ \S+)", shown)[1]
    refused = check(*shlex.split(command)[1:], code=2)
    assert refused["people"] == "60 detections; 1 in a frame, at most 1"
    assert len(refused["refused"]) == 1
    assert refused["refused"][0].partition(" ")[2] in shown
    assert "expected" in ran("check", tmp_path / "none.json", raw / "a.mp4", code=2).err


def test_settings_state_what_a_file_does_not(check, clip, tmp_path):
    boxes = write(tmp_path / "boxes.txt", CASES["mot truth"].files)
    assert check(boxes, clip)["people"].startswith("8 detections")
    both = check(boxes, clip, "--set", "videos.people_classes=1, 3", code=1)  # two at one place
    assert both["people"].startswith("16 detections")
    file = write(tmp_path / "people.json", CASES["alphapose"].files)
    options = ("--set", "videos.joints=coco", "--set", "videos.identities=link")
    stated = check(file, clip, *options)
    assert stated["joints"].endswith("stated by a setting")
    assert stated["identities"] == "1: 4; not used"


def test_boxes_and_files_without_a_person_have_lines(check, clip, tmp_path):
    lines = check(write(tmp_path / "boxes.txt", CASES["mot"].files), clip)
    assert lines["person"] == (
        "in frame 0: upper left corner (180, 200), lower right corner (220, 280)"
    )
    write_json(tmp_path / "nobody.json", coco_object() | {"annotations": []})
    lines = check(tmp_path / "nobody.json", clip, code=1)
    assert lines["odd"] == ["nobody.json has no person in any frame"]
    assert lines["people"] == "none"


# --------------------------------------------------------------------------------------------------
# page


def walker(**more):
    """COCO's JSON of somebody who walks for 60 frames, from the left."""
    content = coco([standing("coco", 60 + t / 2, 60) for t in range(60)])
    for entry in content["annotations"]:
        entry |= more
    return content


@pytest.fixture
def walk(tmp_path):
    return write_video(tmp_path / "walk.mp4", 60, step=0)


def read_page(file):
    page = Page(file.read_text())
    assert page.root.all("pre"), "the lines"
    return page


def test_the_page_has_the_lines_the_tracks_that_convert_would_make_and_one_person(
    check, walk, tmp_path
):
    write_json(tmp_path / "people.json", walker(track_id=7))
    lines = check(tmp_path / "people.json", walk, "--out", tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert lines["person"] in page.root.all("pre")[0].text
    assert [
        row.all("h2")[0].text.split(":")[0].split()[-1] for row in page.main.of_class("row")
    ] == ["7"]
    (figure,) = page.root.all("figure")
    assert "One person in frame 0, with the names" in figure.text
    encoded = figure.all("img")[0].attributes["src"].partition("base64,")[2]
    image = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (720, 720, 3)
    # names are drawn over the grey frame, the nose's near the top, the ankles' near the bottom
    white = np.flatnonzero((image > 200).all(axis=(1, 2)) | (image > 200).any(axis=(1, 2)))
    assert white.min() < 200 < 520 < white.max()
    assert str(tmp_path / "people.json") in page.source
    assert "/tmp/tmp" not in page.source


def test_a_refused_file_has_a_page_too(check, walk, tmp_path):
    write_json(tmp_path / "people.json", walker(bbox=[2, 2, 10, 10], track_id=7))
    refused = check(tmp_path / "people.json", walk, "--out", tmp_path / "page.html", code=2)
    page = read_page(tmp_path / "page.html")
    assert refused["refused"][0] in page.root.all("pre")[0].text
    assert len(page.main.of_class("row")) == 1


def test_the_page_of_people_without_a_track_has_one_of_them_and_the_error(ran, walk, tmp_path):
    people = [{"people": [{"pose_keypoints_2d": standing("body_25", 60, 60).ravel().tolist()}]}]
    for t in range(20):
        write_json(tmp_path / f"openpose/c_{t:012d}_keypoints.json", people[0])
    shown = ran("check", tmp_path / "openpose", walk, "--out", tmp_path / "page.html", code=2)
    why = "without a track: track_too_short: 20 track_too_short"
    assert why in " ".join(shown.err.split())
    page = read_page(tmp_path / "page.html")
    assert why in page.root.text
    (figure,) = page.root.all("figure")
    assert "One person in frame 0" in figure.text
    assert page.root.all("video") == []


def test_a_folder_and_a_list_of_classes_are_found(check, walk, tmp_path):
    people = [{"people": [{"pose_keypoints_2d": standing("body_25", 60, 60).ravel().tolist()}]}]
    for t in range(60):
        write_json(tmp_path / f"openpose/c_{t:012d}_keypoints.json", people[0])
    check(tmp_path / "openpose", walk, "--out", tmp_path / "page.html")
    assert len(read_page(tmp_path / "page.html").main.of_class("row")) == 1
    mot = "".join(f"{t + 1},4,{40 + t},30,40,60,1,2,1.0\n" for t in range(60))
    (tmp_path / "cvat/gt").mkdir(parents=True)
    (tmp_path / "cvat/gt/gt.txt").write_text(mot)
    (tmp_path / "cvat/labels.txt").write_text("car\nperson\n")
    check(tmp_path / "cvat/gt/gt.txt", walk, "--out", tmp_path / "page.html")
    assert len(read_page(tmp_path / "page.html").main.of_class("row")) == 1


def test_a_page_replaces_only_a_page_of_check(walk, ran, tmp_path):
    write_json(tmp_path / "people.json", walker())
    page = tmp_path / "page.html"
    page.write_text("mine")
    words = ("check", tmp_path / "people.json", walk, "--out", page)
    assert "--overwrite" in ran(*words, code=2).err
    ran(*words, "--overwrite")
    ran(*words)
    assert page.read_text() != "mine"
