"""`python -m pipeline show`: the page on which boxes, crops and joint orders are looked at."""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from pipeline import datasets, show
from pipeline.__main__ import main
from pipeline.errors import PipelineError, StandInMixed
from pipeline.pixels.frames import Pictures
from pipeline.show.drawing import NAMES, flat, side, views
from pipeline.show.posed import joints_3d
from pipeline.show.tracks import shown_track
from pipeline.show.views import portrait
from pipeline.skeletons import bones, mirrored
from pipeline.track import Track

VOID = frozenset(("meta", "img", "br", "input", "link"))


class Element:
    """One element of a page, with all that lies in it."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list[Element | str] = []

    @property
    def text(self) -> str:
        return " ".join("".join(c if isinstance(c, str) else f" {c.text} " for c in self.children).split())

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def all(self, *tags: str) -> list[Element]:
        """Elements below this one, in the page's order; of these tags, when some are named."""
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] if not tags or child.tag in tags else []
                found += child.all(*tags)
        return found

    def of_class(self, *names: str) -> list[Element]:
        return [element for element in self.all() if element.classes >= set(names)]


class Page(HTMLParser):
    """Reads a page, and fails where an element is not closed in order or a reference is none of HTML's."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(self.source)
        self.close()
        assert self._open == [self.root], f"not closed: {[element.tag for element in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag, f"{self.getpos()}: </{tag}>"

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    @property
    def main(self) -> Element:
        (main,) = self.root.all("main")
        return main

    @property
    def body_source(self) -> str:
        return self.source[self.source.index("<main>") :]


@pytest.fixture
def page(tmp_path: Path) -> Any:
    """Runs the command, and gives the page."""

    def run(*arguments: object) -> Page:
        out = tmp_path / "page.html"
        assert main(["show", *map(str, arguments), "--out", str(out)]) == 0
        return Page(out)

    return run


@pytest.fixture
def drawn(tmp_path: Path) -> Any:
    """Writes the page of tracks that a test has made, and gives it."""

    def write(*tracks: show.ShownTrack, **changed: Any) -> Page:
        facts: dict[str, Any] = {
            "name": "penn_action/train",
            "origin": "a test",
            "raw": tmp_path,
            "stand_in": False,
            "reader": {"dataset": "penn_action", "version": 7, "parameters": {"model": "neutral"}, "body": None},
            "totals": {},
            "totals_of": "the whole split",
            "set_aside": (),
            "more_set_aside": 0,
            "n_tracks": len(tracks),
            "warnings": (),
        }
        show.write_page(show.Shown(**(facts | changed), tracks=tracks), tmp_path / "page.html")
        return Page(tmp_path / "page.html")

    return write


def made(raw: Path, n_frames: int = 1, size: tuple[int, int] = (640, 400), **changed: Any) -> Track:
    """A track with pictures of `size`, a box about (300, 200) of side 100, and three joints."""
    (raw / "f").mkdir(parents=True, exist_ok=True)
    for i in range(n_frames):
        cv2.imwrite(str(raw / f"f/{i:06d}.jpg"), np.full((size[1], size[0], 3), 90, np.uint8))
    kp_2d = np.zeros((n_frames, 49, 3), np.float32)
    for name, point in {"rshoulder": (280, 180, 1), "relbow": (270, 200.5, 0.5), "lwrist": (330, 210, 1)}.items():
        kp_2d[:, NAMES.index(name)] = point
    fields: dict[str, Any] = {
        "dataset": "penn_action",
        "split": "train",
        "name": "f/0",
        "video": "f",
        "fps": 25.0,
        "frame_index": np.arange(n_frames),
        "bbox": np.tile(np.array([300, 200, 100, 100], np.float32), (n_frames, 1)),
        "kp_2d": kp_2d,
        "frames": Pictures(raw, "f/{:06d}.jpg"),
    }
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
    """Joint's name -> where its dot lies in the drawing."""
    found = {}
    for dot in marks.of_class("joint"):
        a = {key: float(value) for key, value in dot.attributes.items() if key != "class"}
        at = (a["cx"], a["cy"]) if dot.tag == "circle" else (a["x"] + a["width"] / 2, a["y"] + a["height"] / 2)
        found[dot.text.partition(" (")[0]] = at
    return found


