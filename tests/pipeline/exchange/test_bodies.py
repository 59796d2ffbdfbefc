"""Results of body estimators: files of exactly the tools' keys and containers, of a planted scene."""

import os
import pickle
import zlib
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest

from pipeline.errors import RawDataError, UnsafePickle
from pipeline.exchange.bodies.projection import NOTED, REFUSED, fit
from pipeline.exchange.bodies.tools import FOCAL, Estimate, clip_of, pinhole, read_estimates
from tests.hostile import Call
from tests.pipeline.exchange import planted_bodies as planted


def smpl(person: int = 0) -> Estimate:
    """The planted person, exactly."""
    frames = np.arange(planted.N)
    pose = planted.pose(person)
    return Estimate("WHAM", "0", frames, pose, planted.betas(person), planted.trans(person))


@pytest.mark.parametrize("tool", ["wham", "vibe", "phalp"])
def test_bodies_of_each_tool_are_the_planted_ones(tmp_path: Path, tool: str) -> None:
    people = read_estimates(planted.write(tmp_path, tool))
    assert len(people) == 2
    for person, estimate in enumerate(people):
        rows = estimate.frames
        turned = np.abs(estimate.pose[:, 3:] - planted.pose(person)[rows, 3:])
        assert turned.max() < 1e-5
        assert np.abs(estimate.betas - planted.betas(person)[rows]).max() < 1e-5
        expected = planted.trans(person)[rows]
        margin = 1.1 if tool == "vibe" else 1.0
        if tool != "phalp":  # whose depth is that of its focal length
            assert np.abs(estimate.position(planted.SIZE, margin) - expected).max() < 1e-3


def test_gvhmr_is_one_person_of_smplx(tmp_path: Path) -> None:
    (estimate,) = read_estimates(planted.write(tmp_path, "gvhmr"))
    assert estimate.is_smplx
    assert estimate.pose.shape == (planted.N, 66)
    assert estimate.size == planted.SIZE
    assert estimate.trans is not None
    assert np.abs(estimate.trans - planted.trans(0)).max() < 1e-5


def test_the_mid_hip_of_whams_world_is_not_taken_for_a_translation(tmp_path: Path) -> None:
    """Trap 1."""
    people = read_estimates(planted.write(tmp_path, "wham"))
    assert people[0].trans is not None
    assert people[0].trans[:, 2].max() < 6


def test_ghosts_of_phalp_are_counted_and_left_out(tmp_path: Path) -> None:
    """Trap 5, and the size of its README, which is height and width (trap 6)."""
    first, second = read_estimates(planted.write(tmp_path, "phalp"))
    assert (len(first.frames), len(second.frames)) == (planted.N, planted.N - 3)
    assert second.dropped == {"ghost": 3}
    assert first.size == planted.SIZE


def test_phalp_is_far_away_by_its_own_focal_length(tmp_path: Path) -> None:
    """Trap 7."""
    first, _ = read_estimates(planted.write(tmp_path, "phalp"))
    focal = FOCAL / 256 * max(planted.SIZE)
    assert np.allclose(first.camera(planted.SIZE), pinhole(focal, planted.SIZE))
    assert first.position(planted.SIZE)[:, 2].min() > 50


@pytest.mark.parametrize(("margin", "of"), [(1.1, "VIBE"), (1.0, "TCMR")])
def test_the_margin_of_the_crop_is_told_by_projection(
    tmp_path: Path, margin: float, of: str
) -> None:
    """Trap 10."""
    file = planted.write(tmp_path, "vibe", planted.vibe(margin))
    found = fit(read_estimates(file)[0], planted.keypoints(0), planted.BODY, planted.SIZE)
    assert (found.margin, found.cause) == (margin, ""), of
    assert found.distance < 0.01


def test_repeated_frames_of_a_variable_rate_count_once(tmp_path: Path) -> None:
    frames = np.r_[0, 0, np.arange(planted.N - 2)]
    file = planted.write(tmp_path, "wham", planted.wham(frame_ids=np.sort(frames)))
    first = read_estimates(file)[0]
    assert (np.diff(first.frames) > 0).all()
    assert first.dropped == {"repeated_frame": 2}


