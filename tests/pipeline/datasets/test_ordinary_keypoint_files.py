"""Ordinary keypoint files of all formats, wrong and right ones, as `videos` reads them.

A wrong file is refused, or its account names the fault or what was assumed; a right one is read.
The people are those of `made_people`; nothing here knows the reader's limits.
"""

import re
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline.accounting import is_error
from pipeline.datasets.videos import OwnVideos
from pipeline.people.skeletons import joint_names
from tests.pipeline.clips.labels.made_detections import write
from tests.pipeline.datasets import made_people as made
from tests.pipeline.datasets.by_hand import read_video, write_video
from tests.pipeline.datasets.made_people import COCO_NAMES, HEIGHT, WIDTH, changed, in_order

pytestmark = pytest.mark.slow

THREE = "three people"
# COCO's joints: limb by limb, or with pairs of joints exchanged
LIMB_BY_LIMB = [0, 1, 2, 3, 4, 5, 7, 9, 6, 8, 10, 11, 13, 15, 12, 14, 16]
ELBOWS_WRISTS = [0, 1, 2, 3, 4, 5, 6, 9, 10, 7, 8, 11, 12, 13, 14, 15, 16]
KNEES_ANKLES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 13, 14]
SHOULDERS_HIPS = [0, 1, 2, 3, 4, 11, 12, 7, 8, 9, 10, 5, 6, 13, 14, 15, 16]
SIDES = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


class File(NamedTuple):
    """A keypoint file, its ending, and what is said of it if it is not refused; "": it must be."""

    make: Any  # a function that returns the files of `made_people`
    end: str
    said: str = ""


def people(order="coco", scene=THREE):
    return in_order(made.scenes()[scene], order)


def taken(rows, order="coco"):
    return changed(people(order), lambda person: person.points[rows])


def times(*factors, order="coco", add=(0, 0, 0)):
    return changed(people(order), lambda person: person.points * factors + add)


def in_crop(order="coco", size=None):
    """Joints in px of the person's box; size: of the crop (width, height) that a network saw."""

    def crop(person):
        x0, y0, x1, y1 = person.box
        points = person.points - [x0, y0, 0]
        if size is None:
            return points
        scale = 1.25 * max((x1 - x0) / size[0], (y1 - y0) / size[1])
        middle = [(x1 - x0) / 2, (y1 - y0) / 2, 0]
        return (points - middle) / [scale, scale, 1] + [size[0] / 2, size[1] / 2, 0]

    return changed(people(order), crop)


def zeroed(score, order="coco"):
    """Joints that were not found are at (0, 0), with a score."""
    missed = np.random.default_rng(3)

    def zero(person):
        is_missed = (person.points[:, 2] < 0.3) | (missed.random(len(person.points)) < 0.1)
        return np.where(is_missed[:, None], [0, 0, score], person.points)

    return changed(people(order), zero)


def by_score(order="coco"):
    return made.numbered(people(order), key=lambda person: -person.score)


def from_left(scene="six people"):
    return made.numbered(people(scene=scene), key=lambda person: person.box[0])


def cxcywh(person):
    x0, y0, x1, y1 = map(float, person.box)
    return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]


def in_shares(person):
    return [n / side for n, side in zip(made.xywh(person), (WIDTH, HEIGHT) * 2, strict=True)]


def enlarged(factor):
    return lambda person: [factor * number for number in made.xywh(person)]


