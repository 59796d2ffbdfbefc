"""The body's files: what they must hold, what is refused, and the marks of the procedural body."""

import functools
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from pipeline.errors import MissingAssets, RawDataError, UnsafePickle
from pipeline.formats.pickles import load_pickle
from pipeline.raw.stand_in import MARKER
from pipeline.smpl import assets
from pipeline.synthetic.body import procedural


@pytest.fixture
def written(embedded: Any) -> Path:
    """The procedural body's folder. Only to be read."""
    return Path(embedded.body)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; only the neutral model."""
    for file in written.iterdir():
        if file.name not in ("SMPL_MALE.pkl", "SMPL_FEMALE.pkl"):
            shutil.copy(file, tmp_path / file.name)
    return tmp_path


@functools.cache
def neutral(written: Path) -> dict[str, Any]:
    """What the neutral model's file holds."""
    return load_pickle(written / "SMPL_NEUTRAL.pkl", kind="smpl")


@pytest.fixture
def change(written: Path, folder: Path) -> Callable[..., None]:
    """change(key=value, ...): write the neutral model again with other values; None removes a key."""

    def change(**changes: Any) -> None:
        model = {key: value for key, value in {**neutral(written), **changes}.items() if value is not None}
        (folder / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(model, 4))  # bytes as they are, which is quick

    return change


def test_the_procedural_bodys_files_are_read_by_the_loader_for_real_ones(written: Path) -> None:
    for gender in assets.GENDERS:
        made, read = procedural(gender), assets.load(written, gender)
        for field in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "parents", "faces"):
            np.testing.assert_array_equal(getattr(read, field), getattr(made, field), err_msg=field)
            assert getattr(read, field).dtype == getattr(made, field).dtype
    for field in ("J_regressor_extra", "J_regressor_h36m", "mean_pose", "mean_shape", "mean_cam"):
        np.testing.assert_array_equal(getattr(read, field), getattr(procedural(), field), err_msg=field)
    assert read.posedirs.dtype == np.float32
    assert read.parents[:5].tolist() == [-1, 0, 0, 0, 1]


def test_only_ten_of_three_hundred_shape_directions_are_used(folder: Path, change: Callable[..., None]) -> None:
    shapedirs = np.tile(np.arange(300, dtype=np.float32), (6890, 3, 1))
    change(shapedirs=shapedirs)
    np.testing.assert_array_equal(assets.load(folder).shapedirs, shapedirs[..., :10])


def test_an_npz_model_serves_as_well_as_a_pickle(folder: Path, written: Path) -> None:
    expected = assets.load(folder)
    model = neutral(written)
    (folder / "SMPL_NEUTRAL.pkl").unlink()
    np.savez(folder / "SMPL_NEUTRAL.npz", **model | {"J_regressor": model["J_regressor"].toarray()})
    read = assets.load(folder)
    np.testing.assert_array_equal(read.J_regressor, expected.J_regressor)
    assert read.stand_in


def test_all_that_is_missing_is_named_with_where_to_get_it(folder: Path) -> None:
    (folder / "SMPL_NEUTRAL.pkl").unlink()
    (folder / assets.REGRESSOR_H36M).unlink()
    assert assets.missing(folder) == ["SMPL_NEUTRAL.pkl (or .npz)", "J_regressor_h36m.npy"]
    for what in (assets.load, assets.digest):
        with pytest.raises(MissingAssets) as error:
            what(folder)
        for word in (str(folder), "SMPL_NEUTRAL.pkl", "J_regressor_h36m.npy", "smpl.is.tue.mpg.de", "nkolot/SPIN"):
            assert word in str(error.value)
        assert "python -m pipeline synthesize" in str(error.value)


