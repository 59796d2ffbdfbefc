"""The body's files: what they must hold, what is refused, and the marks of the procedural body."""

import functools
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from pipeline.errors import MissingAssets, UnsafePickle
from pipeline.extras.demo.body import procedural
from pipeline.files.formats.pickles import load_pickle
from pipeline.files.raw import MARKER
from pipeline.people.smpl_files import (
    GENDERS,
    MEAN_PARAMS,
    REGRESSOR_EXTRA,
    REGRESSOR_H36M,
    body_files,
    load,
    missing,
)
from tests.raising import raw_refuses


@pytest.fixture
def written(embedded):
    """The procedural body's folder. Only to be read."""
    return Path(embedded.body)


@pytest.fixture
def folder(written, tmp_path):
    """A copy that a test may change; only the neutral model."""
    for file in written.iterdir():
        if file.name not in ("SMPL_MALE.pkl", "SMPL_FEMALE.pkl"):
            shutil.copy(file, tmp_path / file.name)
    return tmp_path


@functools.cache
def neutral(written):
    """What the neutral model's file holds."""
    return load_pickle(written / "SMPL_NEUTRAL.pkl", kind="smpl")


@pytest.fixture
def change(written, folder):
    """change(key=value, ...): write the neutral model again with other values; None removes a
    key.
    """

    def change(**changes):
        model = {
            key: value
            for key, value in {**neutral(written), **changes}.items()
            if value is not None
        }
        # bytes as they are, which is quick
        (folder / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(model, 4))

    return change


def test_the_procedural_bodys_files_are_read_by_the_loader_for_real_ones(written):
    for gender in GENDERS:
        made, read = procedural(gender), load(written, gender)
        for field in (
            "v_template",
            "shapedirs",
            "posedirs",
            "J_regressor",
            "weights",
            "parents",
            "faces",
        ):
            assert_array_equal(getattr(read, field), getattr(made, field), err_msg=field)
            assert getattr(read, field).dtype == getattr(made, field).dtype
    for field in ("J_regressor_extra", "J_regressor_h36m", "mean_pose", "mean_shape", "mean_cam"):
        assert_array_equal(getattr(read, field), getattr(procedural(), field), err_msg=field)
    assert read.posedirs.dtype == np.float32
    assert read.parents[:5].tolist() == [-1, 0, 0, 0, 1]


def test_only_ten_of_three_hundred_shape_directions_are_used(folder, change):
    shapedirs = np.tile(np.arange(300, dtype=np.float32), (6890, 3, 1))
    change(shapedirs=shapedirs)
    assert_array_equal(load(folder).shapedirs, shapedirs[..., :10])


def test_an_npz_model_serves_as_well_as_a_pickle(folder, written):
    expected = load(folder)
    model = neutral(written)
    (folder / "SMPL_NEUTRAL.pkl").unlink()
    np.savez(folder / "SMPL_NEUTRAL.npz", **model | {"J_regressor": model["J_regressor"].toarray()})
    read = load(folder)
    assert_array_equal(read.J_regressor, expected.J_regressor)
    assert read.stand_in


def test_all_that_is_missing_is_named_with_where_to_get_it(folder):
    (folder / "SMPL_NEUTRAL.pkl").unlink()
    (folder / REGRESSOR_H36M).unlink()
    assert missing(folder) == ["SMPL_NEUTRAL.pkl (or .npz)", "J_regressor_h36m.npy"]
    for what in (load, body_files):
        with pytest.raises(MissingAssets) as error:
            what(folder)
        for word in (str(folder), "SMPL_NEUTRAL.pkl", "J_regressor_h36m.npy", "nkolot/SPIN"):
            assert word in str(error.value)


