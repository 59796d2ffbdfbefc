"""The contract of all readers, small tables written by hand, and damaged files.  python -m
pytest
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lab_recordings import CONTACT, LabRecordings
from lab_recordings_example import RECORDINGS, main

from pipeline.api import JOINTS, RawDataError
from pipeline.testing import DatasetContract

HEADER = (
    "frame,person,lwrist_x,lwrist_y,lwrist_score,nose_x,nose_y,nose_score,lheel,ltoes,rheel,rtoes\n"
)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "lab_recordings"
    main(folder)
    return folder


@pytest.fixture
def alone(recordings: Path, tmp_path: Path) -> Path:
    """A raw folder with one video; the test writes its table."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    (tmp_path / "train/alone.mp4").write_bytes((recordings / "train/alone.mp4").read_bytes())
    return tmp_path


@pytest.mark.parametrize("split", RECORDINGS)
class TestContract(DatasetContract):
    @pytest.fixture
    def dataset(self) -> LabRecordings:
        return LabRecordings()

    @pytest.fixture
    def raw(self, recordings: Path) -> Path:
        return recordings


def test_joints_follow_the_names_in_the_header(alone: Path) -> None:
    (alone / "train/alone.csv").write_text(HEADER + "3,0,10,20,0.9,110,40,1.5,1,0,0,1\n")
    (track,) = LabRecordings().tracks(alone, "train")
    assert track.kp_2d is not None
    joints = dict(zip(JOINTS["spin49"], track.kp_2d[0].tolist(), strict=True))
    assert joints["lwrist"] == pytest.approx([10, 20, 0.9])
    assert joints["nose"] == pytest.approx([110, 40, 1])
    assert joints["rwrist"] == [0, 0, 0]
    assert track.frame_index.tolist() == [3]
    assert track.extra["foot_contact"].tolist() == [[1, 0, 0, 1]]
    assert track.bbox is not None
    np.testing.assert_allclose(track.bbox, [[60, 30, 120, 120]])  # 100 wide, times 1.2


def test_a_mirrored_image_exchanges_the_feet() -> None:
    assert CONTACT.mirrored(
        np.array([[1, 0, 0, 1]], np.uint8), "lab_recordings/train"
    ).tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("contacts", ["1,0,0,2", "1,0,0,0.5", "1,0,0,nan"])
def test_an_invalid_contact_rejects_the_recording(alone: Path, contacts: str) -> None:
    (alone / "train/alone.csv").write_text(f"{HEADER}3,0,10,20,0.9,110,40,1.5,{contacts}\n")
    with pytest.raises(RawDataError, match="contacts"):
        list(LabRecordings().tracks(alone, "train"))


def test_the_left_hand_is_on_the_persons_left(recordings: Path) -> None:
    (track,) = LabRecordings().tracks(recordings, "val")
    assert track.kp_2d is not None
    joints = dict(zip(JOINTS["spin49"], track.kp_2d[0, :, :2].tolist(), strict=True))
    # read off the first image of val/alone.mp4: that person faces the camera
    assert joints["rwrist"] == pytest.approx([128, 97], abs=10)
    assert joints["lwrist"] == pytest.approx([183, 88], abs=10)