def test_right_bodies_lie_on_the_people() -> None:
    found = fit(smpl(), planted.keypoints(0), planted.BODY, planted.SIZE)
    assert (found.cause, found.margin) == ("", 1.0)
    assert found.distance < 1e-4


@pytest.mark.parametrize(
    ("cause", "refused"),
    [("mid-hip", False), ("SMPL-X", False), ("shifted by +2", False), ("focal length", True),
     ("of the size", True)],
)  # fmt: skip
def test_each_planted_error_is_found_with_its_name(cause: str, refused: bool) -> None:
    right = smpl()
    seen = planted.keypoints(0)
    joints = planted.BODY.posed_joints(right.pose, right.betas)[0]
    assert right.trans is not None
    wrong = {
        "mid-hip": replace(right, trans=right.trans + joints[:, 8]),
        "SMPL-X": replace(right, trans=right.trans - [0, -0.12, -0.02]),
        "shifted by +2": replace(right, frames=right.frames - 2),
        "focal length": replace(right, intrinsics=pinhole(1.8 * planted.DIAGONAL, planted.SIZE)),
        "of the size": replace(
            right, intrinsics=np.diag([0.5, 0.5, 1]) @ pinhole(planted.DIAGONAL, planted.SIZE)
        ),
    }[cause]
    found = fit(wrong, seen, planted.BODY, planted.SIZE)
    assert cause in found.cause
    assert found.distance > (REFUSED if refused else NOTED)


def test_a_lying_body_of_another_frame_has_no_known_cause() -> None:
    """Trap 3: values of the world under the camera's name."""
    right = smpl()
    lying = right.pose.copy()
    lying[:, :3] = [0, 0, np.pi / 2]
    found = fit(replace(right, pose=lying), planted.keypoints(0), planted.BODY, planted.SIZE)
    assert found.distance > NOTED


def test_the_clip_is_the_folder_or_phalps_file_up_to_the_first_dot() -> None:
    """Trap 11."""
    assert clip_of(Path("results/walk/hmr4d_results.pt"), "GVHMR") == "walk"
    assert clip_of(Path("results/demo_walk.v2.pkl"), "PHALP") == "walk"


@pytest.mark.parametrize(
    ("content", "owner"),
    [
        ({"people": {}, "camera_world": {}}, "PromptHMR"),
        ({"root_pos": 0, "root_rot": 0, "dof_pos": 0}, "robot"),
        ({"a": {"pose_aa": 0, "root_trans_offset": 0}}, "PHC"),
        ({0: {"poses_body": 0, "frame_id": 0}}, "wham_api"),
        ({"x": 1}, "a dict with x"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: object, owner: str) -> None:
    file = tmp_path / "results.pkl"
    joblib.dump(content, file)
    with pytest.raises(RawDataError, match=owner):
        read_estimates(file)


@pytest.mark.parametrize("compress", [False, True])
def test_no_code_of_a_file_runs(tmp_path: Path, compress: bool) -> None:
    ran = tmp_path / "ran"
    content = pickle.dumps({1: {"pose": Call(os.mkdir, str(ran))}}, 4)
    file = tmp_path / "wham_output.pkl"
    file.write_bytes(zlib.compress(content) if compress else content)
    with pytest.raises(UnsafePickle):
        read_estimates(file)
    assert not ran.exists()


def test_torchs_file_runs_no_code_either(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    file = planted.write(tmp_path, "gvhmr", {"smpl_params_incam": Call(os.mkdir, str(ran))})
    with pytest.raises(RawDataError):
        read_estimates(file)
    assert not ran.exists()


@pytest.mark.parametrize(
    "content", [zlib.compress(bytes(10_000_000), 9), b"\x78\x9c", b"", b"GIF8"]
)
def test_files_of_zeros_and_cut_ones_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "demo_walk.pkl"
    file.write_bytes(content)
    with pytest.raises(RawDataError):
        read_estimates(file)
