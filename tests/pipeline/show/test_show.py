"""`python -m pipeline show`: the page on which boxes, crops and joint orders are looked at."""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from pipeline import datasets, show, synthetic
from pipeline.__main__ import main
from pipeline.conversion import convert
from pipeline.errors import PipelineError, StandInMixed
from pipeline.pixels.frames import Pictures
from pipeline.show.drawing import NAMES, SIDES, flat, joints_3d, views
from pipeline.show.tracks import shown_track
from pipeline.skeletons import bones, mirrored
from pipeline.track import Track
from tests.html_pages import Element, Page

AT = {"rshoulder": (280, 180), "relbow": (270, 200.5), "lwrist": (330, 210)}  # px, the joints of `made`


@pytest.fixture
def page(tmp_path: Path) -> Any:
    """Runs the command and returns the page."""

    def run(*arguments: object) -> Page:
        out = tmp_path / "page.html"
        assert main(["show", *map(str, arguments), "--out", str(out)]) == 0
        return Page(out.read_text(encoding="utf-8"))

    return run


@pytest.fixture
def drawn(tmp_path: Path) -> Any:
    """Writes the page of tracks that a test has made and returns it."""

    def write(*tracks: show.ShownTrack, **changed: Any) -> Page:
        facts: dict[str, Any] = {"name": "penn_action/train", "origin": "a test", "raw": tmp_path, "stand_in": False}
        facts |= {"reader": {"dataset": "penn_action", "version": 7, "parameters": {"model": "neutral"}, "body": None}}
        facts |= {"totals": {}, "totals_of": "the whole split", "rejected": (), "n_rejected": 1}
        facts |= {"body": None, "n_tracks": len(tracks), "warnings": ()}
        progress = changed.pop("progress", lambda *_: None)
        shown = show.Shown(**(facts | changed), tracks=tracks)
        show.write_page(shown, tmp_path / "page.html", progress=progress)
        return Page((tmp_path / "page.html").read_text(encoding="utf-8"))

    return write


def made(raw: Path, n_frames: int = 1, size: tuple[int, int] = (640, 400), **changed: Any) -> Track:
    """A track with pictures of `size`, a box about (300, 200) of side 100, and three joints."""
    (raw / "f").mkdir(parents=True, exist_ok=True)
    for i in range(n_frames):
        cv2.imwrite(str(raw / f"f/{i:06d}.jpg"), np.full((size[1], size[0], 3), 90, np.uint8))
    kp_2d = np.zeros((n_frames, 49, 3), np.float32)
    for (name, point), confidence in zip(AT.items(), (1, 0.5, 1), strict=True):
        kp_2d[:, NAMES.index(name)] = (*point, confidence)
    box = np.tile(np.array([300, 200, 100, 100], np.float32), (n_frames, 1))
    fields: dict[str, Any] = {"dataset": "penn_action", "split": "train", "name": "f/0", "video": "f", "fps": 25.0}
    fields |= {"frame_index": np.arange(n_frames), "bbox": box, "kp_2d": kp_2d, "frames": Pictures(raw, "f/{:06d}.jpg")}
    return Track(**(fields | changed))


def shown(track: Track, *notes: str, frames: int = 5) -> show.ShownTrack:
    fields = ("frame_index", "bbox", "kp_2d", "kp_3d", "kp_3d_eval", "pose", "betas", "has_3d", "has_smpl", "valid")
    columns = {name: np.asarray(value) for name in fields if (value := getattr(track, name)) is not None}
    return shown_track(track, columns, source=track.frames, notes=notes, frames=frames)


