"""Rows that lack some of the 14 3D joints are trained on; what lacks none is trained on as before."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from cache.read.labels import SOME_3D
from pipeline.grades.sums import sums_of
from tests import made_splits
from tests.pipeline.extras.exchange import planted_bodies as planted
from tests.pipeline.extras.exchange.made_sam_3d_body import save_all
from tests.vibe_model.builders import FEATURE_SIZE, MemorySplit, TinyBody
from tests.vibe_model.training.conftest import write
from tests.vibe_model.training.tiny_runs import curves, hmmr_config, vibe_config
from vibe_model import runs
from vibe_model.hmmr import training as hmmr_training
from vibe_model.training import video
from vibe_model.training.data import TrainingBatches


@pytest.mark.parametrize(
    ("make", "loss"), [(vibe_config, "train/kp_3d"), (hmmr_config, "train/joints")]
)
def test_joints_of_sam_3d_body_alone_are_trained_on(make, loss, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "load_body", lambda folder: TinyBody())
    monkeypatch.setattr(hmmr_training, "POSE_SIZE", 8)
    planted.write_clips(tmp_path / "clips")
    planted.run(tmp_path, save_all(tmp_path, "pkl"))
    root = tmp_path / "c"
    values = np.random.default_rng(0).normal(size=(100, FEATURE_SIZE)).astype(np.float32)
    form = {"dim": FEATURE_SIZE, "dtype": "float32"}
    made_splits.write_stream(root, planted.NAME, "resnet50", values.__getitem__, **form)
    for name in ("b/validation", "m/train"):
        write(root, name, [9], dtype="float32")
    parts = {"datasets_2d": (), "datasets_3d": (planted.NAME,), "evaluation": ()}
    config = replace(
        make(tmp_path), **parts, cache=root, iterations=40, epochs=1, lr_generator=1e-3
    )
    found = curves(video.run(config))
    losses = [value for (_, tag), value in sorted(found.items()) if tag == loss]
    assert 0 < np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5]), losses


def write_joints(root, name, known, *, is_counted=True):
    """A split of a track with features whose 3D joints are these (8, 49)."""
    made = MemorySplit(3, [8])
    flags = np.ones(8, np.uint8)
    columns = {"frame_index": np.arange(8), "bbox": made.bbox, "kp_2d": made.rows["kp_2d"]}
    kp_3d = np.dstack([made.rows["kp_3d"], known]).astype(np.float32)
    track = made_splits.track_of("v/0", columns | {"kp_3d": kp_3d, "has_3d": flags})
    entry = cache.VideoEntry(name="v", sums=sums_of([track]) if is_counted else {})
    made_splits.write_split(root, name, [(entry, [track])])
    values = made.rows["features"].astype(np.float16)
    made_splits.write_stream(root, name, "resnet50", values.__getitem__, dim=FEATURE_SIZE)


def test_weights_of_joints_are_read_and_runs_renamed_only_where_rows_lack_some(mixed, tmp_path):
    """`kp_3d` of b/train is complete, then with a joint less, which an earlier version has not
    counted, then counted.
    """
    known = np.ones((8, 49))
    lacking = known.copy()
    lacking[:, 38] = 0  # the head's top
    batches, names = [], []
    for number, (joints, is_counted) in enumerate(
        [(known, False), (known, True), (lacking, False), (lacking, True)]
    ):
        root = tmp_path / f"{number}"
        for name in ("a/train", "c/train", "m/train"):
            write(root, name, [12])
        write_joints(root, "b/train", joints, is_counted=is_counted)
        assert (SOME_3D in (cache.open(root)["b/train"].manifest.get("sums", {}))) is (number == 3)
        config = replace(mixed, cache=root, datasets_3d=("b/train",))
        batches.append(TrainingBatches(config, runs.open_splits(config))[0].labels)
        names.append(runs.fingerprint(config, runs.open_splits(config)))
    assert ["w_kp_3d" in labels for labels in batches] == [False, False, False, True]
    weights = batches[3]["w_kp_3d"]
    assert not weights[: mixed.windows_2d].any()  # which have 3D joints, too
    assert_array_equal(weights[mixed.windows_2d :], np.broadcast_to(lacking[0], (2, 4, 49)))
    assert not batches[3]["w_3d"].any()
    assert names[2] != names[3]