def test_a_gender_that_is_not_there_is_missing_and_an_unknown_one_a_mistake(folder):
    assert missing(folder, "male") == ["SMPL_MALE.pkl (or .npz)"]
    with pytest.raises(MissingAssets, match=r"SMPL_MALE\.pkl"):
        load(folder, "male")
    (folder / "SMPL_NEUTRAL.pkl").rename(folder / "SMPL_MALE.pkl")
    assert load(folder, "male").digest == body_files(folder, "male").digest
    with pytest.raises(ValueError, match="neutral, male, female"):
        load(folder, "other")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("v_template", None),
        ("v_template", np.full((6890, 3), np.nan)),
        ("v_template", "text"),
        ("posedirs", np.zeros((6890, 3, 459))),  # SMPL-H
        ("weights", np.zeros((10475, 55))),  # SMPL-X
        ("kintree_table", np.zeros((2, 24), np.uint32) + 23),
        ("f", np.full((13776, 3), 6890, np.uint32)),
        ("J_regressor", sparse.csc_matrix((2**40, 6890))),  # takes no memory
    ],
)
def test_a_key_of_the_wrong_kind_is_named_with_what_was_expected(folder, change, key, value):
    change(**{key: value})
    with raw_refuses(rf"SMPL_NEUTRAL\.pkl: '{key}': expected .*, found .*\. Take the file"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (REGRESSOR_H36M, None),
        (MEAN_PARAMS, None),
        (MEAN_PARAMS, b""),
        (MEAN_PARAMS, b"PK\x03\x04 not an archive"),
        (REGRESSOR_EXTRA, b"\x93NUMPY\x01\x00"),
    ],
)
def test_a_file_that_is_no_array_is_named(folder, name, content):
    if content is None:  # Python objects
        with (folder / name).open("wb") as file:
            objects = np.array([{"a": 1}], object)
            np.savez(file, pose=objects) if name.endswith("z") else np.save(file, objects)
    else:
        (folder / name).write_bytes(content)
    with raw_refuses(name):
        load(folder)


def test_an_archive_instead_of_an_array_and_a_model_that_runs_code_are_refused(folder):
    shutil.copy(folder / MEAN_PARAMS, folder / REGRESSOR_EXTRA)
    with raw_refuses(rf"{REGRESSOR_EXTRA}.*found only cam"):
        load(folder)
    (folder / "SMPL_NEUTRAL.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafePickle, match=r"SMPL_NEUTRAL\.pkl.*os\.system"):
        load(folder)


def test_mean_parameters_may_have_a_leading_axis(folder):
    mean = np.load(folder / MEAN_PARAMS)
    np.savez(
        folder / MEAN_PARAMS, **{key: value[None].astype(np.float32) for key, value in mean.items()}
    )
    assert_allclose(load(folder).mean_pose, mean["pose"], atol=1e-6)


def test_either_mark_makes_a_procedural_body_and_neither_a_real_one(folder, change):
    assert load(folder).stand_in
    (folder / MARKER).unlink()
    assert load(folder).stand_in, "the key in the model file"
    change(stand_in=None)
    assert not load(folder).stand_in
    (folder / MARKER).write_text("{}")
    assert load(folder).stand_in, "the marker file"
    assert body_files(folder).stand_in


def test_the_digest_follows_the_content_and_not_the_place_or_the_time(folder, tmp_path_factory):
    first, stand_in = body_files(folder)
    assert stand_in
    assert load(folder).digest == first
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "body"
    shutil.copytree(folder, elsewhere)
    os.utime(elsewhere / "SMPL_NEUTRAL.pkl", ns=(1, 1))
    assert body_files(elsewhere).digest == first
    cam = np.load(folder / MEAN_PARAMS)
    np.savez(
        folder / MEAN_PARAMS, pose=cam["pose"], shape=cam["shape"], cam=np.array([1.0, 0.0, 0.0])
    )
    assert body_files(folder).digest != first


def test_the_digest_is_of_the_files_that_the_gender_needs(folder):
    before = body_files(folder)
    model = (folder / "SMPL_NEUTRAL.pkl").read_bytes()
    (folder / "SMPL_MALE.pkl").write_bytes(model)
    (folder / "SMPL_NEUTRAL.npz").write_bytes(b"the .pkl is the one that is read")
    (folder / "README.txt").write_text("about the body")
    assert body_files(folder) == before
    male = body_files(folder, "male")
    (folder / "SMPL_NEUTRAL.pkl").write_bytes(model + b"more")
    assert body_files(folder) != before
    assert body_files(folder, "male") == male


@pytest.mark.parametrize(
    ("file", "ours", "theirs", "found"),
    [
        # legs, as in J_regressor_h36m_correct
        (REGRESSOR_H36M, [1, 2, 3], [4, 5, 6], "lhip at x = -0.092 m"),
        # a leg and an arm of one side
        (REGRESSOR_H36M, [1, 2, 3], [11, 12, 13], "at y ="),
        (REGRESSOR_EXTRA, [0], [1], "lhip at x = -0.092 m"),
        ("SMPL_NEUTRAL.pkl", [1, 4, 7], [2, 5, 8], "lhip at x = -0.085 m"),
    ],
)
def test_a_regressor_of_another_joint_order_is_refused_by_geometry(
    folder, change, file, ours, theirs, found
):
    model = file.endswith(".pkl")
    regressor = load(folder).J_regressor if model else np.load(folder / file)
    regressor[ours + theirs] = regressor[theirs + ours]  # exchanged
    change(J_regressor=regressor) if model else np.save(folder / file, regressor)
    with raw_refuses(f"{file}.*{found}"):
        load(folder)