def pictures(page: Page) -> list[np.ndarray]:
    """The embedded pictures, decoded."""
    found = []
    for image in page.main.all("img"):
        kind, _, data = image.attributes["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data, validate=True), np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert [int(image.attributes[key]) for key in ("width", "height")] == [decoded.shape[1], decoded.shape[0]]
        found.append(decoded)
    return found


def joints(marks: Element) -> dict[str, tuple[float, float]]:
    """Joint's name -> the place of its dot in the drawing."""
    found = {}
    for dot in marks.of_class("joint"):
        a = {key: float(value) for key, value in dot.attributes.items() if key != "class"}
        at = (a["cx"], a["cy"]) if dot.tag == "circle" else (a["x"] + a["width"] / 2, a["y"] + a["height"] / 2)
        found[dot.text.partition(" (")[0]] = at
    return found


@pytest.fixture(scope="session")
def root(embedded: Any, into: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of three datasets. Only to be read."""
    root = tmp_path_factory.mktemp("shown") / "cache"
    for name in ("penn_action", "3dpw", "amass"):
        into.convert(root, embedded.raw(name), name, body=embedded.body if name == "3dpw" else None)
    return root


# ------------------------------------------------------------------------------------------------------- the whole


@pytest.mark.parametrize("name", ["penn_action", "3dpw", "amass"])
def test_raw_files_and_the_cache_give_one_page_that_needs_nothing_else_and_can_be_read_aloud(
    name: str, embedded: Any, page: Any, root: Path
) -> None:
    track = cache.open(root)[f"{name}/train"].tracks[-1].name
    options = (name, "train", "--track", track, "--frames", 2, *(["--body", embedded.body] if name == "3dpw" else []))
    read = page(*options, "--cache", root)
    from_raw = page(*options, "--raw", embedded.raw(name))
    assert read.source.partition("<main>")[2] == from_raw.source.partition("<main>")[2]
    assert [section.all("h2")[0].text for section in read.main.of_class("track")] == [track]
    assert [p.shape for p in pictures(read)[1::2]] == ([] if name == "amass" else [(224, 224, 3)] * 2)
    ids = read.ids
    assert max(read.levels) == (2 if name == "amass" else 3)
    for element in read.root.all():
        for key in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            assert element.attributes.get(key, "#").startswith(("data:", "#"))
        assert not [key for key in element.attributes if key.startswith("on")]
        assert element.attributes.get("aria-labelledby", ids[0]) in ids
        assert element.attributes.get("href", f"#{ids[0]}").removeprefix("#") in ids
    assert read.root.all("script", "link", "iframe", "object", "image") == []
    assert not re.search(r"url\(|@import", read.source)
    assert read.root.all("html")[0].attributes["lang"] == "en"
    assert all(image.attributes["alt"].strip() for image in read.root.all("img"))
    for drawing in read.root.all("svg"):
        assert drawing.attributes.get("aria-hidden") == "true" or drawing.attributes.get("aria-label")


def contrast(first: str, second: str) -> float:
    """Of two #rrggbb, as WCAG 2 counts it."""

    def luminance(colour: str) -> float:
        full = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        s = np.array([int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        return float(np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_and_lines_stand_out_by_day_and_by_night(drawn: Any) -> None:
    themes = re.findall(r":root \{([^}]*)\}", drawn().source)
    assert len(themes) == 2
    for theme in themes:
        colour = dict(re.findall(r"--([\w-]+): (#\w+);", theme))
        for text in ("text", "faint", "link"):
            assert all(contrast(colour[text], colour[back]) >= 4.5 for back in ("page", "raised"))
        assert all(contrast(colour["text"], colour[back]) >= 4.5 for back in ("warning", "problem"))
        assert all(contrast(colour[line], colour["page"]) >= 3 for line in ("right", "left", "middle"))


# --------------------------------------------------------------------------------------------------- what is drawn


def test_joints_and_boxes_are_where_the_label_and_the_map_of_the_crop_put_them(drawn: Any, tmp_path: Path) -> None:
    read = drawn(shown(made(tmp_path, crop_scale=1.2)))
    full, crop = read.main.of_class("marks")
    assert full.attributes["viewbox"] == "-0.5 -0.5 640 400"  # a pixel's centre is at whole numbers
    assert crop.attributes["viewbox"] == "-0.5 -0.5 224 224"
    assert joints(full) == {name: pytest.approx(at, abs=2e-3) for name, at in AT.items()}
    closed_form = {name: (112 + (x - 300) * 224 / 120, 112 + (y - 200) * 224 / 120) for name, (x, y) in AT.items()}
    assert joints(crop) == {name: pytest.approx(at, abs=2e-3) for name, at in closed_form.items()}
    (line,) = full.of_class("bone")  # the other joint's neighbours are not visible
    assert line.text == "relbow – rshoulder"
    assert [float(line.attributes[key]) for key in ("x1", "y1", "x2", "y2")] == [270, 200.5, 280, 180]
    rects = {rect.text: [float(rect.attributes[k]) for k in ("x", "y", "width", "height")] for rect in full.all("rect")}
    assert (rects["box"], rects["crop"]) == ([250, 150, 100, 100], [240, 140, 120, 120])
    assert not crop.of_class("box") + crop.of_class("crop")
    shapes = {dot.text.split()[0]: (dot.tag, "right" in dot.classes) for dot in full.of_class("joint")}
    assert shapes == {"rshoulder": ("rect", True), "relbow": ("rect", True), "lwrist": ("circle", False)}
    assert "right: orange" in read.header.text and "left: blue" in read.header.text


def test_the_crop_shows_the_pixels_that_its_joints_mean(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path, crop_scale=1.2)
    picture = np.zeros((400, 640, 3), np.uint8)
    cv2.circle(picture, (330, 210), 3, (255, 255, 255), -1)  # where lwrist is
    cv2.imwrite(str(tmp_path / "f/000000.jpg"), picture)
    read = drawn(shown(track))
    x, y = joints(read.main.of_class("marks")[1])["lwrist"]
    crop = pictures(read)[1][..., 0]
    light = np.where(crop > 20, crop, 0).astype(float)  # the rest is the JPEG's noise
    rows, columns = np.indices(light.shape)
    assert x == pytest.approx((light * columns).sum() / light.sum(), abs=0.1)
    assert y == pytest.approx((light * rows).sum() / light.sum(), abs=0.1)


def test_large_frames_are_made_small_and_keep_their_colours_and_coordinates(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path, size=(1000, 2000))
    bgr = (20, 120, 230)
    cv2.imwrite(str(tmp_path / "f/000000.jpg"), np.full((2000, 1000, 3), bgr, np.uint8))
    read = drawn(shown(track))
    assert pictures(read)[0].shape == (480, 240, 3)
    assert all(picture[100, 100] == pytest.approx(bgr, abs=4) for picture in pictures(read))  # OpenCV's order
    full = read.main.of_class("marks")[0]
    assert full.attributes["viewbox"] == "-0.5 -0.5 1000 2000"
    assert joints(full)["lwrist"] == pytest.approx(AT["lwrist"], abs=2e-3)


def test_joints_and_bones_have_the_side_of_their_names() -> None:
    right = ("rankle", "rear", "reye", "OP RBigToe", "OP REar", "rwrist")
    left = ("lankle", "lear", "leye", "OP LBigToe", "OP LEar", "lwrist")
    middle = ("hip", "neck", "nose", "headtop", "thorax", "Jaw (H36M)", "OP Neck", "OP MidHip", "OP Nose")
    for names, expected in ((right, "right"), (left, "left"), (middle, "middle")):
        assert {SIDES[NAMES.index(name)] for name in names} == {expected}
    turned = {"right": "left", "left": "right", "middle": "middle"}
    assert [turned[side] for side in SIDES] == [SIDES[j] for j in mirrored("spin49")]
    kp_2d = np.concatenate([np.random.default_rng(0).uniform(0, 100, (49, 2)), np.ones((49, 1))], axis=1)
    sides = {line.name: line.side for line in flat(kp_2d).lines}
    assert len(sides) == len(bones("spin49"))
    assert sides["rwrist – relbow"] == sides["hip – rhip"] == sides["OP Neck – OP RShoulder"] == "right"
    assert sides["lwrist – lelbow"] == sides["hip – lhip"] == sides["nose – leye"] == "left"
    assert sides["rhip – lhip"] == sides["neck – headtop"] == "middle"


def test_body_25_is_dashed_only_beside_other_bones(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path)
    kp_2d = np.zeros_like(track.kp_2d)
    kp_2d[:, :25] = (300, 200, 1)
    alone = drawn(shown(replace(track, kp_2d=kp_2d))).main
    assert len(alone.of_class("marks")[0].of_class("joint", "body25")) == 25 and alone.of_class("dashed") == []
    kp_2d[:, NAMES.index("headtop")] = (300, 180, 1)  # no bone of its own: nothing runs side by side
    assert drawn(shown(replace(track, kp_2d=kp_2d))).main.of_class("dashed") == []
    kp_2d[:, NAMES.index("neck")] = (300, 190, 1)
    both = drawn(shown(replace(track, kp_2d=kp_2d))).main.of_class("marks")[0]
    assert len(both.of_class("joint", "body25", "dashed")) == 25
    assert [dot.text.split()[0] for dot in both.of_class("joint", "common")] == ["neck", "headtop"]


# --------------------------------------------------------------------------------------------------------------- 3D


def test_the_front_is_what_the_camera_sees_and_the_side_shows_the_depth() -> None:
    joints = np.zeros((49, 4))
    joints[NAMES.index("rwrist")] = (-0.4, -0.2, 0.7, 1)  # at the picture's left, above the pelvis, behind it
    for camera, expected in ((True, [(-0.4, -0.2), (0.7, -0.2)]), (False, [(-0.4, -0.7), (-0.2, -0.7)])):
        dots = [dot for view in views(joints, camera=camera) for dot in view.skeleton.dots]
        assert [(dot.x, dot.y) for dot in dots] == expected  # SVG's y points down, as the camera's does
        assert dots[0].name == "rwrist (-0.40, -0.20, 0.70) m"


def test_all_3d_views_of_a_track_have_one_scale_and_unknown_frames_have_none(drawn: Any, tmp_path: Path) -> None:
    kp_3d = np.zeros((3, 49, 4), np.float32)
    kp_3d[..., 3] = 1
    kp_3d[0, NAMES.index("lwrist"), :3] = (0.3, -0.8, 0)
    kp_3d[1, NAMES.index("rankle"), :3] = (0, 0.9, -0.6)
    kp_3d[2, NAMES.index("rankle"), :3] = (0, 9, 9)
    flags = {"has_3d": np.array([True, True, False]), "valid": np.array([False, True, True])}
    cards = drawn(shown(made(tmp_path, 3, kp_3d=kp_3d, **flags))).main.of_class("card")
    svgs = [svg for card in cards for figure in card.of_class("solid") for svg in figure.all("svg")]
    assert len(svgs) == 4
    for svg in svgs:  # 0.1 m about all that there is in either frame
        assert [float(v) for v in svg.attributes["viewbox"].split()] == pytest.approx([-0.7, -0.9, 1.4, 1.9])
    assert cards[2].of_class("solid") == [] and "no 3D in this frame not has_3d" in cards[2].text
    assert "not valid" in cards[0].text


def test_evaluation_s_joints_are_drawn_where_there_are_no_others() -> None:
    kp_3d_eval = np.zeros((1, 14, 3), np.float32)
    kp_3d_eval[0, 2], kp_3d_eval[0, 3] = (1.1, 2, 3), (0.9, 2, 3)  # rhip, lhip: the centre is between them
    joints, what = joints_3d({"frame_index": np.arange(1), "kp_3d_eval": kp_3d_eval}, None)
    assert joints is not None and what.startswith("kp_3d_eval")
    assert (joints[0, :, 3] > 0).sum() == 14
    np.testing.assert_allclose(joints[0, NAMES.index("rhip"), :3], (0.1, 0, 0), atol=1e-6)


def test_a_posed_body_stands_where_the_labels_say(embedded: Any, root: Path) -> None:
    split = cache.open(root)["3dpw/train"]
    rows = {name: split.rows(name, 0, 5) for name in ("frame_index", "pose", "betas", "kp_3d")}
    labelled, _ = joints_3d(rows, None)
    smpl = {name: rows[name].copy() for name in ("frame_index", "pose", "betas")}
    smpl["pose"][3] = np.nan
    posed, what = joints_3d(smpl, embedded.body)
    assert posed is not None and labelled is not None and "posed" in what
    np.testing.assert_allclose(posed[[0, 1, 2, 4]], labelled[[0, 1, 2, 4]], atol=1e-5)
    assert not posed[3].any()


def test_motion_alone_is_drawn_upright_with_a_body_and_needs_one(embedded: Any, page: Any, root: Path) -> None:
    without = page("amass", "train", "--cache", root).main
    assert without.all("img", "svg") == [] and "--body DIR" in without.text
    with_body = page("amass", "train", "--cache", root, "--body", embedded.body, "--frames", 2).main
    assert with_body.all("img") == []
    assert len(with_body.of_class("solid")) == 2 * 2 * len(with_body.of_class("track")) > 0
    heights = [joints(svg)["rankle"][1] - joints(svg)["headtop"][1] for svg in with_body.of_class("marks")]
    assert np.median(heights) > 1  # m


# ------------------------------------------------------------------------------------------------ what is reported


def test_a_track_s_facts(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path, 20, fps=29.97, crop_scale=1.2)
    kept = np.array([0, 1, 2, 5, 6, 7])
    assert track.kp_2d is not None and track.bbox is not None
    kp_2d = track.kp_2d[kept].copy()
    kp_2d[0, NAMES.index("lwrist")] = 0
    part = replace(track, frame_index=kept, bbox=track.bbox[kept], kp_2d=kp_2d, valid=np.arange(6) < 4)
    (section,) = drawn(shown(part, "3 labels too many", frames=3)).main.of_class("track")
    assert dict(zip((e.text for e in section.all("dt")), (e.text for e in section.all("dd")), strict=True)) == {
        "Video": "f",
        "Frames": "6, step 1, 29.97 fps",
        "Gaps": "2 → 5",
        "Visible joints": "2 to 3 in a frame, 3 in all",
        "valid": "4 of 6 frames",
        "Crop scale": "1.2",
        "Source": "pictures:f/{:06d}.jpg+0",
        "3D": "no 3D labels",
    }
    assert "rshoulder, lwrist" in section.text
    assert [note.text for note in section.of_class("notes")] == ["3 labels too many"]
    assert [card.all("h3")[0].text for card in section.of_class("card")] == ["Frame 0", "Frame 2", "Frame 7"]


def test_frames_that_cannot_be_shown_say_why_and_joints_outside_are_counted(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path, 4)
    assert track.kp_2d is not None and track.bbox is not None
    (tmp_path / "f/000000.jpg").unlink()
    (tmp_path / "f/000002.jpg").write_bytes((tmp_path / "f/000001.jpg").read_bytes()[:300])
    track.bbox[3, 2:] = 0
    track.kp_2d[1, NAMES.index("lwrist"), :2] = (639.6, 210)
    track.kp_2d[1, NAMES.index("relbow"), :2] = (639.4, 210)  # still in the last pixel
    read = drawn(shown(track))
    missing, good, cut, no_box = read.main.of_class("card")
    for card, why in ((missing, "picture_missing: "), (cut, "picture_truncated: "), (no_box, "bad_box: ")):
        assert f"No picture. {why}" in card.text
    assert good.of_class("problem") == [] and len(pictures(read)) == 2
    assert good.text.endswith("3 joints, 1 outside the picture, 2 outside the crop")


def test_moved_and_changed_raw_folders_and_rejected_videos_are_reported(
    embedded: Any, into: Any, page: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, root = embedded.copy("penn_action", tmp_path / "raw"), tmp_path / "cache"
    (raw / "labels/0003.mat").write_bytes(b"<b>no label</b>")
    into.convert(root, raw)
    options = ("penn_action", "train", "--cache", root, "--frames", 1)
    moved = raw.rename(tmp_path / "moved")
    lost = page(*options)
    assert f"The raw folder {raw} is not there" in lost.root.of_class("warning")[-1].text
    assert "--raw DIR" in capsys.readouterr().err
    assert len(lost.main.of_class("problem")) == 2
    shutil.copy(moved / "frames/0003/000002.jpg", moved / "frames/0001/000001.jpg")
    found = page(*options, "--raw", moved)
    assert found.main.of_class("problem", "warning") == [] and len(pictures(found)) == 4
    assert ["not those that were converted" in track.text for track in found.main.of_class("track")] == [True, False]
    rows = [[cell.text for cell in row.all("th", "td")] for row in found.header.all("tr")]
    frames = cache.open(root)["penn_action/train"].manifest["accounting"]["frames"]
    assert rows[1] == ["videos", "3", "2", "1 bad_label_file"]
    assert rows[3][:3] == ["person-frames", str(frames["found"]), str(frames["kept"])]
    version = datasets.get("penn_action").version
    for text in (f"penn_action, version {version}", "2 tracks of 2", "1 video rejected", "0003: bad_label_file: "):
        assert text in found.header.text


def test_demo_data_are_marked_and_never_meet_real_data(embedded: Any, page: Any, tmp_path: Path) -> None:
    raw = embedded.copy("amass", tmp_path / "raw")
    demo = page("amass", "train", "--raw", raw)
    assert "DEMO DATA" in demo.root.of_class("warning")[0].text and "demo data" in demo.root.all("title")[0].text
    assert "resampling = slerp" in demo.header.text
    (raw / "STAND_IN.json").unlink()
    assert "demo data" not in page("amass", "train", "--raw", raw).source.lower()
    with pytest.raises(StandInMixed):
        show.from_raw(datasets.get("amass"), "train", raw, show.Choice(), body=embedded.body)


def test_harmless_reasons_do_not_hide_failures(into: Any, page: Any, tmp_path: Path) -> None:
    synthetic.write_dataset("kinetics", raw := tmp_path / "raw", n_videos=1, n_frames=2)
    (keypoints,) = (raw / "keypoints/train").iterdir()
    for file in keypoints.iterdir():
        file.rename(file.with_name(file.name.replace(keypoints.name, "no_such_clip")))
    keypoints.rename(keypoints.with_name("no_such_clip"))  # and so the clip is without keypoints
    into.convert(tmp_path / "cache", raw, "kinetics")
    for where in (("--cache", tmp_path / "cache"), ("--raw", raw)):
        header = page("kinetics", "train", *where).header
        assert "1 no_keypoints, 1 video_missing" in header.text and "1 video rejected" in header.text
        assert [item.text.split(": ")[1] for item in header.all("details")[0].all("li")] == ["video_missing"]
        assert "There is no track to show." in header.text


def test_the_full_release_s_counts_are_beside_what_was_found(drawn: Any) -> None:
    counts = {"found": 2, "kept": 2, "dropped": {}}
    videos = {"found": 2, "kept": 1, "set_aside": {}, "without_tracks": 1}
    totals = {"frames": counts, "tracks": counts, "videos": videos, "known": {"videos": 2326}}
    text = drawn(totals=totals).root.all("table")[0].text
    assert "videos 2 (the full release: 2,326) 1 1 without a track" in text


def test_untrusted_names_and_messages_stay_text(drawn: Any, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=http://x/ onerror=alert(1)>&amp;{{ 7 * 7 }}</title></style>caf\udce9"
    track, text = made(tmp_path, name=f"{evil}/0", video=evil), evil.replace("\udce9", r"\udce9")
    reader = {"dataset": evil, "version": evil, "parameters": {evil: evil}, "body": None}
    facts = {"name": f"x/{evil}", "origin": evil, "raw": Path(evil), "rejected": (evil,), "warnings": (evil,)}
    read = drawn(shown(track, f"note {evil}"), reader=reader, totals_of=evil, **facts)
    assert read.root.all("script") == [] and len(read.root.all("img")) == 2
    assert read.main.all("h2")[0].text == f"{text}/0"
    assert f"note {text}" in read.main.text
    assert text in read.header.text and text in read.root.all("title")[0].text
    assert all("onerror" not in element.attributes for element in read.root.all())
    (policy,) = [meta for meta in read.root.all("meta") if "http-equiv" in meta.attributes]
    assert policy.attributes["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


# ------------------------------------------------------------------------------------------- which tracks are shown


def test_tracks_are_spread_over_the_split_or_named(embedded: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, raw = datasets.get("penn_action"), embedded.raw("penn_action")
    names = [track.name for track in cache.open(root)["penn_action/train"].tracks]
    assert len(names) == 3
    for choice, expected in (
        (show.Choice(tracks=2), names[::2]),
        (show.Choice(names=tuple(names[1::-1])), names[1::-1]),
    ):
        assert [t.record.name for t in show.from_cache(root, "penn_action/train", choice).tracks] == expected
        assert [t.record.name for t in show.from_raw(dataset, "train", raw, choice).tracks] == expected
    unknown = show.Choice(names=("0001/9",))
    with pytest.raises(PipelineError, match=r"no track '0001/9'; it has 3: 0001/0, 0003/0"):
        show.from_cache(root, "penn_action/train", unknown)
    with pytest.raises(PipelineError, match="no track '0001/9': its video has 0001/0"):
        show.from_raw(dataset, "train", raw, unknown)
    with pytest.raises(PipelineError, match="no track '9/9': no video is called so"):
        show.from_raw(dataset, "train", raw, show.Choice(names=("9/9",)))


def test_from_raw_only_shown_videos_are_read_and_a_failing_reader_costs_its_video(
    embedded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, raw, read = datasets.get("penn_action"), embedded.raw("penn_action"), []
    original = type(dataset).read

    def watched(reader: Any, raw: Path, split: str, video: datasets.RawVideo, *more: Any) -> Any:
        read.append(video.name)
        return original(reader, raw, split, video, *more) if video.name != "0001" else {}["joints"]

    monkeypatch.setattr(type(dataset), "read", watched)
    found = show.from_raw(dataset, "train", raw, show.Choice(tracks=2))
    assert read == ["0001", "0002", "0003", "0004", "0005"]  # even numbers are of the test split
    assert [track.record.video for track in found.tracks] == ["0003", "0005"]
    assert found.totals_of.endswith("5 of 6") and found.totals["videos"]["set_aside"] == {"unexpected_error": 1}
    assert "failed on video 0001: KeyError: 'joints' (at test_show.py:" in found.warnings[0]


def test_several_people_of_a_few_videos_are_shown(tmp_path: Path) -> None:
    people = [made(tmp_path / "raw", name=f"f/{person}") for person in range(4)]

    class Crowd(type(datasets.get("penn_action"))):  # type: ignore[misc]
        def videos(self, raw: Path, split: str) -> Any:
            return [datasets.RawVideo("f", files=())]

        def read(self, raw: Path, split: str, video: Any, account: Any, body: Any) -> Any:
            account.found = 4
            for _ in people:
                account.keep_track(1)
            return people

    found = show.from_raw(Crowd(), "train", tmp_path / "raw", show.Choice(tracks=3))
    assert [track.record.name for track in found.tracks] == ["f/0", "f/2", "f/3"]


def test_a_page_needs_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "penn_action", "train", "--out", str(tmp_path / "page.html")]) == 2
    assert "--cache DIR" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_track_at_a_time_is_drawn_and_a_failure_leaves_the_old_page(drawn: Any, tmp_path: Path) -> None:
    """Pages of any length take the memory of one track: none is drawn before the one before it is written."""
    sizes: list[int] = []
    tracks = [shown(made(tmp_path, name=f"f/{i}")) for i in range(4)]

    def watched(done: int, total: int, name: str = "") -> None:
        if done < total:
            sizes.append((tmp_path / ".page.html.part").stat().st_size)

    old = drawn(*tracks, progress=watched).source
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]

    def fails(done: int, total: int, name: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(*tracks[:3], progress=fails)
    assert (tmp_path / "page.html").read_text() == old and not (tmp_path / ".page.html.part").exists()


def test_a_track_without_2d_joints_shows_its_box_alone(drawn: Any, tmp_path: Path) -> None:
    page = drawn(shown(made(tmp_path, kp_2d=None)))
    assert len(pictures(page)) == 2  # the frame and the crop
    assert not page.main.of_class("joint")


def test_a_rejected_video_is_drawn_with_what_is_wrong(embedded: Any, into: Any, page: Any, tmp_path: Path) -> None:
    raw = embedded.copy("kinetics", tmp_path / "kinetics")
    clip = next(
        folder for folder in sorted((raw / "keypoints/train").iterdir()) if list(folder.glob("*_keypoints.json"))
    )
    last = max(clip.iterdir())
    for number in range(100, 160):  # of another run, whose video was longer
        shutil.copy(last, clip / f"{clip.name}_{number:012d}_keypoints.json")
    root = tmp_path / "cache"
    assert into.convert(root, raw, "kinetics").rejected[0].set_aside == "frame_count_mismatch"
    for source in (("--raw", raw), ("--cache", root)):
        text = page("kinetics", "train", "--rejected", *source)
        assert pictures(text)
        assert "labels up to frame 159" in text.main.text
        assert clip.name in text.main.text
    rejected = show.Choice(rejected=True)
    moved = raw.rename(tmp_path / "moved")
    with pytest.raises(PipelineError, match=r"not there now.*--raw DIR"):
        show.from_cache(root, "kinetics/train", rejected)
    assert show.from_cache(root, "kinetics/train", rejected, raw=moved).tracks


def test_rejected_videos_are_read_with_the_options_of_their_conversion(embedded: Any, tmp_path: Path) -> None:
    reader, raw = datasets.get("amass", resampling="decimate"), embedded.raw("amass")
    convert.convert(convert.plan_conversion(reader, "train", raw=raw, root=tmp_path / "cache"))
    found = show.from_cache(tmp_path / "cache", "amass/train", show.Choice(rejected=True))
    assert found.reader["parameters"] == {"resampling": "decimate"}