ASSUMED = "the joint order coco"
ORDERS = {  # wrong orders, or orders that no file states
    "OpenPose's 18 without the last": File(
        lambda: made.results(people(joint_names("openpose_coco")[:17])), ".json"
    ),
    "limb by limb": File(lambda: made.alphapose(taken(LIMB_BY_LIMB)), ".json"),
    "elbows for wrists": File(lambda: made.openpose(taken(ELBOWS_WRISTS)), ""),
    "knees for ankles": File(lambda: made.ultralytics(taken(KNEES_ANKLES)), ".json"),
    "shoulders for hips": File(lambda: made.yolo(taken(SHOULDERS_HIPS), joints=True), ""),
    "3DHP's 17": File(lambda: made.inferencer(people("mpi_inf_3dhp_test")), ".json"),
    "Human3.6M's 17": File(lambda: made.alphapose(people("h36m")), ".json"),
    "Human3.6M's 17, right leg first": File(lambda: made.results(people("h36m_lifters")), ".json"),
    "PoseTrack's 17": File(lambda: made.results(people("posetrack")), ".json", ASSUMED),
    "left for right": File(lambda: made.alphapose(taken(SIDES)), ".json", ASSUMED),
    "BODY_25B by OpenPose": File(lambda: made.openpose(people("body_25b")), ""),
    "COCO with the neck at the end by OpenPose": File(
        lambda: made.openpose(people("coco_neck")), ""
    ),
    "Halpe's 26, body last": File(
        lambda: made.alphapose(taken([*range(17, 26), *range(17)], "halpe_26")), ".json"
    ),
    "from the feet up": File(lambda: made.alphapose(taken([*range(16, -1, -1)])), ".json"),
    "the nose last": File(lambda: made.inferencer(taken([*range(1, 17), 0])), ".json"),
    "names of another order": File(lambda: made.demo(people("h36m"), COCO_NAMES), ".json"),
    "names limb by limb": File(lambda: made.coco(taken(LIMB_BY_LIMB), COCO_NAMES), ".json"),
    "feet before the body": File(
        lambda: made.alphapose(taken([*range(17, 23), *range(17)], "coco_feet")), ".json"
    ),
}
WRONG = ORDERS | {
    # units
    "shares of the image": File(lambda: made.results(times(1 / WIDTH, 1 / HEIGHT, 1)), ".json"),
    "shares of the image, by frame": File(
        lambda: made.ultralytics(times(1 / WIDTH, 1 / HEIGHT, 1)), ".json"
    ),
    "boxes of YOLO in px": File(lambda: made.yolo(people(), size=(1, 1)), ""),
    "joints of YOLO in px": File(lambda: made.yolo(people(), joints=True, size=(1, 1)), ""),
    "MOT in shares": File(lambda: made.mot(people(), in_shares, one=0), ".txt"),
    "CSV in shares": File(lambda: made.csv(people(), in_shares), ".csv"),
    "OpenPose from -1 to 1": File(
        lambda: made.openpose(times(2 / WIDTH, 2 / HEIGHT, 1, order="body_25", add=(-1, -1, 0))), ""
    ),
    "metres": File(lambda: made.alphapose(times(0.009, 0.009, 1, add=(-3, -2, 0))), ".json"),
    "scores in per cent": File(lambda: made.alphapose(times(1, 1, 100)), ".json"),
    "scores to 255": File(lambda: made.inferencer(times(1, 1, 255)), ".json"),
    "y before x": File(
        lambda: made.results(changed(people(), lambda p: p.points[:, [1, 0, 2]])), ".json", ASSUMED
    ),
    "y from the bottom": File(
        lambda: made.openpose(times(1, -1, 1, order="body_25", add=(0, HEIGHT, 0))),
        "",
        "hips above",
    ),
    "score before x": File(
        lambda: made.results(changed(people(), lambda p: p.points[:, [2, 0, 1]])), ".json"
    ),
    "all x before all y": File(
        lambda: made.alphapose(changed(people(), lambda p: p.points.T.reshape(17, 3))), ".json"
    ),
    # sizes
    "of a copy of twice the size": File(lambda: made.results(times(2, 2, 1)), ".json"),
    "of a copy of half the size": File(
        lambda: made.openpose(times(0.5, 0.5, 1, order="body_25")), "", "copy"
    ),
    "stated padding": File(lambda: made.coco(people(), size=(640, 640)), ".json"),
    "MOT of twice the size": File(lambda: made.mot(people(), enlarged(2)), ".txt"),
    "CSV of half the size": File(lambda: made.csv(people(), enlarged(0.5)), ".csv", "copy"),
    # corners
    "corners in MOT": File(lambda: made.mot(people(), made.corners), ".txt"),
    "corners in CSV": File(lambda: made.csv(people(), made.corners), ".csv"),
    "corners in COCO's JSON": File(
        lambda: made.coco(people(), box=made.corners, joints=False), ".json"
    ),
    "corners in COCO's results": File(lambda: made.box_results(people(), made.corners), ".json"),
    "corners in YOLO": File(lambda: made.yolo(people(), as_corners=True), ""),
    "corners beside joints": File(lambda: made.coco(people(), COCO_NAMES, made.corners), ".json"),
    "centres in MOT": File(lambda: made.mot(people(), cxcywh), ".txt", "boxes reach beyond"),
    # crops
    "OpenPose in crops": File(lambda: made.openpose(in_crop("body_25")), ""),
    "in crops, with boxes": File(lambda: made.alphapose(in_crop()), ".json"),
    "in a network's crop, with boxes": File(
        lambda: made.inferencer(in_crop(size=(192, 256))), ".json"
    ),
    "in a network's crop": File(lambda: made.results(in_crop(size=(192, 256))), ".json", ASSUMED),
    # identities
    "ranks in COCO's JSON": File(
        lambda: made.coco(by_score(), COCO_NAMES), ".json", "identities are not used"
    ),
    "places from the left in MOT": File(
        lambda: made.mot(from_left()), ".txt", "people change places"
    ),
    "ranks in CSV": File(lambda: made.csv(by_score()), ".csv", "identities are not used"),
    "ranks by Ultralytics": File(
        lambda: made.ultralytics(by_score()), ".json", "identities are not used"
    ),
    # zeros
    "zeros with a score": File(lambda: made.results(zeroed(0.9)), ".json", r"at \(0, 0\)"),
    "zeros that are visible": File(
        lambda: made.coco(
            changed(zeroed(2), lambda p: p.points * [1, 1, 0] + [0, 0, 2]),
            COCO_NAMES,
        ),
        ".json",
        r"at \(0, 0\)",
    ),
    # frames
    "MOT from 0": File(lambda: made.mot(people(), first=0), ".txt"),
    "CSV from 1": File(lambda: made.csv(people(), first=1), ".csv"),
    "images from 1": File(lambda: made.alphapose(people(), first=1), ".json"),
    "MMPose's demo from 0": File(lambda: made.demo(people(), COCO_NAMES, first=0), ".json"),
    "of a copy at twice the rate": File(lambda: made.results(people(), step=2), ".json"),
    "of a copy at half the rate": File(
        lambda: made.results(people()[::2]), ".json", "of another frame rate"
    ),
}


