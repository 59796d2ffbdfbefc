"""Errors that results of body estimators have in practice: each is planted in a file, and its
import tells how far the bodies are off.
"""

import re

import numpy as np
import pytest

import cache
from pipeline.cameras import compose
from pipeline.errors import RawDataError
from pipeline.skeletons import JOINTS
from tests.pipeline.exchange import planted_bodies as planted
from tests.pipeline.exchange.planted_bodies import NAME, run, write_clips

QUARTER = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # of a turn about the optical axis


def mid_hip(person):
    return planted.joints(person)[:, JOINTS["spin49"].index("OP MidHip")]


def moved(away):
    """WHAM's, with other translations."""
    content = planted.wham()
    for person, entry in enumerate(content.values()):
        entry["trans"] = (planted.trans(person) + away(person)).astype(np.float32)
    return content


def turned():
    """WHAM's, of pictures that lie on their side."""
    content = planted.wham()
    for person, entry in enumerate(content.values()):
        pose = planted.pose(person)
        pose[:, :3] = compose(QUARTER, pose[:, :3])
        pelvis = mid_hip(person)
        entry["pose"] = pose.astype(np.float32)
        entry["trans"] = (planted.trans(person) + pelvis) @ QUARTER.T - pelvis
    return content


def resized():
    """VIBE's, of pictures of half the size."""
    content = planted.vibe()
    for entry in content.values():
        entry["bboxes"] = entry["bboxes"] / 2
    return content


def some_frames(chosen):
    """WHAM's, of a clip that has these frames alone."""
    content = planted.wham()
    for entry in content.values():
        for key, values in entry.items():
            entry[key] = values[chosen]
        entry["frame_ids"] = np.arange(len(entry["frame_ids"]))
    return content


def shifted(frames):
    return planted.wham(frame_ids=np.arange(planted.N) + frames)


PLANTED = {
    "place of the mid-hip": ("wham", lambda: moved(mid_hip)),
    "SMPL-X as SMPL": ("wham", lambda: moved(lambda _: -planted.SMPLX_PELVIS)),
    "SMPL as SMPL-X": ("gvhmr", lambda: planted.gvhmr(transl=planted.trans(0))),
    "fewer frames": ("wham", lambda: some_frames(slice(2, None))),
    "shifted frames": ("wham", lambda: shifted(2)),
    "half the rate": ("wham", lambda: some_frames(slice(None, None, 2))),
    "half the size": ("vibe", resized),
    "another rotation": ("wham", turned),
}


def distance_of(tmp_path, file):
    """The shares of the box by which bodies are off, as an import tells them."""
    write_clips(tmp_path / "clips")
    try:
        told = "; ".join(run(tmp_path, file).notes["walk.mp4"])
    except RawDataError as error:
        assert not cache.FeatureCache(tmp_path / "c").is_committed(NAME)
        told = str(error)
    return [float(share) / 100 for share in re.findall(r"([\d.]+) ?% (?:off|in )", told)]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_told_as_a_distance(tmp_path, name):
    tool, content = PLANTED[name]
    assert max(distance_of(tmp_path, planted.write(tmp_path, tool, content()))) > 0.05


@pytest.mark.parametrize("times", [1.2, 1.6, 0.5])
def test_another_focal_length_is_told_as_a_distance(tmp_path, times):
    camera = planted.tram_camera(focal=planted.DIAGONAL * times)
    assert max(distance_of(tmp_path, planted.write_tram(tmp_path, None, camera)[0])) > 0.05


@pytest.mark.parametrize("tool", ["wham", "vibe", "phalp", "gvhmr", "prompthmr"])
def test_right_files_have_small_distances(tmp_path, tool):
    assert max(distance_of(tmp_path, planted.write(tmp_path, tool))) < 0.01


@pytest.mark.parametrize("tool", ["tram", "phalp", "gvhmr", "prompthmr"])
def test_turned_pictures_of_a_known_size_are_refused(tmp_path, tool):
    """Trap 15."""
    write_clips(tmp_path / "clips", planted.SIZE[::-1])
    file = planted.files_of(tmp_path, tool)[0]
    with pytest.raises(RawDataError, match=r"'size': .* ignored the clip's rotation"):
        run(tmp_path, file)
