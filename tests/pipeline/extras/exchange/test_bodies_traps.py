"""Errors that results of body estimators have in practice: each is planted in a file, and its
import names it.
"""

import numpy as np
import pytest

import cache
from pipeline.errors import RawDataError
from pipeline.extras.exchange.bodies.matching import NOTED, REFUSED, SMPLX_PELVIS
from pipeline.people.cameras import compose
from pipeline.people.skeletons import JOINTS
from tests.pipeline.extras.exchange import planted_bodies as planted
from tests.pipeline.extras.exchange.planted_bodies import NAME, run, write_clips

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
    "the mid-hip's place is taken for a translation": ("wham", lambda: moved(mid_hip)),
    "a body of SMPL-X is taken for SMPL's": ("wham", lambda: moved(lambda _: -SMPLX_PELVIS)),
    "a body of SMPL is taken for SMPL-X's": (
        "gvhmr",
        lambda: planted.gvhmr(transl=planted.trans(0)),
    ),
    "frames are shifted by +2": ("wham", lambda: some_frames(slice(2, None))),
    "frames are shifted by -2": ("wham", lambda: shifted(2)),
    "the clip was read at 0.5 of its rate": ("wham", lambda: some_frames(slice(None, None, 2))),
    "images had 0.50 of the size": ("vibe", resized),
    "the tool ignored the clip's rotation flag": ("wham", turned),
}


def message_of(tmp_path, file):
    """What an import says of a file."""
    write_clips(tmp_path / "clips")
    try:
        return "; ".join(run(tmp_path, file).notes["walk.mp4"])
    except RawDataError as error:
        assert not cache.FeatureCache(tmp_path / "c").is_committed(NAME)
        return str(error)


@pytest.mark.parametrize("cause", PLANTED)
def test_a_planted_error_is_found_with_its_name(tmp_path, cause):
    tool, content = PLANTED[cause]
    message = message_of(tmp_path, planted.write(tmp_path, tool, content()))
    assert message.count("likely: ") == message.count(cause) > 0, message


@pytest.mark.parametrize(("times", "refused"), [(1.2, False), (1.6, True), (0.5, True)])
def test_another_focal_length_is_found_with_its_size(tmp_path, times, refused):
    camera = planted.tram_camera(focal=planted.DIAGONAL * times)
    file = planted.write_tram(tmp_path, None, camera)[0]
    message = message_of(tmp_path, file)
    assert f"likely: the focal length is {times:.2f} of it" in message
    assert ("'projection'" in message) == refused


@pytest.mark.parametrize("tool", ["phalp", "gvhmr", "prompthmr"])
def test_right_files_have_no_cause(tmp_path, tool):
    message = message_of(tmp_path, planted.write(tmp_path, tool))
    assert "likely" not in message
    assert ("person 8: 3 of 12 estimates left out: ghost" in message) == (tool == "phalp")
    assert NOTED < REFUSED


@pytest.mark.parametrize("tool", ["tram", "phalp", "gvhmr", "prompthmr"])
def test_turned_pictures_of_a_known_size_are_refused(tmp_path, tool):
    """Trap 15."""
    write_clips(tmp_path / "clips", planted.SIZE[::-1])
    file = planted.files_of(tmp_path, tool)[0]
    with pytest.raises(RawDataError, match=r"'size': .* ignored the clip's rotation"):
        run(tmp_path, file)
