"""SMPL bodies that NeuralAnnot fitted to MPI-INF-3DHP."""

from unittest.mock import Mock

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cache
from pipeline.files.formats import sequences
from pipeline.steps.conversion import convert
from tests.fixtures import planned
from tests.pipeline.datasets.by_hand import require
from tests.pipeline.datasets.label_files import edit_labels
from tests.pipeline.datasets.made_mpi_inf_3dhp import MPI, TURNED, N, fit_of, plant_fits, raw, read
from tests.raising import pipeline_refuses, raw_refuses

__all__ = ["raw"]  # a fixture


@pytest.mark.promise("problems of MPI-INF-3DHP")
def test_neural_annots_fits_become_bodies_in_the_camera_for_the_rows_that_have_one(raw):
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
    assert account["notes"] == ["3 of the kept frames have no SMPL fit"]
    np.testing.assert_array_equal(track.bbox, before.bbox)
    np.testing.assert_array_equal(track.kp_2d, before.kp_2d)
    assert (before.pose, before.has_smpl) == (None, None)


def test_a_single_fit_that_is_elsewhere_is_no_label(raw):
    """In the median frame, all are at the labels."""
    plant_fits(raw)

    def move_fit(fits):
        fits["1"]["1"]["1"]["trans"] = [5.0, 5.0, 5.0]

    def move_joints(joints):
        joints["1"]["1"]["3"] = (np.array(joints["1"]["1"]["3"]) + 100).tolist()  # mm

    for name, move in (("SMPL_NeuralAnnot", move_fit), ("joint_3d", move_joints)):
        edit_labels(raw / f"MPI-INF-3DHP_{name}.json", move)
    (track,) = require(read(raw), notes=["2 of the kept frames have no SMPL fit"])
    assert track.frame_index[~track.has_smpl].tolist() == [1, 3]


@pytest.mark.promise("problems of MPI-INF-3DHP")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"order": (1, 0)}, ("camera_1k.json, camera: that of 1 fits", "video_0")),
        ({"joints": 0.001}, ("joint_3d.json, unit: m fit",)),
        ({"late": 1}, ("joint_3d.json, frame numbers: the labels of -1 fit",)),
        ({"late_fits": 1}, ("SMPL_NeuralAnnot.json: 'S1/Seq1'", "other frame numbers: -1")),
        (
            {"trans": lambda metres: metres * 1000},
            ("SMPL_NeuralAnnot.json: 'S1/Seq1'", "another unit"),
        ),
    ],
)
def test_fits_of_a_wrong_camera_unit_or_frame_are_refused_by_name(raw, changes, words):
    plant_fits(raw, frames=range(1, 25), **changes)
    (track,), account = read(raw)
    (note,) = account["notes"]
    assert note.startswith("SMPL fits are not used: ")
    assert all(word in note for word in words), note
    assert (track.has_smpl.any(), len(track.frame_index)) == (False, N)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("joint_3d", None, "joint_3d.json: expected a file, found no such file. Put it back."),
        ("joint_3d", '{"1": {"1": {"0": ' + "[" * 1_000_000 + "}}}", "RecursionError"),
        ("SMPL_NeuralAnnot", '{"1": {"1": {"0": {"pose": [1]}}}}', "KeyError: 'shape'"),
        (
            "camera_1k",
            '{"1": {"1": {"0": {"R": [1], "t": [1, 2, 3]}}}}',
            "'0/R': expected numbers of shape (3, 3)",
        ),
    ],
)
def test_damaged_fits_cost_the_bodies_alone(raw, name, content, told):
    plant_fits(raw)
    file = raw / f"MPI-INF-3DHP_{name}.json"
    file.unlink() if content is None else file.write_text(content)
    (track,), account = read(raw)
    assert (told in account["notes"][0], track.has_smpl.any(), len(track.frame_index)) == (
        True,
        False,
        N,
    )


def test_a_damaged_file_is_searched_once_for_all_of_its_sequences(tmp_path, monkeypatch):
    file = tmp_path / "joints.json"
    file.write_text('{"1": {"1": {"0": 1}, "2": {"0": 1}')
    search = Mock(wraps=sequences._scan_braces)
    monkeypatch.setattr(sequences, "_scan_braces", search)
    for inner in (1, 2):
        with raw_refuses("found a file that ends early"):
            sequences.load_sequence(file, sequences.SequenceKeys(1, inner), "levels", do="")
    assert search.call_count == 1


@pytest.mark.usefixtures("network")
def test_fits_that_arrive_later_are_read_keep_features_and_may_not_go(raw, tmp_path, into):
    root, name, n_rows = tmp_path / "cache", "mpi_inf_3dhp/train", 4 * N

    def conversion():
        return planned(MPI, "train", raw=raw, root=root)

    plain = conversion()
    convert.convert(plain)
    assert into.extract(root, name).computed == n_rows
    assert "shared" not in plain.reader
    plant_fits(raw)
    late = conversion()
    assert late.why == "shared was not set, is fits NeuralAnnot"
    convert.convert(late)
    assert {"pose", "betas", "has_smpl"} <= set(cache.open(root)[name].columns)
    assert conversion().losses == {}
    again = into.extract(root, name)
    assert (again.computed, again.carried) == (0, n_rows)
    assert conversion().up_to_date
    plant_fits(raw, frames=(2,))  # corrected
    assert conversion().why == "4 changed videos"
    (raw / "MPI-INF-3DHP_SMPL_NeuralAnnot.json").unlink()
    with pipeline_refuses(r"other columns, betas, has_smpl, pose\. .* Restore the label files"):
        conversion()
