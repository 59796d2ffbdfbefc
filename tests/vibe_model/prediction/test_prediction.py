"""Windows over tracks, predictions of every frame, smoothing in time, and the files of it."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from cache import CropPolicy, Jitter
from pipeline.errors import ConfigError, DataError
from pipeline.files.places import file_name
from tests.vibe_model.builders import MemorySplit, small_vibe
from vibe_model.prediction.predict import _smooth, _smooth_rotations, predict_tracks
from vibe_model.prediction.windows import ModelStreams, Present, select_tracks
from vibe_model.vibe.networks import Estimate


def cover(split, drop_last=False):
    present = Present.from_split(split, ModelStreams("resnet50"))
    planned = [present.windows(track, seqlen=4, drop_last=drop_last) for track in split.tracks]
    windows = [window for of_track in planned for window in of_track]
    return windows, [
        row for window in windows for row in range(window.used_start, window.used_stop)
    ]


def test_every_frame_is_predicted_once_and_windows_do_not_cross_tracks_gaps_or_rows_without_features():
    windows, rows = cover(MemorySplit(0, [8, 9, 3, 1, 5], gaps=[10]))
    assert rows == list(range(26))
    assert max(window.input.stop - window.input.start for window in windows) == 4
    windows, rows = cover(MemorySplit(0, [6, 6], gaps=[3], lacking=[8]))
    assert rows == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    assert {w.input[:2] for w in windows} == {(0, 3), (3, 6), (6, 8), (9, 12)}


def test_the_published_windows_drop_each_tracks_last_frames_and_ignore_gaps():
    split = MemorySplit(0, [9, 3, 8], gaps=[2], lacking=[17])
    assert cover(split, drop_last=True)[1] == [*range(8), *range(12, 16)]
    # Smoothing still knows which of these frames are neighbours.
    present = Present.from_split(split, ModelStreams("resnet50"))
    assert present.runs(np.array([*range(8), *range(12, 16)])).tolist() == [
        0,
        0,
        *[1] * 6,
        *[2] * 4,
    ]
    assert present.runs(np.array([], np.int64)).tolist() == []
    assert cover(MemorySplit(0, [8], lacking=range(8)), drop_last=True) == ([], [])


@pytest.fixture
def split():
    """Tracks of 9, 3 and 6 frames; frames are missing before row 4, row 10 has no features, video 2
    has no size.
    """
    split = MemorySplit(0, [9, 3, 6], gaps=[4], lacking=[10])
    split.videos[2].width = 0
    return split


@pytest.fixture
def model():
    model = small_vibe()
    torch.nn.init.normal_(model.regressor.decpose.weight)  # fresh parameters hardly move the body
    return model


def predict(model, split, smooth=0.0, tracks="*", **settings):
    chosen = select_tracks(split, tracks)
    found = predict_tracks(
        model, split, chosen, streams=ModelStreams("resnet50"), **{"seqlen": 4, **settings}
    )
    return {bodies.track.name: bodies.smooth_time(smooth) for (bodies,) in found}


def test_every_frame_with_features_is_predicted_once_with_its_place_in_the_source(model, split):
    found = predict(model, split)
    assert found["v0/0"].frame_index.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert found["v0/0"].run.tolist() == [0] * 4 + [1] * 5
    assert found["v1/0"].run.tolist() == [0, 1]
    for prediction in found.values():
        assert_array_equal(prediction.bbox, split.bbox[prediction.rows])
    assert [p.picture for p in found.values()] == [(320, 240), (320, 240), None]


def test_a_predictions_box_is_what_the_network_saw_and_jittered_crops_are_refused(model, split):
    split.crop = CropPolicy(scale=0.5)
    for prediction in predict(model, split).values():
        assert_array_equal(prediction.bbox, split.bbox[prediction.rows] * [1, 1, 0.5, 0.5])
    split.crop = CropPolicy(jitter=Jitter(copy=1))
    with pytest.raises(DataError, match="randomly moved"):
        predict(model, split)


def test_a_prediction_is_the_networks_output_for_its_window(model, split):
    read = lambda *window: torch.as_tensor(split.read([window], fields=("features",))["features"])  # noqa: E731
    found = predict(model, split)["v0/0"]
    model.eval()
    with torch.no_grad():
        whole, moved_back = model.regress(read(4, 8)), model.regress(read(5, 9))
    for name in Estimate._fields:
        expected = torch.cat((getattr(whole, name)[0], getattr(moved_back, name)[0, -1:])).numpy()
        assert_allclose(getattr(found, name)[4:], expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_neither_the_batch_nor_the_other_tracks_change_a_prediction(model, split, batch_size):
    alone = predict(model, split, tracks="v2/*", batch_size=batch_size)
    assert list(alone) == ["v2/0"]
    together = predict(model, split, batch_size=3)["v2/0"]
    for name in ("rotmat", "shape", "camera"):
        assert_allclose(getattr(alone["v2/0"], name), getattr(together, name), atol=1e-5)


def test_tracks_are_read_when_they_are_asked_for_and_training_can_go_on_between_two(model, split):
    read, rows = split.read, []
    split.read = lambda windows, **given: (
        rows.extend(np.asarray(windows)[:, 1]),
        read(windows, **given),
    )[1]
    tracks = predict_tracks(
        model, split, split.tracks, streams=ModelStreams("resnet50"), seqlen=4, batch_size=1
    )
    next(tracks)
    assert max(rows) == 9
    assert model.training
    next(tracks)
    assert max(rows) == 12


def test_predictions_that_are_not_finite_are_refused_with_the_track(model, split):
    with torch.no_grad():
        model.regressor.deccam.bias[0] = float("nan")
    with pytest.raises(DataError, match="v0/0"):
        predict(model, split)


def one_run(n):
    return np.zeros(n, np.int64)


def gaussian_weights(n, frame, sigma):
    """Of all n frames for one of them, from the definition: cut at 4 sigma, normalised over what is
    there.
    """
    away = np.arange(n) - frame
    weights = np.where(np.abs(away) <= np.ceil(4 * sigma), np.exp(-0.5 * (away / sigma) ** 2), 0)
    return weights / weights.sum()


def rotations(seed, *shape):
    return Rotation.random(int(np.prod(shape)), random_state=seed).as_matrix().reshape(*shape, 3, 3)


@pytest.mark.parametrize(("n", "sigma"), [(1, 2.0), (2, 5.0), (7, 0.4), (7, 1.0), (12, 40.0)])
def test_every_frame_is_the_normalised_gaussian_mean_of_its_segment(n, sigma):
    values = default_rng(n).normal(size=(n, 2, 3))
    expected = [np.tensordot(gaussian_weights(n, frame, sigma), values, 1) for frame in range(n)]
    assert_allclose(_smooth(values, one_run(n), sigma), expected, atol=1e-12)


def test_the_mean_of_rotations_is_scipys_chordal_mean():
    rotmat = rotations(3, 5, 2)
    smoothed = _smooth_rotations(rotmat, one_run(5), 1.2)
    for frame in range(5):
        for joint in range(2):
            expected = (
                Rotation.from_matrix(rotmat[:, joint])
                .mean(gaussian_weights(5, frame, 1.2))
                .as_matrix()
            )
            assert_allclose(smoothed[frame, joint], expected, atol=1e-9)


def test_smoothed_predictions_keep_their_type_and_their_segments(model, split):
    raw, smoothed = (predict(model, split, smooth=sigma)["v0/0"] for sigma in (0, 1.5))
    for part in (slice(0, 4), slice(4, 9)):
        alone = one_run(len(raw.rows[part]))
        assert_array_equal(smoothed.rotmat[part], _smooth_rotations(raw.rotmat[part], alone, 1.5))
        for name in ("shape", "camera"):
            expected = _smooth(getattr(raw, name)[part], alone, 1.5)
            assert_array_equal(getattr(smoothed, name)[part], expected)
    assert smoothed.rotmat.dtype == smoothed.camera.dtype == np.float32
    assert _smooth_rotations(raw.rotmat[:0], one_run(0), 2.0).shape == (0, 24, 3, 3)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_a_sigma_that_is_none_is_refused(sigma):
    for function, values in ((_smooth, np.zeros((3, 1))), (_smooth_rotations, rotations(0, 3))):
        with pytest.raises(ConfigError, match="0 or more"):
            function(values, one_run(3), sigma)


def test_an_npz_holds_everything_for_other_tools_and_no_pickle(model, split, tmp_path):
    found = predict(model, split, smooth=1.0)
    path = found["v0/0"].save(tmp_path / "a", model, about={"fingerprint": "0123"})
    assert [path] == list((tmp_path / "a").iterdir())
    with np.load(path, allow_pickle=False) as file:
        held = dict(file)
    about = json.loads(str(held.pop("about")))
    assert (about["track"], about["stand_in"], about["fingerprint"]) == ("v0/0", True, "0123")
    assert (about["picture"], about["crop_scale"]) == ([320, 240], 1.3)
    shapes = {name: rows.shape[1:] for name, rows in held.items()}
    assert shapes == {
        "theta": (85,),
        "pose": (72,),
        "betas": (10,),
        "camera": (3,),
        "bbox": (4,),
        "camera_in_picture": (4,),
        "joints_2d": (49, 2),
        "joints_3d": (49, 3),
        "frame_index": (),
        "run": (),
        "rotmat": (24, 3, 3),
    }
    assert {rows.dtype.name for rows in held.values()} == {"float32", "int64"}
    assert_array_equal(
        held["theta"], np.concatenate([held["camera"], held["pose"], held["betas"]], axis=1)
    )
    posed = model.body(betas=torch.as_tensor(held["betas"]), rotmat=torch.as_tensor(held["rotmat"]))
    assert_allclose(held["joints_3d"], posed.joints.numpy(), atol=1e-5)
    with np.load(found["v2/0"].save(tmp_path, model)) as unsized:
        assert "camera_in_picture" not in unsized.files


def test_a_track_of_many_frames_is_posed_in_parts(model, tmp_path):
    found = predict(model, MemorySplit(0, [150]))["v0/0"]
    posed = model.body(betas=torch.as_tensor(found.shape), rotmat=torch.as_tensor(found.rotmat))
    with np.load(found.save(tmp_path, model)) as held:
        assert_allclose(held["joints_3d"], posed.joints, atol=1e-5)


names = st.text('aAbB0 /\\.-_~:*?"<>|\0\nÄäßİıſKﬁ漢😀', max_size=300)


@given(names, names)
@settings(max_examples=50)
@example("a/b/0", "A/B/0")
@example("a_b_0", "a\\b/0")
@example("../a/b/0", "a/b/0 ")
@example("con", "CON")
def test_any_track_has_a_file_name_that_any_file_system_takes_and_no_other_track_has(one, other):
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.npz", file_name(one, ".npz"))
    assert len(file_name(one, ".npz")) < 120
    assert (file_name(one, ".npz").lower() == file_name(other, ".npz").lower()) == (one == other)
