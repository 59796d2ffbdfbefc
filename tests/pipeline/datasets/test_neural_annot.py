"""SMPL bodies that NeuralAnnot fitted to MPI-INF-3DHP."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cache
from pipeline.conversion import convert, plan
from pipeline.conversion.kept import kept_now
from pipeline.errors import PipelineError
from tests.pipeline.datasets.test_mpi_inf_3dhp import (
    MPI,
    TEST_JOINTS,
    TRAIN_JOINTS,
    N,
    raw,
    read,
    write_annot,
)

__all__ = ["raw"]  # a fixture

TURNED = Rotation.from_rotvec([[0.3, -1.2, 0.5], [0, 1, 2]]).as_matrix()  # two cameras of a world
SHIFTED = np.array([[10.0, 200, 3500], [-300, 50, 4000]])  # mm
NATIVE = [next(n for n, joint in TRAIN_JOINTS.items() if joint == theirs) for theirs in TEST_JOINTS]


def fit_of(frame: int) -> dict[str, Any]:
    rng = np.random.default_rng(frame)
    return {"pose": rng.normal(0, 0.4, 72), "shape": rng.normal(0, 1, 10)}


def plant_fits(raw: Path, frames: Any = range(N), **changes: Any) -> None:
    """A walking person in a world with two cameras, 0 and 1; the release has the first one's
    labels.

    Without changes, the files agree with it. joints, trans: change the numbers of all frames; late:
    frames that they are counted too late. unknown: first frames whose labels are NaN.
    """
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.normal(30, 10, (30, 1, 3)), axis=0)  # mm: two frames are 50 mm apart
    world = rng.normal(0, 300, (28, 3)) + walk
    labels = (world @ TURNED[0].T + SHIFTED[0])[:N]
    labels[: changes.get("unknown", 0)] = np.nan
    write_annot(raw, kp_3d=labels)
    scale, moved = changes.get("joints", 1), changes.get("trans", lambda x: x)
    late, late_fits = changes.get("late", 0), changes.get("late_fits", 0)
    joints = {frame + late: (scale * world[frame][NATIVE]).tolist() for frame in range(30)}
    fits = {}
    for frame in frames:
        pelvis = world[frame][NATIVE[14]] / 1000
        trans = moved(np.add(pelvis, (0.02, 0.25, -0.03)))
        fits[frame + late_fits] = {
            k: v.tolist() for k, v in (fit_of(frame) | {"trans": trans}).items()
        }
    order = changes.get("order", (0, 1))
    cameras = {
        str(k): {
            "R": TURNED[c].tolist(),
            "t": SHIFTED[c].tolist(),
            "focal": [75, 75],
            "princpt": [50, 25],
        }
        for k, c in enumerate(order)
    }
    for name, content in (("SMPL_NeuralAnnot", fits), ("joint_3d", joints), ("camera_1k", cameras)):
        (raw / f"MPI-INF-3DHP_{name}.json").write_text(json.dumps({"1": {"2": {}, "1": content}}))


def test_neural_annots_fits_become_bodies_in_the_camera_for_the_rows_that_have_one(
    raw: Path,
) -> None:
    before = read(raw)[0][0]
    plant_fits(raw, frames=(0, 1, 3))
    (track,), account = read(raw)
    assert track.frame_index[track.has_smpl].tolist() == [0, 1, 3]
    for row in (0, 1, 3):
        fit = fit_of(row)
        expected = TURNED[0] @ Rotation.from_rotvec(fit["pose"][:3]).as_matrix()
        np.testing.assert_allclose(
            Rotation.from_rotvec(track.pose[row, :3]).as_matrix(), expected, atol=1e-6
        )
        np.testing.assert_allclose(track.pose[row, 3:], fit["pose"][3:], rtol=1e-6)
        np.testing.assert_allclose(track.betas[row], fit["shape"], rtol=1e-6)
    assert np.isnan(track.pose[~track.has_smpl]).all()
    assert account["notes"] == ["2 of the kept frames have no SMPL fit"]
    np.testing.assert_array_equal(track.bbox, before.bbox)
    np.testing.assert_array_equal(track.kp_2d, before.kp_2d)
    assert (before.pose, before.has_smpl) == (None, None)


def test_a_single_fit_that_is_elsewhere_is_no_label(raw: Path) -> None:
    """In the median frame, all are at the labels."""
    plant_fits(raw)
    for name, frame, keys in (("SMPL_NeuralAnnot", "1", ("trans",)), ("joint_3d", "3", ())):
        file = raw / f"MPI-INF-3DHP_{name}.json"
        content = json.loads(file.read_text())
        entry = content["1"]["1"]
        for key in keys:
            entry[frame][key] = [5.0, 5.0, 5.0]
        if not keys:
            entry[frame] = (np.array(entry[frame]) + 100).tolist()  # mm
        file.write_text(json.dumps(content))
    (track,), account = read(raw)
    assert track.frame_index[~track.has_smpl].tolist() == [1, 3]
    assert account["notes"] == ["2 of the kept frames have no SMPL fit"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"order": (1, 0)}, ("camera_1k.json, camera: that of 1 fits", "video_0")),
        (
            {"order": (1, 0), "unknown": 1},
            ("camera_1k.json, camera: that of 1 fits", "video_0"),
        ),
        ({"joints": 0.001}, ("joint_3d.json, unit: m fit",)),
        ({"late": 1}, ("joint_3d.json, frame numbers: the labels of -1 fit",)),
        ({"late_fits": 1}, ("SMPL_NeuralAnnot.json: 'S1/Seq1'", "other frame numbers: -1")),
        (
            {"trans": lambda metres: metres * 1000},
            ("SMPL_NeuralAnnot.json: 'S1/Seq1'", "another unit"),
        ),
    ],
)
def test_fits_of_a_wrong_camera_unit_or_frame_are_refused_by_name(
    raw: Path, changes: Any, words: Any
) -> None:
    plant_fits(raw, frames=range(1, 25), **changes)
    (track,), account = read(raw)
    (note,) = account["notes"]
    assert note.startswith("SMPL fits are not used: ")
    assert all(word in note for word in words), note
    n = N - changes.get("unknown", 0)
    assert (track.has_smpl.any(), len(track.frame_index)) == (False, n)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("joint_3d", None, "joint_3d.json: expected a file, found no such file. Put it back."),
        (
            "camera_1k",
            None,
            "camera_1k.json: expected JSON, found no such file. Put NeuralAnnot's three files",
        ),
        ("joint_3d", '{"1": {"1": {"0": ' + "[" * 1_000_000 + "}}}", "RecursionError"),
        ("joint_3d", '{"1": ' * 1_000_000, "found other lists"),
        ("SMPL_NeuralAnnot", '{"1": {"1": {"0": {"pose": [1]}}}}', "KeyError: 'shape'"),
        (
            "camera_1k",
            '{"1": {"1": {"0": {"R": [1], "t": [1, 2, 3]}}}}',
            "'0/R': expected numbers of shape (3, 3)",
        ),
    ],
)
def test_damaged_fits_cost_the_bodies_alone(
    raw: Path, name: str, content: str | None, told: str
) -> None:
    plant_fits(raw)
    file = raw / f"MPI-INF-3DHP_{name}.json"
    file.unlink() if content is None else file.write_text(content)
    (track,), account = read(raw)
    assert (told in account["notes"][0], track.has_smpl.any(), len(track.frame_index)) == (
        True,
        False,
        N,
    )


@pytest.mark.usefixtures("network")
def test_fits_that_arrive_later_are_read_keep_features_and_may_not_go(
    raw: Path, tmp_path: Path, into: Any
) -> None:
    root, name = tmp_path / "cache", "mpi_inf_3dhp/train"

    def conversion() -> plan.ConversionPlan:
        return plan.plan_conversion(MPI, "train", raw=raw, root=root)

    plain = conversion()
    convert.convert(plain)
    assert into.extract(root, name).computed == N
    assert "shared" not in plain.reader
    plant_fits(raw)
    late = conversion()
    assert late.why == "shared was not set, is fits NeuralAnnot"
    convert.convert(late)
    assert {"pose", "betas", "has_smpl"} <= set(cache.open(root)[name].columns)
    assert kept_now(cache.open(root)[name]) == {}
    again = into.extract(root, name)
    assert (again.computed, again.carried) == (0, N)
    assert conversion().up_to_date
    plant_fits(raw, frames=(2,))  # corrected
    assert conversion().why == "1 changed video"
    (raw / "MPI-INF-3DHP_SMPL_NeuralAnnot.json").unlink()
    with pytest.raises(
        PipelineError, match=r"other columns, betas, has_smpl, pose\. .* Restore the label files"
    ):
        conversion()
