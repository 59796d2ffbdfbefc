"""Ordinary keypoint files of all formats, wrong and right ones, as `videos` reads them.

A wrong file is refused, or its account names the fault or what was assumed; a right one is read.
The people are those of `made_people`; nothing here knows the reader's limits.
"""

import re
from typing import Any, NamedTuple

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


def centred(person):
    x0, y0, x1, y1 = map(float, person.box)
    return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]


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
WRONG = ORDERS | {  # and units and boxes
    "OpenPose from -1 to 1": File(
        lambda: made.openpose(times(2 / WIDTH, 2 / HEIGHT, 1, order="body_25", add=(-1, -1, 0))), ""
    ),
    "centres in MOT": File(
        lambda: made.mot(people(), centred), ".txt", "boxes reach out of the image"
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


def read(clip, files, end, tmp_path):
    """The account of the clip with these keypoint files."""
    tmp_path.joinpath("c.mp4").hardlink_to(clip)
    write(tmp_path / f"keypoints/c{end}", files)
    _, account = read_video(OwnVideos(min_frames=16), tmp_path, "train", "c.mp4")
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