def test_a_gender_that_is_not_there_is_missing_and_an_unknown_one_a_mistake(folder: Path) -> None:
    assert assets.missing(folder, "male") == ["SMPL_MALE.pkl (or .npz)"]
    with pytest.raises(MissingAssets, match=r"SMPL_MALE\.pkl"):
        assets.load(folder, "male")
    (folder / "SMPL_NEUTRAL.pkl").rename(folder / "SMPL_MALE.pkl")
    assert assets.load(folder, "male").digest == assets.digest(folder, "male")[0]
    with pytest.raises(ValueError, match="neutral, male, female"):
        assets.load(folder, "other")


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
def test_a_key_of_the_wrong_kind_is_named_with_what_was_expected(
    folder: Path, change: Callable[..., None], key: str, value: Any
) -> None:
    change(**{key: value})
    with pytest.raises(RawDataError, match=rf"SMPL_NEUTRAL\.pkl: '{key}': expected .*, found .*\. Take the file"):
        assets.load(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, None) for name in (assets.REGRESSOR_EXTRA, assets.REGRESSOR_H36M, assets.MEAN_PARAMS)),
        *((assets.MEAN_PARAMS, content) for content in (b"", b"<html>", b"PK\x03\x04 not an archive")),
        (assets.REGRESSOR_EXTRA, b"\x93NUMPY\x01\x00"),
    ],
)
def test_a_file_that_is_no_array_is_named(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:  # Python objects
        with (folder / name).open("wb") as file:
            objects = np.array([{"a": 1}], object)
            np.savez(file, pose=objects) if name.endswith("z") else np.save(file, objects)
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(RawDataError, match=name):
        assets.load(folder)


def test_an_archive_instead_of_an_array_and_a_model_that_runs_code_are_refused(folder: Path) -> None:
    shutil.copy(folder / assets.MEAN_PARAMS, folder / assets.REGRESSOR_EXTRA)
    with pytest.raises(RawDataError, match=rf"{assets.REGRESSOR_EXTRA}.*found nothing"):
        assets.load(folder)
    (folder / "SMPL_NEUTRAL.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafePickle, match=r"SMPL_NEUTRAL\.pkl.*os\.system"):
        assets.load(folder)


def test_mean_parameters_may_have_a_leading_axis(folder: Path) -> None:
    mean = np.load(folder / assets.MEAN_PARAMS)
    np.savez(folder / assets.MEAN_PARAMS, **{key: value[None].astype(np.float32) for key, value in mean.items()})
    np.testing.assert_allclose(assets.load(folder).mean_pose, mean["pose"], atol=1e-6)


def test_either_mark_makes_a_procedural_body_and_neither_a_real_one(folder: Path, change: Callable[..., None]) -> None:
    assert assets.load(folder).stand_in
    (folder / MARKER).unlink()
    assert assets.load(folder).stand_in, "the key in the model file"
    change(stand_in=None)
    assert not assets.load(folder).stand_in
    (folder / MARKER).write_text("{}")
    assert assets.load(folder).stand_in, "the marker file"
    assert assets.digest(folder)[1]


def test_the_digest_follows_the_content_and_not_the_place_or_the_time(folder: Path, tmp_path_factory: Any) -> None:
    first, stand_in = assets.digest(folder)
    assert stand_in
    assert assets.load(folder).digest == first
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "body"
    shutil.copytree(folder, elsewhere)
    os.utime(elsewhere / "SMPL_NEUTRAL.pkl", ns=(1, 1))
    assert assets.digest(elsewhere)[0] == first
    cam = np.load(folder / assets.MEAN_PARAMS)
    np.savez(folder / assets.MEAN_PARAMS, pose=cam["pose"], shape=cam["shape"], cam=np.array([1.0, 0.0, 0.0]))
    assert assets.digest(folder)[0] != first


def test_the_digest_is_of_the_files_that_the_gender_needs(folder: Path) -> None:
    before = assets.digest(folder)
    model = (folder / "SMPL_NEUTRAL.pkl").read_bytes()
    (folder / "SMPL_MALE.pkl").write_bytes(model)
    (folder / "SMPL_NEUTRAL.npz").write_bytes(b"the .pkl is the one that is read")
    (folder / "README.txt").write_text("about the body")
    assert assets.digest(folder) == before
    male = assets.digest(folder, "male")
    (folder / "SMPL_NEUTRAL.pkl").write_bytes(model + b"more")
    assert assets.digest(folder) != before
    assert assets.digest(folder, "male") == male


@pytest.mark.parametrize(
    ("file", "ours", "theirs", "found"),
    [
        (assets.REGRESSOR_H36M, [1, 2, 3], [4, 5, 6], "lhip at x = -0.092 m"),  # legs: as in J_regressor_h36m_correct
        (assets.REGRESSOR_H36M, [1, 2, 3], [11, 12, 13], "at y ="),  # a leg and an arm of one side
        (assets.REGRESSOR_EXTRA, [0], [1], "lhip at x = -0.092 m"),
        ("SMPL_NEUTRAL.pkl", [1, 4, 7], [2, 5, 8], "lhip at x = -0.085 m"),
    ],
)
def test_a_regressor_of_another_joint_order_is_refused_by_geometry(
    folder: Path, change: Callable[..., None], file: str, ours: list[int], theirs: list[int], found: str
) -> None:
    model = file.endswith(".pkl")
    regressor = assets.load(folder).J_regressor if model else np.load(folder / file)
    regressor[ours + theirs] = regressor[theirs + ours]  # exchanged
    change(J_regressor=regressor) if model else np.save(folder / file, regressor)
    with pytest.raises(RawDataError, match=f"{file}.*{found}"):
        assets.load(folder)
