import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cache
from pipeline.crops import normalise_keypoints
from vibe_model import VIBE
from vibe_model.errors import ConfigError, DataError
from vibe_model.evaluation.predictions import (
    TrackPrediction,
    camera_in_picture,
    file_name,
    in_picture,
    predict_tracks,
    save_npz,
)
from vibe_model.evaluation.smoothing import smooth, smooth_rotations
from vibe_model.networks.generator import Estimate

LENGTHS = {"s1/walking 1/0": 9, "s1/walking 1/1": 3, "s2/a:b/0": 6}
UNDECODABLE = [10]  # of the rows


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Tracks with every second frame of the source; the first one lacks frames 8 to 18."""
    root, random = tmp_path_factory.mktemp("cache"), np.random.default_rng(0)
    with cache.SplitWriter(root, "a/test", columns=["frame_index", "bbox", "kp_2d"], plan="test") as writer:
        writer.begin()
        for video in ("s1/walking 1", "s2/a:b"):
            tracks = []
            for name, n in LENGTHS.items():
                frames = 100 + 2 * np.arange(n) + 12 * (np.arange(n) >= 4)
                columns = {
                    "frame_index": frames if name == "s1/walking 1/0" else 2 * np.arange(n),
                    "bbox": np.float32(random.uniform(80, 120, (n, 4)) * [1, 1, 1, 0] + [0, 0, 0, 1]),
                    "kp_2d": np.float32(random.uniform(60, 140, (n, 49, 3)) * [1, 1, 0.005]),
                }
                columns["bbox"][:, 3] = columns["bbox"][:, 2]
                facts = {"video": video, "step": 2, "fps": 50.0, "crop_scale": 1.2}
                if name.startswith(video):
                    tracks.append(cache.TrackRows(name=name, columns=columns, **facts))
            size = {"width": 640, "height": 480} if video == "s1/walking 1" else {}
            writer.append(cache.VideoEntry(name=video, **size), tracks)
        writer.commit({"stand_in": True})
    with cache.StreamWriter(root, "a/test", "tiny", dim=6, plan="test") as features:
        for shard in features.pending:
            n = len(features.rows(shard))
            ok = ~np.isin(np.arange(n), UNDECODABLE)
            features.write(shard, random.normal(size=(n, 6)), ok, np.zeros((n, 2), np.uint64))
        features.commit({"stand_in": True})
    return cache.open(root)["a/test"]


@pytest.fixture
def model(body):
    torch.manual_seed(0)
    model = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7)
    torch.nn.init.normal_(model.regressor.decpose.weight)  # a start of its own would hardly move
    return model


def predict(model, split, **settings):
    return {p.name: p for p in predict_tracks(model, split, stream="tiny", **{"seqlen": 4, **settings})}


def test_every_frame_with_features_is_predicted_once_and_knows_its_place_in_the_source(model, split):
    found = predict(model, split)
    assert list(found) == list(LENGTHS)
    assert np.concatenate([p.rows for p in found.values()]).tolist() == [r for r in range(18) if r != 10]
    first, second, _ = found.values()
    assert first.frame_index.tolist() == [100, 102, 104, 106, 120, 122, 124, 126, 128]
    assert first.run.tolist() == [0] * 4 + [1] * 5
    assert (second.frame_index.tolist(), second.run.tolist()) == ([0, 4], [0, 1])
    boxes = split.column("bbox")[:]
    for prediction in found.values():
        np.testing.assert_array_equal(prediction.bbox, boxes[prediction.rows])
        assert prediction.crop_scale == 1.2
    assert [p.picture for p in found.values()] == [(640, 480), (640, 480), None]


def test_a_prediction_is_what_the_network_says_of_its_window(model, split):
    features = torch.as_tensor(split.read([(4, 8)], stream="tiny", fields=("features",))["features"])
    tail = torch.as_tensor(split.read([(5, 9)], stream="tiny", fields=("features",))["features"])
    found = predict(model, split)["s1/walking 1/0"]
    model.eval()
    with torch.no_grad():
        whole, moved_back = model.regress(features), model.regress(tail)
    for name in Estimate._fields:
        expected = torch.cat((getattr(whole, name)[0], getattr(moved_back, name)[0, -1:])).numpy()
        np.testing.assert_allclose(getattr(found, name)[4:], expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_neither_the_batch_nor_the_other_tracks_change_a_prediction(model, split, batch_size):
    alone = predict(model, split, tracks="s2/*", batch_size=batch_size)
    assert list(alone) == ["s2/a:b/0"]
    together = predict(model, split, batch_size=3)["s2/a:b/0"]
    for name in ("rotmat", "shape", "camera"):
        np.testing.assert_allclose(getattr(alone["s2/a:b/0"], name), getattr(together, name), atol=1e-5)


def test_the_published_way_leaves_out_each_tracks_last_frames_and_tracks_without_a_window(model, split):
    found = predict(model, split, drop_last=True)
    assert {name: p.rows.tolist() for name, p in found.items()} == {
        "s1/walking 1/0": list(range(8)),
        "s2/a:b/0": [12, 13, 14, 15],
    }


def test_tracks_are_predicted_as_they_are_asked_for(model, split, monkeypatch):
    read, rows = type(split).read, []

    def counting(self, windows, **settings):
        rows.extend(np.asarray(windows)[:, 1].tolist())
        return read(self, windows, **settings)

    monkeypatch.setattr(type(split), "read", counting)
    tracks = predict_tracks(model, split, stream="tiny", seqlen=4, batch_size=1)
    next(tracks)
    assert max(rows) == 9
    assert model.training  # whoever goes on training between two tracks is not disturbed
    next(tracks)
    assert max(rows) == 12


def test_smoothing_stays_within_a_stretch_of_neighbours(model, split):
    raw, smoothed = (predict(model, split, smooth=sigma)["s1/walking 1/0"] for sigma in (0, 1.5))
    for part in (slice(0, 4), slice(4, 9)):
        alone = np.zeros(len(raw.rows[part]), np.int64)
        np.testing.assert_array_equal(smoothed.rotmat[part], smooth_rotations(raw.rotmat[part], alone, 1.5))
        for name in ("shape", "camera"):
            values = getattr(raw, name)[part]
            np.testing.assert_array_equal(getattr(smoothed, name)[part], smooth(values, alone, 1.5))
    with pytest.raises(ConfigError, match="0 or more"):
        predict(model, split, smooth=-1)


def test_a_damaged_model_is_told_of_by_the_track(model, split):
    with torch.no_grad():
        model.regressor.deccam.bias[0] = float("nan")
    with pytest.raises(DataError, match="s1/walking 1/0: expected finite predictions"):
        predict(model, split)


def test_the_camera_of_the_picture_shows_a_point_where_the_crop_shows_it():
    random = np.random.default_rng(0)
    camera = random.uniform([0.5, -0.2, -0.2], [1.2, 0.2, 0.2], (5, 3))
    box = np.concatenate([random.uniform(50, 400, (5, 2)), np.repeat(random.uniform(80, 200, (5, 1)), 2, 1)], 1)
    points = random.normal(size=(5, 7, 2))
    in_crop = camera[:, None, :1] * (points + camera[:, None, 1:])
    expected = box[:, None, :2] + in_crop * 1.3 * box[:, None, 2:] / 2
    whole = camera_in_picture(camera, box, (640, 480), crop_scale=1.3)
    shown = whole[:, None, :2] * (points + whole[:, None, 2:])  # [-1, 1] over the picture
    np.testing.assert_allclose((shown + 1) / 2 * (640, 480), expected, rtol=1e-5)


def test_a_camera_that_sees_nothing_has_finite_numbers_too():
    assert np.isfinite(camera_in_picture(np.zeros((1, 3)), np.ones((1, 4)), (640, 480), crop_scale=1.0)).all()


def test_keypoints_go_back_to_where_the_crop_took_them_from():
    random = np.random.default_rng(1)
    kp_2d, side = random.uniform(0, 500, (4, 49, 3)), random.uniform(50, 300, (4, 1))
    box = np.concatenate([random.uniform(0, 500, (4, 2)), side, side], axis=1)
    in_crop = normalise_keypoints(kp_2d, box, scale=1.2)[..., :2]
    np.testing.assert_allclose(in_picture(in_crop, box, crop_scale=1.2), kp_2d[..., :2], rtol=1e-5)


def test_an_npz_holds_everything_for_other_tools_and_no_pickle(model, split, tmp_path):
    found = predict(model, split)
    path = save_npz(tmp_path / "a", found["s1/walking 1/0"], model, about={"fingerprint": "0123"})
    assert [path] == list((tmp_path / "a").iterdir())
    with np.load(path, allow_pickle=False) as file:
        held = dict(file)
    about = json.loads(str(held.pop("about")))
    assert (about["track"], about["stand_in"], about["fingerprint"]) == ("s1/walking 1/0", True, "0123")
    assert about["units"].keys() == held.keys()
    assert (about["picture"], about["crop_scale"]) == ([640, 480], 1.2)
    shapes = {"theta": (85,), "rotmat": (24, 3, 3), "pose": (72,), "betas": (10,), "camera": (3,), "bbox": (4,)}
    shapes |= {"joints_3d": (49, 3), "joints_2d": (49, 2), "camera_in_picture": (4,), "frame_index": (), "run": ()}
    assert {name: array.shape for name, array in held.items()} == {name: (9, *rest) for name, rest in shapes.items()}
    kinds = {name: array.dtype for name, array in held.items()}
    assert {name for name, dtype in kinds.items() if dtype == np.int64} == {"frame_index", "run"}
    assert {str(dtype) for dtype in kinds.values()} == {"float32", "int64"}
    np.testing.assert_array_equal(held["theta"], np.concatenate([held["camera"], held["pose"], held["betas"]], axis=1))


def test_the_joints_of_an_npz_are_those_of_its_rotations(model, split, tmp_path):
    prediction = predict(model, split, smooth=1.0)["s2/a:b/0"]
    with np.load(save_npz(tmp_path, prediction, model)) as held:
        assert "camera_in_picture" not in held.files  # nobody knows how large this video's pictures are
        posed = model.body(betas=torch.as_tensor(held["betas"]), rotmat=torch.as_tensor(held["rotmat"]))
        np.testing.assert_allclose(held["joints_3d"], posed.joints.numpy(), atol=1e-5)
        # The weak perspective is the limit of the projection far away: a body is small against its distance.
        scale, shift = held["camera"][:, None, :1], held["camera"][:, None, 1:]
        near = in_picture(scale * (held["joints_3d"][..., :2] + shift), prediction.bbox, crop_scale=1.2)
        assert np.abs(held["joints_2d"] - near).max() < 0.1 * prediction.bbox[:, 2].max()
        assert np.abs(held["joints_2d"] - prediction.bbox[:, None, :2]).max() > 1


def test_a_track_of_many_frames_is_posed_in_parts(model, tmp_path):
    n = 150
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        estimate = model.eval().regress(torch.randn(1, n, 6, generator=random))
    rotmat, shape, camera = (array[0].numpy() for array in estimate)
    rows = np.arange(n)
    box = np.tile(np.float32([50, 50, 20, 20]), (n, 1))
    facts = {"name": "long", "rows": rows, "frame_index": rows, "run": rows * 0, "bbox": box, "crop_scale": 1.0}
    path = save_npz(tmp_path, TrackPrediction(rotmat=rotmat, shape=shape, camera=camera, **facts), model)
    with np.load(path) as held:
        expected = model.pose(estimate)["kp_3d"][0].detach().numpy()
        np.testing.assert_allclose(held["joints_3d"], expected, atol=1e-5)


def test_the_same_prediction_is_the_same_file(model, split, tmp_path):
    prediction = predict(model, split)["s2/a:b/0"]
    one, other = (save_npz(tmp_path / name, prediction, model).read_bytes() for name in "ab")
    assert one == other


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_track_has_a_file_name_that_any_file_system_takes_and_no_other_track_has(one, other):
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.npz", file_name(one))
    assert len(file_name(one)) < 120
    assert (file_name(one).lower() == file_name(other).lower()) == (one == other)


def test_tracks_that_differ_only_by_case_or_slashes_have_files_of_their_own():
    names = ["a/b/0", "A/B/0", "a_b_0", "a\\b/0", "../a/b/0", "a/b/0 ", "con", "CON"]
    assert len({file_name(name).lower() for name in names}) == len(names)