ALL = (*made.SCENES,)
SOME = ("three people", "leaves", "run, camera in the hand", "six people")
FEW = ("three people", "close")
HALF = {"canvas_width": WIDTH // 2, "canvas_height": HEIGHT // 2}
TOOLS = {  # the files of a scene, their ending, the scenes
    "OpenPose": (lambda s: made.openpose(people("body_25", s)), "", ALL),
    "OpenPose's COCO-18": (lambda s: made.openpose(people("openpose_coco", s)), "", FEW),
    "ComfyUI, half size": (
        lambda s: made.comfyui(
            changed(people("openpose_coco", s), lambda p: p.points * [0.5, 0.5, 1]), **HALF
        ),
        ".json",
        FEW,
    ),
    "AlphaPose": (lambda s: made.alphapose(people(scene=s)), ".json", ALL),
    "AlphaPose's Halpe-26": (lambda s: made.alphapose(people("halpe_26", s)), ".json", SOME),
    "COCO's results": (lambda s: made.results(people(scene=s)), ".json", ALL),
    "COCO, named": (lambda s: made.coco(people(scene=s), COCO_NAMES), ".json", ALL),
    "COCO's boxes": (lambda s: made.coco(people(scene=s), joints=False), ".json", FEW),
    "results of boxes": (lambda s: made.box_results(people(scene=s)), ".json", FEW),
    "MMPose": (lambda s: made.inferencer(people(scene=s), ids=True), ".json", SOME),
    "MMPose's whole bodies": (
        lambda s: made.inferencer(made.whole_body(made.scenes()[s])),
        ".json",
        SOME,
    ),
    "MMPose's demo": (lambda s: made.demo(people(scene=s), COCO_NAMES), ".json", FEW),
    "Ultralytics": (lambda s: made.ultralytics(people(scene=s)), ".json", SOME),
    "YOLO": (lambda s: made.yolo(people(scene=s)), "", SOME),
    "YOLO's joints": (lambda s: made.yolo(people(scene=s), joints=True), "", SOME),
    "MOT": (lambda s: made.mot(people(scene=s)), ".txt", SOME),
    "CSV": (lambda s: made.csv(people(scene=s)), ".csv", SOME),
    "Sports2D": (lambda s: made.trc(people("body_25", s)), "", ("one acts",)),
}
RIGHT = [(tool, scene) for tool, (_, _, names) in TOOLS.items() for scene in names]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    place = tmp_path_factory.mktemp("clip") / "c.mp4"
    return write_video(place, made.N, made.FPS, (WIDTH, HEIGHT), step=0)


def read(clip, files, end, tmp_path, **options):
    """The account of the clip with these keypoint files."""
    tmp_path.joinpath("c.mp4").hardlink_to(clip)
    write(tmp_path / f"keypoints/c{end}", files)
    _, account = read_video(OwnVideos(min_frames=16, **options), tmp_path, "train", "c.mp4")
    return account


def words(account):
    return "; ".join([*account["notes"], *account.get("assumed", ())])


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_or_its_fault_or_what_was_assumed_is_said(name, clip, tmp_path):
    file = WRONG[name]
    account = read(clip, file.make(), file.end, tmp_path)
    is_refused = is_error(account["set_aside"])
    if not is_refused:
        assert file.said and re.search(file.said, words(account)), account


@pytest.mark.parametrize(("tool", "scene"), RIGHT)
def test_a_right_file_is_read_and_its_identities_are_used(tool, scene, clip, tmp_path):
    make, end, _ = TOOLS[tool]
    account = read(clip, make(scene), end, tmp_path)
    assert not account["set_aside"], account["message"]
    assert account["kept"] > 0.7 * account["found"]
    assert not re.search("not used|copy|outside", words(account)), words(account)


STATED = {  # wrong or unnamed orders that have a name
    "3DHP's 17": "mpi_inf_3dhp_test",
    "Human3.6M's 17": "h36m",
    "Human3.6M's 17, right leg first": "h36m_lifters",
    "PoseTrack's 17": "posetrack",
    "BODY_25B by OpenPose": "body_25b",
    "COCO with the neck at the end by OpenPose": "coco_neck",
}
STATED_RIGHT = {
    "OpenPose": "body_25",
    "OpenPose's COCO-18": "openpose_coco",
    "AlphaPose": "coco",
    "AlphaPose's Halpe-26": "halpe_26",
    "COCO's results": "coco",
    "MMPose": "coco",
    "Ultralytics": "coco",
    "YOLO's joints": "coco",
}
OTHER_FAULTS = (
    "shares of the image",
    "metres",
    "scores in per cent",
    "of a copy of twice the size",
    "in crops, with boxes",
    "images from 1",
)


@pytest.mark.parametrize("name", STATED)
def test_an_order_that_is_stated_is_read_without_a_line(name, clip, tmp_path):
    file = WRONG[name]
    account = read(clip, file.make(), file.end, tmp_path, joints=STATED[name])
    assert not account["set_aside"], account["message"]
    assert "assumed" not in account


@pytest.mark.parametrize("tool", STATED_RIGHT)
def test_a_right_file_whose_order_is_stated_has_no_line(tool, clip, tmp_path):
    make, end, (scene, *_) = TOOLS[tool]
    account = read(clip, make(scene), end, tmp_path, joints=STATED_RIGHT[tool])
    assert not account["set_aside"], account["message"]
    assert "assumed" not in account


@pytest.mark.parametrize("name", OTHER_FAULTS)
def test_other_faults_stay_refused_if_the_order_is_stated(name, clip, tmp_path):
    file = WRONG[name]
    account = read(clip, file.make(), file.end, tmp_path, joints="coco")
    assert is_error(account["set_aside"])