def converted(embedded: Any, into: Any, root: Path, name: str, *, body: bool = False) -> Path:
    into.convert(root, embedded.raw(name), name, body=embedded.body if body else None)
    return root


# ------------------------------------------------------------------------------------------------------- the whole


@pytest.mark.parametrize("name", ["penn_action", "3dpw", "kinetics"])
def test_a_page_of_every_kind_of_pixels_is_whole_and_needs_nothing_else(
    name: str, embedded: Any, into: Any, page: Any, tmp_path: Path
) -> None:
    root = converted(embedded, into, tmp_path / "cache", name)
    read = page(name, "train", "--cache", root, "--frames", 3)
    tracks = read.main.of_class("track")
    assert [track.all("h2")[0].text for track in tracks] == [
        track.name for track in cache.open(root)[f"{name}/train"].tracks
    ][:6]
    assert len(pictures(read)) == 2 * 3 * len(tracks)  # a full frame and a crop of each
    assert [p.shape for p in pictures(read)[1::2]] == [(224, 224, 3)] * 3 * len(tracks)
    for element in read.root.all():
        for key in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            assert element.attributes.get(key, "#").startswith(("data:", "#"))
        assert not [key for key in element.attributes if key.startswith("on")]
    assert read.root.all("script", "link", "iframe", "object", "image") == []
    assert not re.search(r"url\(|@import", read.source)


