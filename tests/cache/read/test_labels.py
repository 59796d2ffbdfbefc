"""Labels of a batch: what is known, in the coordinates that training takes, and 0 elsewhere."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import cache
from tests.cache import toy
from tests.cache.toy import split_of


class TestLabels:
    def test_each_window_takes_its_own_tracks_crop_scale(self, tmp_path):
        entry, (first, second) = toy.video("a", 4, 4)
        second = replace(second, crop_scale=2.6, columns=first.columns)
        toy.write(tmp_path, [(entry, [first, second])])
        kp_2d = toy.opened(tmp_path).read([[0, 4], [4, 8]], stream=None)["kp_2d"]
        assert_allclose(kp_2d[0, ..., :2], 2 * kp_2d[1, ..., :2], rtol=1e-6)


def plainly(columns, name, scale):
    """One label field (n, ...) of n rows, written down as DESIGN.md defines it, without regard to
    speed.
    """
    n_rows = len(columns["frame_index"])
    zero = np.float32(0)
    with np.errstate(all="ignore"):
        if name == "kp_2d":
            if "kp_2d" not in columns or "bbox" not in columns:
                return np.zeros((n_rows, 49, 3), "f4")
            kp_2d, bbox = columns["kp_2d"], columns["bbox"][:, None]
            place = 2 * (kp_2d[..., :2] - bbox[..., :2]) / (bbox[..., 2:] * np.float32(scale))
            there = (kp_2d[..., 2:] > 0) & np.isfinite(place).all(axis=-1, keepdims=True)
            return np.where(there, np.concatenate([place, kp_2d[..., 2:]], axis=-1), zero)
        if name == "kp_3d" and "kp_3d_eval" in columns:
            return np.where(np.isfinite(columns["kp_3d_eval"]), columns["kp_3d_eval"], zero)
        has_3d = columns.get("has_3d", np.zeros(n_rows, "u1"))
        has_smpl = columns.get("has_smpl", np.zeros(n_rows, "u1"))
        kp_3d = columns.get("kp_3d", np.zeros((n_rows, 49, 4), "f4"))
        known = (kp_3d[..., 3] > 0) & (has_3d == 1)[:, None]
        if name == "w_kp_3d":
            return known.astype("f4")
        if name == "kp_3d":
            return np.where(known[..., None], kp_3d[..., :3], zero)
        if name == "w_3d" and "kp_3d_eval" in columns:
            flag = columns["has_3d"] != 0 if "has_3d" in columns else True
            return (np.isfinite(columns["kp_3d_eval"]).all(axis=(1, 2)) & flag).astype("f4")
        if name == "w_3d":
            return known[:, 25:39].all(axis=-1).astype("f4")
        pose, betas = (
            columns.get(key, np.full((n_rows, k), np.nan, "f4"))
            for key, k in (("pose", 72), ("betas", 10))
        )
        smpl = np.concatenate([pose, betas], axis=1)
        known_smpl = np.isfinite(smpl).all(axis=1) & (has_smpl == 1)
        if name == "theta":
            camera = np.tile(np.array([1, 0, 0], "f4"), (n_rows, 1))
            return np.concatenate([camera, np.where(known_smpl[:, None], smpl, zero)], axis=1)
        if name == "w_smpl":
            return known_smpl.astype("f4")
        return (columns["valid"] != 0).astype("f4") if "valid" in columns else np.ones(n_rows, "f4")


HOSTILE = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -3e38, 3e38, 1.0, -2.5], np.float32)


def hostile_columns(names, rng, n_rows):
    """Columns in which many numbers are NaN, infinite, zeros of either sign, tiny or huge."""
    columns = {"frame_index": np.arange(n_rows)}
    for name in sorted(names - {"frame_index"}):
        spec = cache.COLUMNS[name]
        shape = (n_rows, *spec.shape)
        if spec.dtype.kind == "f":
            usual = rng.normal(size=shape).astype("f4")
            # rows that hold any at all
            some = rng.random((n_rows, *(1 for _ in spec.shape))) < 0.5
            columns[name] = np.where(
                some & (rng.random(shape) < 0.1), rng.choice(HOSTILE, shape), usual
            )
        else:
            columns[name] = (rng.random(n_rows) < 0.7).astype("u1")
    return columns


@settings(max_examples=7, deadline=None)
@given(
    names=st.frozensets(
        st.sampled_from(["kp_2d", "bbox", "kp_3d", "kp_3d_eval", "pose", "betas", "valid"])
    ),
    seed=st.integers(0, 2**32 - 1),
    given_out=st.booleans(),
)
def test_labels_are_to_the_bit_what_their_definition_says(tmp_path_factory, names, seed, given_out):
    flag_of = {"kp_3d": "has_3d", "pose": "has_smpl", "betas": "has_smpl"}
    flags = {flag for label, flag in flag_of.items() if label in names}
    columns = hostile_columns(names | flags, np.random.default_rng(seed), n_rows=40)
    split = split_of(tmp_path_factory.mktemp("labels"), columns, crop_scale=1.1)
    windows = [[0, 9], [31, 40], [5, 14], [5, 14]]  # shards of 32 rows and chunks of 8 are crossed
    n_3d = 14 if "kp_3d_eval" in names else 49
    shapes = {
        "kp_2d": (49, 3),
        "kp_3d": (n_3d, 3),
        "theta": (85,),
        "w_3d": (),
        "w_smpl": (),
        "valid": (),
    }
    out = (
        {name: np.full((4, 9, *shape), np.nan, "f4") for name, shape in shapes.items()}
        if given_out
        else None
    )
    batch = split.read(windows, stream=None, out=out)
    for name in shapes:
        field = plainly(columns, name, 1.1)
        expected = np.stack([field[start:stop] for start, stop in windows])
        assert batch[name].dtype == expected.dtype == np.float32
        assert batch[name].tobytes() == expected.tobytes(), name
        alone = split.read(windows, stream=None, fields=[name])[name]
        assert alone.tobytes() == expected.tobytes(), name
    weights = split.read(windows, stream=None, fields=["w_kp_3d"])["w_kp_3d"]
    expected = plainly(columns, "w_kp_3d", 1.1)
    assert weights.tobytes() == np.stack([expected[a:b] for a, b in windows]).tobytes()
    assert ("kp_3d_eval" in batch) is ("kp_3d_eval" in names)
    if "kp_3d_eval" in names:
        assert batch["kp_3d_eval"].tobytes() == batch["kp_3d"].tobytes()
        own = {"kp_3d_eval": np.full((4, 9, 14, 3), np.nan, "f4")}
        split.read(windows, stream=None, fields=["kp_3d_eval"], out=own)
        assert own["kp_3d_eval"].tobytes() == batch["kp_3d"].tobytes()
