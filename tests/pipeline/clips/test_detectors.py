"""What a detector may be and return: plug-ins that fail, boxes alone, batches, a stand-in."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.clips.labels.detections import read_results
from pipeline.errors import RawDataError
from pipeline.files.raw import MARKER
from tests.packages import install
from tests.pipeline.clips.bright import Bright, detect_clips, write_clip

ODD = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from pipeline.clips.detectors import Detector, People

@dataclass(frozen=True)
class Odd(Detector):
    weights: str = ""
    least: float = 0.5
    fast: bool = True
    name: ClassVar[str] = "odd"

    def identity(self):
        return {"weights": open(self.weights).read()} if self.weights else {}

    def load(self, device):
        if not self.fast:
            raise ValueError("no such mode")
        if self.least < 1:
            return lambda images: [1 / 0 for image in images]
        boxes, scores, joints = np.zeros((1, 4)), np.full(1, 0.5), np.full((1, 17, 3), 0.5)
        wrong = {2: None, 3: (boxes, scores, joints), 4: People([[0, 0, 1, 1]], scores, joints)}
        wrong |= {5: People(boxes, scores, joints * np.nan), 6: People(boxes, scores, joints * 100)}
        wrong |= {7: People(boxes, None, joints), 8: People(boxes, scores, [[1], [1, 2]])}
        wrong |= {9: People(boxes.astype(object), scores, joints)}
        return lambda images: [wrong[self.least] for image in images]
"""


FAILURES = """
--weights /none | failed in identity: FileNotFoundError
--set odd.fast=false | failed in load: ValueError: no such mode
| failed in the function that load returned: ZeroDivisionError
--set odd.least=2 | expected a list of 3 People | found a NoneType in it
--set odd.least=3 | People | found a tuple in it
--set odd.least=4 | boxes (P, 4) | found boxes of type list
--set odd.least=5 | all finite | found keypoints that are not finite
--set odd.least=6 | confidences 0 to 1 | found scores or confidences of 0.5 to 50
--set odd.least=7 | People | found scores of type NoneType
--set odd.least=8 | People | found keypoints of type list
--set odd.least=9 | People | found boxes of type object
"""


@pytest.mark.parametrize("failure", FAILURES.strip("\n").splitlines())
def test_what_fails_in_a_plug_in_is_called_by_its_name_and_its_package(
    failure, tmp_path, site, types
):
    option, *texts = (part.strip() for part in failure.split("|"))
    groups = {"vibe_pipeline.detectors": {"odd": "odd_detector:Odd"}}
    install(site, "odd-detector", groups, odd_detector=ODD)
    write_clip(tmp_path / "raw/a.mp4", 3)
    texts.append("detector 'odd' of package odd-detector")
    types(f"detect RAW --out TMP/out --detector odd {option}", *texts, code=2)


@dataclass(frozen=True)
class Boxes(Bright):
    """Boxes alone, as `joints` zeros or none."""

    joints: int = 0
    name = "boxes"

    def people(self, image):
        return super().people(image)._replace(keypoints=np.zeros((1, self.joints, 3), np.float32))


@pytest.mark.parametrize("joints", [0, 17])
def test_a_detector_of_boxes_alone_makes_the_tracks_of_a_csv_of_boxes(joints, tmp_path):
    raw = tmp_path / "raw"
    write_clip(raw / "a.mp4", 50)
    assert detect_clips(raw, raw / "keypoints", Boxes(joints=joints)).persons == 50
    videos, report = datasets.get("videos"), Accounting()
    (track,) = videos.tracks(raw, "train", report=report)
    assert [account.dropped for account in report] == [{}]
    assert len(track.frame_index) == 50
    assert not track.kp_2d.any()
    (raw / "keypoints/a.mp4.json").unlink()
    boxes = "".join(f"{t},0,{20 + t - 5},0,10,20\n" for t in range(50))
    (raw / "keypoints/a.mp4.csv").write_text(f"frame,track,x,y,w,h\n{boxes}")
    (of_csv,) = videos.tracks(raw, "train", report=Accounting())
    assert_allclose(track.bbox, of_csv.bbox, atol=1)
    assert (track.crop_scale, of_csv.crop_scale) == (1.1, 1.1)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"annotations": [{"image_id": 9}]}, "image_id"),
        ({"annotations": [{"image_id": 1, "keypoints": [1, 2, 3]}]}, "keypoints"),
        (
            {"annotations": [{"image_id": 1, "keypoints": [0] * 51, "keypoint_scores": [1]}]},
            "keypoint_scores",
        ),
        ({"images": [{"id": 1, "file_name": "x.jpg"}]}, "file_name"),
        ({"images": 3}, "images"),
    ],
)
def test_files_of_another_kind_are_refused(change, key, tmp_path):
    content = {"images": [{"id": 1, "frame_index": 0}], "annotations": []} | change
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(RawDataError, match=key):
        read_results(tmp_path / "x.json")


def test_the_stand_in_is_for_demo_data_alone(tmp_path, types):
    write_clip(tmp_path / "raw/a.mp4", 3)
    detect = "detect RAW --out TMP/out"
    types(f"{detect} --detector demo", "only in demo data", code=2)
    types(detect, "--set rtmpose.detector=FILE", code=2)
    (tmp_path / "raw" / MARKER).write_text("{}")
    types(detect, "demo detector")
    assert json.loads((tmp_path / "out/a.mp4.json").read_text())["info"]["stand_in"] is True