def test_a_page_can_be_read_aloud(embedded: Any, into: Any, page: Any, tmp_path: Path) -> None:
    root = converted(embedded, into, tmp_path / "cache", "3dpw", body=True)
    read = page("3dpw", "train", "--cache", root, "--frames", 2)
    (html,) = read.root.all("html")
    assert html.attributes["lang"] == "en"
    levels = [int(element.tag[1]) for element in read.root.all("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1  # no level is left out
    assert all(image.attributes["alt"].strip() for image in read.root.all("img"))
    for drawing in read.root.all("svg"):
        assert drawing.attributes.get("aria-hidden") == "true" or drawing.attributes.get("aria-label")
    ids = [element.attributes["id"] for element in read.root.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    for element in read.root.all():
        assert element.attributes.get("aria-labelledby", ids[0]) in ids
        assert element.attributes.get("href", f"#{ids[0]}").removeprefix("#") in ids


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


def test_joints_lie_where_the_label_and_the_map_of_the_crop_put_them(drawn: Any, tmp_path: Path) -> None:
    full, crop = drawn(shown(made(tmp_path, crop_scale=1.2))).main.of_class("marks")
    assert full.attributes["viewbox"] == "-0.5 -0.5 640 400"  # a pixel's centre is at whole numbers
    at = {"rshoulder": (280, 180), "relbow": (270, 200.5), "lwrist": (330, 210)}
    assert set(joints(full)) == set(joints(crop)) == set(at)
    assert crop.attributes["viewbox"] == "-0.5 -0.5 224 224"
    for name, (x, y) in at.items():
        assert joints(full)[name] == pytest.approx((x, y), abs=2e-3)
        closed_form = (112 + (x - 300) * 224 / 120, 112 + (y - 200) * 224 / 120)  # box of side 100, crop scale 1.2
        assert joints(crop)[name] == pytest.approx(closed_form, abs=2e-3)
    lines = full.of_class("bone")
    assert [line.text for line in lines] == ["relbow – rshoulder"]  # the other joint's neighbours are not visible
    assert [float(lines[0].attributes[key]) for key in ("x1", "y1", "x2", "y2")] == [270, 200.5, 280, 180]


def test_the_box_and_the_crops_square_are_drawn_on_the_frame(drawn: Any, tmp_path: Path) -> None:
    full, crop = drawn(shown(made(tmp_path, crop_scale=1.2))).main.of_class("marks")
    rects = {rect.text: [float(rect.attributes[k]) for k in ("x", "y", "width", "height")] for rect in full.all("rect")}
    assert rects["box"] == [250, 150, 100, 100]
    assert rects["crop"] == [240, 140, 120, 120]
    assert not crop.of_class("box") + crop.of_class("crop")


def test_the_crop_shows_the_pixels_that_its_joints_mean(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path, crop_scale=1.2)
    picture = np.zeros((400, 640, 3), np.uint8)
    cv2.circle(picture, (330, 210), 3, (255, 255, 255), -1)  # where lwrist is
    cv2.imwrite(str(tmp_path / "f/000000.jpg"), picture)
    read = drawn(shown(track))
    crop = pictures(read)[1]
    x, y = joints(read.main.of_class("marks")[1])["lwrist"]
    light = np.where(crop[..., 0] > 20, crop[..., 0], 0).astype(float)  # the rest is the JPEG's noise
    rows, columns = np.indices(light.shape)
    assert x == pytest.approx((light * columns).sum() / light.sum(), abs=0.1)
    assert y == pytest.approx((light * rows).sum() / light.sum(), abs=0.1)


def test_pictures_keep_their_colours(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path)
    blue, green, red = 20, 120, 230
    cv2.imwrite(str(tmp_path / "f/000000.jpg"), np.full((400, 640, 3), (blue, green, red), np.uint8))
    for picture in pictures(drawn(shown(track))):
        assert picture[100, 100] == pytest.approx((blue, green, red), abs=4)  # OpenCV's order


def test_large_frames_are_made_small_and_their_labels_keep_their_coordinates(drawn: Any, tmp_path: Path) -> None:
    read = drawn(shown(made(tmp_path, size=(1000, 2000))))
    assert pictures(read)[0].shape == (480, 240, 3)
    full = read.main.of_class("marks")[0]
    assert full.attributes["viewbox"] == "-0.5 -0.5 1000 2000"
    assert joints(full)["lwrist"] == pytest.approx((330, 210), abs=2e-3)


def test_sides_are_told_by_the_joints_names() -> None:
    right = ("rankle", "rear", "reye", "OP RBigToe", "OP REar", "rwrist")
    left = ("lankle", "lear", "leye", "OP LBigToe", "OP LEar", "lwrist")
    middle = ("hip", "neck", "nose", "headtop", "thorax", "Jaw (H36M)", "OP Neck", "OP MidHip", "OP Nose")
    for names, expected in ((right, "right"), (left, "left"), (middle, "middle")):
        assert {side(NAMES.index(name)) for name in names} == {expected}
    turned = {"right": "left", "left": "right", "middle": "middle"}
    assert [turned[side(j)] for j in range(49)] == [side(j) for j in mirrored("spin49")]


def test_a_bone_has_the_side_of_its_ends() -> None:
    kp_2d = np.concatenate([np.random.default_rng(0).uniform(0, 100, (49, 2)), np.ones((49, 1))], axis=1)
    sides = {line.name: line.side for line in flat(kp_2d).lines}
    assert len(sides) == len(bones("spin49"))
    assert sides["rwrist – relbow"] == sides["hip – rhip"] == sides["OP Neck – OP RShoulder"] == "right"
    assert sides["lwrist – lelbow"] == sides["hip – lhip"] == sides["nose – leye"] == "left"
    assert sides["rhip – lhip"] == sides["neck – headtop"] == "middle"


def test_right_and_left_differ_in_colour_and_in_shape(drawn: Any, tmp_path: Path) -> None:
    read = drawn(shown(made(tmp_path)))
    shapes = {dot.text.split()[0]: (dot.tag, "right" in dot.classes) for dot in read.main.of_class("joint")}
    assert shapes == {"rshoulder": ("rect", True), "relbow": ("rect", True), "lwrist": ("circle", False)}
    legend = " ".join(item.text for item in read.root.of_class("legend")[0].all("li"))
    assert "the person's right: orange" in legend
    assert "the person's left: blue" in legend


def test_the_legend_says_how_left_and_right_look_when_they_are_right(drawn: Any, tmp_path: Path) -> None:
    header = drawn(shown(made(tmp_path))).root.all("header")[0].text
    assert "Somebody who faces the camera has orange on the picture's left; seen from behind, on its right." in header


def test_the_legend_has_only_what_is_on_the_page(drawn: Any, tmp_path: Path) -> None:
    def legend(track: Track) -> tuple[str, set[str]]:
        root = drawn(shown(track)).root
        return root.all("header")[0].text, {box.attributes["id"] for box in root.all("input")}

    track = made(tmp_path)
    assert track.kp_2d is not None
    text, boxes = legend(track)
    assert "BODY_25" not in text
    assert "3D views" not in text
    assert boxes == {"draw-boxes"}
    both = track.kp_2d.copy()
    both[:, :25] = (300, 200, 1)
    text, boxes = legend(replace(track, kp_2d=both))
    assert "BODY_25" in text
    assert boxes == {"draw-common", "draw-body25", "draw-boxes"}
    known = np.ones(1, np.bool_)
    kp_3d = np.zeros((1, 49, 4), np.float32)
    kp_3d[:, NAMES.index("lwrist")] = (0.1, 0.2, 0.3, 1)
    assert "3D views" in legend(replace(track, kp_3d=kp_3d, has_3d=known))[0]
    assert "3D views" not in legend(replace(track, kp_3d=kp_3d, has_3d=~known))[0]


def test_body_25_is_dashed_only_beside_other_joints(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path)
    kp_2d = np.zeros_like(track.kp_2d)
    kp_2d[:, :25] = (300, 200, 1)
    alone = drawn(shown(replace(track, kp_2d=kp_2d)))
    assert len(alone.main.of_class("marks")[0].of_class("joint", "body25")) == 25
    assert alone.main.of_class("dashed") == []
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
    (front,), (beside,) = (view.skeleton.dots for view in views(joints, camera=True))
    assert (front.x, front.y) == (-0.4, -0.2)  # SVG's y points down, as the camera's does
    assert (beside.x, beside.y) == (0.7, -0.2)
    (front,), (beside,) = (view.skeleton.dots for view in views(joints, camera=False))  # z is up
    assert (front.x, front.y) == (-0.4, -0.7)
    assert (beside.x, beside.y) == (-0.2, -0.7)
    assert front.name == "rwrist (-0.40, -0.20, 0.70) m"


def test_all_views_of_a_track_have_one_scale(drawn: Any, tmp_path: Path) -> None:
    kp_3d = np.zeros((2, 49, 4), np.float32)
    kp_3d[..., 3] = 1
    kp_3d[0, NAMES.index("lwrist"), :3] = (0.3, -0.8, 0)
    kp_3d[1, NAMES.index("rankle"), :3] = (0, 0.9, -0.6)
    boxes = [
        [float(v) for v in svg.attributes["viewbox"].split()]
        for figure in drawn(shown(made(tmp_path, 2, kp_3d=kp_3d))).main.of_class("solid")
        for svg in figure.all("svg")
    ]
    assert len(boxes) == 4
    for box in boxes:
        assert box == pytest.approx([-0.7, -0.9, 1.4, 1.9])  # 0.1 m about all that there is in either frame


def test_frames_without_3d_say_so(drawn: Any, tmp_path: Path) -> None:
    kp_3d = np.ones((2, 49, 4), np.float32)
    known = made(tmp_path, 2, kp_3d=kp_3d, has_3d=np.array([True, False]), valid=np.array([False, True]))
    first, second = drawn(shown(known)).main.of_class("card")
    assert len(first.of_class("solid")) == 2
    assert second.of_class("solid") == []
    assert "no 3D in this frame" in second.text
    assert "not has_3d" in second.text
    assert "not valid" in first.text


def test_the_joints_that_evaluation_compares_are_drawn_where_there_are_no_others(tmp_path: Path) -> None:
    kp_3d_eval = np.zeros((1, 14, 3), np.float32)
    kp_3d_eval[0, 2], kp_3d_eval[0, 3] = (1.1, 2, 3), (0.9, 2, 3)  # rhip, lhip: the centre is between them
    joints, what = joints_3d({"frame_index": np.arange(1), "kp_3d_eval": kp_3d_eval}, None)
    assert joints is not None
    assert what.startswith("kp_3d_eval")
    assert (joints[0, :, 3] > 0).sum() == 14
    np.testing.assert_allclose(joints[0, NAMES.index("rhip"), :3], (0.1, 0, 0), atol=1e-6)


def test_a_posed_body_stands_where_the_labels_say(embedded: Any, into: Any, tmp_path: Path) -> None:
    root = converted(embedded, into, tmp_path / "cache", "3dpw", body=True)
    split = cache.open(root)["3dpw/train"]
    rows = {name: split.rows(name, 0, 5) for name in ("frame_index", "pose", "betas", "kp_3d")}
    labelled, _ = joints_3d(rows, None)
    posed, what = joints_3d({name: rows[name] for name in ("frame_index", "pose", "betas")}, embedded.body)
    assert "posed" in what
    assert posed is not None
    assert labelled is not None
    np.testing.assert_allclose(posed, labelled, atol=1e-5)


def test_motion_alone_is_drawn_with_a_body_and_said_to_need_one_without(
    embedded: Any, into: Any, page: Any, tmp_path: Path
) -> None:
    root = converted(embedded, into, tmp_path / "cache", "amass")
    without = page("amass", "train", "--cache", root)
    assert without.main.all("img", "svg") == []
    assert "name a body model (--body DIR)" in without.main.text
    with_body = page("amass", "train", "--cache", root, "--body", embedded.body, "--frames", 2)
    assert with_body.main.all("img") == []
    tracks = with_body.main.of_class("track")
    assert len(with_body.main.of_class("solid")) == 2 * 2 * len(tracks) > 0
    heads = [joints(svg)["headtop"][1] for svg in with_body.main.of_class("marks")]
    feet = [joints(svg)["rankle"][1] for svg in with_body.main.of_class("marks")]
    assert np.median(np.subtract(feet, heads)) > 1  # m: they stand upright


# ------------------------------------------------------------------------------------------------- what is said


def test_a_track_says_what_it_is(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path, 20, fps=29.97, crop_scale=1.2)
    kept = np.array([0, 1, 2, 5, 6, 7])
    assert track.kp_2d is not None
    assert track.bbox is not None
    kp_2d = track.kp_2d[kept].copy()
    kp_2d[0, NAMES.index("lwrist")] = 0
    part = replace(track, frame_index=kept, bbox=track.bbox[kept], kp_2d=kp_2d, valid=np.arange(6) < 4)
    read = drawn(shown(part, "3 labels too many", frames=3))
    (section,) = read.main.of_class("track")
    facts = dict(zip((e.text for e in section.all("dt")), (e.text for e in section.all("dd")), strict=True))
    assert facts == {
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


def test_joints_outside_the_picture_and_the_crop_are_counted(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path)
    assert track.kp_2d is not None
    track.kp_2d[0, NAMES.index("lwrist"), :2] = (639.6, 210)
    track.kp_2d[0, NAMES.index("relbow"), :2] = (639.4, 210)  # still in the last pixel
    (card,) = drawn(shown(track)).main.of_class("card")
    assert card.text.endswith("3 joints, 1 outside the picture, 2 outside the crop")


def test_a_frame_that_cannot_be_decoded_says_why(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path, 3)
    (tmp_path / "f/000000.jpg").unlink()
    (tmp_path / "f/000002.jpg").write_bytes((tmp_path / "f/000001.jpg").read_bytes()[:300])
    read = drawn(shown(track))
    missing, good, cut = read.main.of_class("card")
    assert "No picture. picture_missing: " in missing.text
    assert "000000.jpg is not there" in missing.text
    assert "No picture. picture_truncated: " in cut.text
    assert good.of_class("problem") == []
    assert len(pictures(read)) == 2


def test_a_box_that_no_crop_has_is_a_problem_of_its_frame(drawn: Any, tmp_path: Path) -> None:
    track = made(tmp_path, 2)
    assert track.bbox is not None
    track.bbox[0, 2:] = 0
    bad, good = drawn(shown(track)).main.of_class("card")
    assert "bad_box: no crop has box [300.0, 200.0, 0.0, 0.0]" in bad.text
    assert good.of_class("problem") == []


def test_a_moved_raw_folder_is_told_and_can_be_given(
    embedded: Any, into: Any, page: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = embedded.copy("penn_action", tmp_path / "raw")
    into.convert(tmp_path / "cache", raw)
    moved = raw.rename(tmp_path / "moved")
    lost = page("penn_action", "train", "--cache", tmp_path / "cache", "--tracks", 1)
    assert f"The raw folder {raw} is not there" in lost.root.of_class("warning")[-1].text
    assert "--raw DIR" in capsys.readouterr().err
    assert len(lost.main.of_class("problem")) == 5
    found = page("penn_action", "train", "--cache", tmp_path / "cache", "--tracks", 1, "--raw", moved)
    assert found.main.of_class("problem", "warning") == []
    assert len(pictures(found)) == 10


def test_pictures_that_were_changed_since_are_told(embedded: Any, into: Any, page: Any, tmp_path: Path) -> None:
    raw = embedded.copy("penn_action", tmp_path / "raw")
    into.convert(tmp_path / "cache", raw)
    shutil.copy(raw / "frames/0003/000002.jpg", raw / "frames/0001/000001.jpg")
    read = page("penn_action", "train", "--cache", tmp_path / "cache")
    changed, *others = read.main.of_class("track")
    told = "the pictures that lie there now are not those that were converted"
    assert told in changed.text
    assert others
    assert all(told not in track.text for track in others)


def test_stand_ins_say_so_and_real_data_does_not(embedded: Any, page: Any, tmp_path: Path) -> None:
    raw = embedded.copy("penn_action", tmp_path / "raw")
    stand_in = page("penn_action", "train", "--raw", raw)
    assert "STAND-IN" in stand_in.root.of_class("warning")[0].text
    assert "(stand-in)" in stand_in.root.all("title")[0].text
    (raw / "STAND_IN.json").unlink()
    assert "stand-in" not in page("penn_action", "train", "--raw", raw).source.lower()


def test_a_stand_in_body_is_refused_beside_real_data(embedded: Any, tmp_path: Path) -> None:
    raw = embedded.copy("amass", tmp_path / "raw")
    (raw / "STAND_IN.json").unlink()
    found = show.from_raw(datasets.get("amass"), "train", raw, show.Choice())
    with pytest.raises(StandInMixed):
        show.write_page(found, tmp_path / "page.html", body=embedded.body)
    assert not (tmp_path / "page.html").exists()


def test_the_header_has_the_reader_its_options_and_the_accounting(
    embedded: Any, into: Any, page: Any, tmp_path: Path
) -> None:
    raw = embedded.copy("penn_action", tmp_path / "raw")
    (raw / "labels/0003.mat").write_bytes(b"<b>no label</b>")
    into.convert(tmp_path / "cache", raw)
    read = page("penn_action", "train", "--cache", tmp_path / "cache", "--tracks", 1)
    (header,) = read.root.all("header")
    version = datasets.get("penn_action").version
    assert f"penn_action, version {version}" in header.text
    rows = [[cell.text for cell in row.all("th", "td")] for row in header.all("tr")]
    frames = cache.open(tmp_path / "cache")["penn_action/train"].manifest["accounting"]["frames"]
    assert rows[1] == ["videos", "3", "2", "1 bad_label_file"]
    assert rows[3][:3] == ["person-frames", str(frames["found"]), str(frames["kept"])]
    assert "1 track of 2, from the cache" in header.text
    assert "1 video set aside" in header.text
    assert "0003: bad_label_file: " in header.text
    amass = page("amass", "train", "--raw", embedded.raw("amass"))
    assert "resampling = slerp" in amass.root.all("header")[0].text


def test_harmless_reasons_do_not_hide_failures(embedded: Any, into: Any, page: Any, tmp_path: Path) -> None:
    raw = embedded.copy("kinetics", tmp_path / "raw")
    (keypoints,) = (raw / "keypoints/train").iterdir()
    for file in keypoints.iterdir():
        file.rename(file.with_name(file.name.replace(keypoints.name, "no_such_clip")))
    keypoints.rename(keypoints.with_name("no_such_clip"))  # and so the clip is without keypoints
    into.convert(tmp_path / "cache", raw, "kinetics")
    for where in (("--cache", tmp_path / "cache"), ("--raw", raw)):
        (header,) = page("kinetics", "train", *where).root.all("header")
        assert "1 no_keypoints, 1 video_missing" in header.text  # in the table
        assert "1 video set aside" in header.text
        assert [item.text.split(": ")[1] for item in header.all("details")[0].all("li")] == ["video_missing"]
        assert "There is no track to show." in header.text


def test_what_the_full_release_has_is_said_beside_what_was_found(drawn: Any) -> None:
    counts = {"found": 2, "kept": 2, "dropped": {}}
    videos = {"found": 2, "kept": 1, "set_aside": {}, "without_tracks": 1}
    totals = {"frames": counts, "tracks": counts, "videos": videos, "known": {"videos": 2326}}
    text = drawn(totals=totals).root.all("table")[0].text
    assert "videos 2 (the full release: 2,326) 1 1 without a track" in text


# ------------------------------------------------------------------------------------------- names of strangers


def test_names_and_messages_from_elsewhere_stay_text(drawn: Any, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=http://x/ onerror=alert(1)>&amp;{{ 7 * 7 }}</title></style>"
    track = made(tmp_path, name=f"{evil}/0", video=evil)
    read = drawn(
        shown(track, f"note {evil}"),
        name=f"x/{evil}",
        origin=evil,
        raw=Path(evil),
        reader={"dataset": evil, "version": evil, "parameters": {evil: evil}, "body": None},
        set_aside=(evil,),
        warnings=(evil,),
        totals_of=evil,
    )
    assert read.root.all("script") == []
    assert len(read.root.all("img")) == 2
    assert read.main.all("h2")[0].text == f"{evil}/0"
    assert f"note {evil}" in read.main.text
    assert evil in read.root.all("header")[0].text
    assert evil in read.root.all("title")[0].text
    assert all("onerror" not in element.attributes for element in read.root.all())
    (policy,) = [meta for meta in read.root.all("meta") if "http-equiv" in meta.attributes]
    assert policy.attributes["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_a_name_that_is_no_utf_8_does_not_stop_the_page(drawn: Any, tmp_path: Path) -> None:
    read = drawn(shown(made(tmp_path, name="caf\udce9/0")))
    assert read.main.all("h2")[0].text == r"caf\udce9/0"


# ---------------------------------------------------------------------------------------------- raw and the cache


@pytest.mark.parametrize("name", ["penn_action", "kinetics", "3dpw", "amass"])
def test_raw_files_and_the_cache_give_the_same_tracks_on_the_page(
    name: str, embedded: Any, into: Any, page: Any, tmp_path: Path
) -> None:
    raw, root = embedded.raw(name), converted(embedded, into, tmp_path / "cache", name)
    track = cache.open(root)[f"{name}/train"].tracks[-1].name
    options = (name, "train", "--track", track, "--frames", 2)
    from_cache = page(*options, "--cache", root)
    assert from_cache.body_source == page(*options, "--raw", raw).body_source
    assert track in from_cache.main.text


def test_from_raw_only_the_videos_that_are_shown_are_read(embedded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, raw = datasets.get("penn_action"), embedded.raw("penn_action")
    read: list[str] = []
    original = type(dataset).read

    def watched(reader: Any, raw: Path, split: str, video: datasets.RawVideo, *more: Any) -> Any:
        read.append(video.name)
        return original(reader, raw, split, video, *more)

    monkeypatch.setattr(type(dataset), "read", watched)
    found = show.from_raw(dataset, "train", raw, show.Choice(tracks=2))
    assert [track.video for track in found.tracks] == ["0001", "0005"]  # even numbers are of the test split
    assert read == ["0001", "0004", "0005"]
    assert found.totals_of == "the videos that were read for this page: 3 of 6"


def test_a_reader_that_fails_costs_its_video_and_no_other(
    embedded: Any, page: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = type(datasets.get("penn_action")).read

    def read(reader: Any, raw: Path, split: str, video: datasets.RawVideo, *more: Any) -> Any:
        return original(reader, raw, split, video, *more) if video.name != "0001" else {}["joints"]

    monkeypatch.setattr(type(datasets.get("penn_action")), "read", read)
    root = page("penn_action", "train", "--raw", embedded.raw("penn_action"), "--tracks", 2).root
    assert len(root.of_class("track")) == 2
    told = "The reader failed on video 0001: KeyError: 'joints' (at test_show.py:"
    assert told in root.of_class("warning")[-1].text
    assert told in capsys.readouterr().err
    assert "1 unexpected_error" in root.all("header")[0].text


def test_several_people_of_a_few_videos_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    people = [made(raw, name=f"f/{person}") for person in range(4)]

    class Crowd(type(datasets.get("penn_action"))):  # type: ignore[misc]
        def videos(self, raw: Path, split: str) -> Any:
            return [datasets.RawVideo("f", files=())]

        def read(self, raw: Path, split: str, video: Any, account: Any, body: Any) -> Any:
            account.found = 4
            for _ in people:
                account.keep_track(1)
            return people

    found = show.from_raw(Crowd(), "train", raw, show.Choice(tracks=3))
    assert [track.name for track in found.tracks] == ["f/0", "f/2", "f/3"]


def test_tracks_are_spread_over_the_split(embedded: Any, into: Any, tmp_path: Path) -> None:
    root = converted(embedded, into, tmp_path / "cache", "penn_action")
    there = [track.name for track in cache.open(root)["penn_action/train"].tracks]
    assert len(there) == 3
    chosen = show.from_cache(root, "penn_action/train", show.Choice(tracks=2))
    assert [track.name for track in chosen.tracks] == [there[0], there[2]]
    named = show.from_cache(root, "penn_action/train", show.Choice(names=(there[1], there[0])))
    assert [track.name for track in named.tracks] == [there[1], there[0]]


def test_a_track_that_is_not_there_is_an_error(embedded: Any, into: Any, tmp_path: Path) -> None:
    root, raw = converted(embedded, into, tmp_path / "cache", "penn_action"), embedded.raw("penn_action")
    with pytest.raises(PipelineError, match="has no track '0001/9'; it has 3: 0001/0, 0003/0"):
        show.from_cache(root, "penn_action/train", show.Choice(names=("0001/9",)))
    with pytest.raises(PipelineError, match="has no track '0001/9': its video has 0001/0"):
        show.from_raw(datasets.get("penn_action"), "train", raw, show.Choice(names=("0001/9",)))
    with pytest.raises(PipelineError, match="has no track '9/9': no video is called so"):
        show.from_raw(datasets.get("penn_action"), "train", raw, show.Choice(names=("9/9",)))


def test_what_is_shown_must_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "penn_action", "train", "--out", str(tmp_path / "page.html")]) == 2
    assert capsys.readouterr().err.startswith("error: say what to show: --cache DIR")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_on_the_way_leaves_the_old_page(
    embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page.html"
    out.write_text("old")
    monkeypatch.setattr("pipeline.show.page.portrait", lambda *_: 1 / 0)
    found = show.from_raw(datasets.get("penn_action"), "train", embedded.raw("penn_action"), show.Choice(tracks=1))
    with pytest.raises(ZeroDivisionError):
        show.write_page(found, out)
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert out.read_text() == "old"


def test_one_track_at_a_time_is_drawn(drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of any length take the memory of one track: none is drawn before the one before it is written."""
    sizes = []

    def watched(track: show.ShownTrack, body: Path | None) -> Any:
        sizes.append((tmp_path / ".page.html.part").stat().st_size)
        return portrait(track, body)

    monkeypatch.setattr("pipeline.show.page.portrait", watched)
    drawn(*[shown(made(tmp_path, name=f"f/{i}")) for i in range(4)])
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]
