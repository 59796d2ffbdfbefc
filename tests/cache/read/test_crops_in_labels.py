"""Labels in the crop of the stream that is read: other boxes, and mirrored people."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal, assert_equal
from scipy.spatial.transform import Rotation

import cache
from cache import CropPolicy, Jitter
from cache.read import labels
from pipeline.people.boxes import normalise_keypoints
from pipeline.people.skeletons import JOINTS
from tests.bodies import the_body
from tests.cache import toy
from tests.raising import cache_refuses

POLICIES = {
    "usual": CropPolicy(size=256, region=(256, 192)),
    "wide.x2": CropPolicy(scale=2),
    "resnet50.j1": CropPolicy(jitter=Jitter(copy=1)),
    "resnet50.flipped": CropPolicy(jitter=Jitter(copy=2, trans_px=0, scale_log2=0, flip=1)),
}
N_TRACKS, LENGTH, CROP_SCALE = 24, 6, 1.3


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """24 tracks, of which a flip of 0.5 mirrors some; streams of all policies."""
    root = tmp_path_factory.mktemp("crops") / "cache"
    toy.add(root, "v", *[LENGTH] * N_TRACKS)
    for name, policy in POLICIES.items():
        toy.write_stream(
            root, stream=name, dim=1, identity={"kind": "any", "crop": policy.as_dict()}
        )
    return toy.opened(root)


def with_mirrored(root, columns):
    """A split of these columns, with a stream `j1` of mirrored people."""
    toy.split_of(root, columns | {"bbox": np.ones((8, 4), np.float32)})
    flip = CropPolicy(jitter=Jitter(copy=1, flip=1))
    toy.write_stream(root, stream="j1", identity={"crop": flip.as_dict()})
    return toy.opened(root)


def cut_out(split, policy):
    """Boxes and whether mirrored, of each row by itself."""
    found = []
    for track in split.tracks:
        bbox, frame = (
            split.rows(name, track.start, track.stop) for name in ("bbox", "frame_index")
        )
        keys = policy.seeds([track.name])
        found += [
            policy.boxes(b, np.float64(track.crop_scale), keys[0], f)
            for b, f in zip(bbox, frame, strict=True)
        ]
    return np.stack([box for box, _ in found]), np.array([flipped for _, flipped in found])


@pytest.mark.parametrize("stream", POLICIES)
def test_keypoints_are_those_of_the_policys_box(split, stream):
    assert split.open_stream(stream).crop == POLICIES[stream]
    boxes, flipped = cut_out(split, POLICIES[stream])
    windows = split.windows(LENGTH, LENGTH, stream)
    found = split.read(windows, stream, fields=["kp_2d"])["kp_2d"].reshape(-1, 49, 3)
    px = split.rows("kp_2d", 0, len(found))
    expected = normalise_keypoints(px.astype(np.float64), boxes, CROP_SCALE)
    expected[flipped] = labels.mirror("kp_2d", expected[flipped])
    assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert stream != "resnet50.j1" or 0 < flipped.sum() < len(flipped)
    # And back to the picture.
    found[flipped] = labels.mirror("kp_2d", found[flipped])
    back = boxes[:, None, :2] + found[..., :2] * (
        boxes[:, None, 2:].astype(np.float64) * CROP_SCALE / 2
    )
    assert_allclose(back, px[..., :2], atol=1e-4)


def test_the_mirrored_exchange_left_and_right_and_weights_stay(split):
    windows = split.windows(4, 2)
    plain, flipped = (split.read(windows, stream) for stream in (None, "resnet50.flipped"))
    for name in ("kp_2d", "kp_3d", "theta"):
        rows = plain[name].reshape(-1, *plain[name].shape[2:])
        assert_array_equal(flipped[name].reshape(rows.shape), labels.mirror(name, rows))
        twice = labels.mirror(name, labels.mirror(name, rows))
        assert_array_equal(twice, rows)
    for name in ("w_3d", "w_smpl", "valid"):
        assert_array_equal(flipped[name], plain[name])
    assert_equal(cache.mirror(plain), {name: flipped[name] for name in plain})
    tensors = {name: torch.from_numpy(rows[0]) for name, rows in plain.items()}
    for name, rows in cache.mirror(tensors).items():
        assert_array_equal(rows.numpy(), flipped[name][0])
    with pytest.raises(ValueError, match=r"features: .* leave the field out"):
        cache.mirror(flipped)
    assert (flipped["theta"][..., labels.BETAS] == plain["theta"][..., labels.BETAS]).all()
    jittered = split.read(windows, "resnet50.j1", fields=["theta"])["theta"]
    mirrored = cut_out(split, POLICIES["resnet50.j1"])[1][windows[:, 0]]
    assert_array_equal(
        jittered, np.where(mirrored[:, None, None], flipped["theta"], plain["theta"])
    )


def test_weights_of_joints_are_mirrored_with_them(tmp_path):
    kp_3d = np.random.default_rng(0).uniform(0.1, 1, (8, 49, 4)).astype(np.float32)
    kp_3d[..., 3] = np.random.default_rng(1).random((8, 49)) < 0.5
    right, left = (JOINTS["spin49"].index(name) for name in ("rwrist", "lwrist"))
    kp_3d[:, [right, left], 3] = 1, 0
    split = with_mirrored(tmp_path, {"kp_3d": kp_3d, "has_3d": np.ones(8, np.uint8)})
    plain, mirrored = (
        split.read([[0, 8]], stream, fields=["kp_3d", "w_kp_3d"]) for stream in (None, "j1")
    )
    for batch in (plain, mirrored):
        assert_array_equal(batch["w_kp_3d"] > 0, (batch["kp_3d"] != 0).any(axis=-1))
    assert plain["w_kp_3d"][0, :, [right, left]].tolist() == [[1] * 8, [0] * 8]
    assert mirrored["w_kp_3d"][0, :, [right, left]].tolist() == [[0] * 8, [1] * 8]
    assert_array_equal(cache.mirror(plain)["w_kp_3d"], mirrored["w_kp_3d"])


def test_hands_are_in_the_crop_and_change_sides_with_it(tmp_path):
    """Fingers of the left hand are twice as long; each hand begins at its arm's wrist."""
    rng = np.random.default_rng(0)
    kp_2d = rng.uniform(100, 300, (8, 49, 3)).astype(np.float32)
    kp_2d[..., 2] = 0.5
    wrists = [JOINTS["spin49"].index(name) for name in ("lwrist", "rwrist")]
    directions = rng.normal(size=(8, 2, 21, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions[..., :2], axis=-1, keepdims=True)
    lengths = np.array([20, 10])[:, None, None] * (np.arange(21) > 0)[:, None]
    hands = kp_2d[:, wrists, None] + (lengths * directions).astype(np.float32)
    hands[..., 2] = rng.uniform(0.1, 1, (8, 2, 21))
    hands[2, 1] = 0
    hands = hands.reshape(8, 42, 3)
    bbox = np.array([[200, 210, 150 + 10 * t, 150 + 10 * t] for t in range(8)], np.float32)
    toy.split_of(tmp_path, {"kp_2d": kp_2d, "kp_2d_hands": hands, "bbox": bbox})
    flip = CropPolicy(jitter=Jitter(copy=1, trans_px=0, scale_log2=0, flip=1))
    toy.write_stream(tmp_path, stream="j1", identity={"crop": flip.as_dict()})
    split = cache.open(tmp_path)["toy/train"]
    fields = ["kp_2d", "kp_2d_hands"]
    plain, mirrored = (
        {name: rows[0] for name, rows in split.read([[0, 8]], stream, fields=fields).items()}
        for stream in (None, "j1")
    )
    expected = normalise_keypoints(hands.astype(np.float64), bbox, split.tracks[0].crop_scale)
    expected[2, 21:] = 0
    assert_allclose(plain["kp_2d_hands"], expected, rtol=1e-5, atol=1e-5)
    for batch, longer in ((plain, 0), (mirrored, 1)):
        of_hands = batch["kp_2d_hands"].reshape(8, 2, 21, 3)
        is_absent = ~of_hands.any(axis=(2, 3))
        assert np.argwhere(is_absent).tolist() == [[2, 1 - longer]]
        seen = np.delete(of_hands, 2, axis=0)
        at_wrists = np.delete(batch["kp_2d"][:, wrists, :2], 2, axis=0)
        assert_allclose(seen[:, :, 0, :2], at_wrists, atol=1e-6)
        ways = np.linalg.norm(seen[:, :, 1:, :2] - seen[:, :, :1, :2], axis=-1)
        assert_allclose(ways[:, longer], 2 * ways[:, 1 - longer], rtol=1e-4)
    assert_array_equal(cache.mirror(plain)["kp_2d_hands"], mirrored["kp_2d_hands"])


def test_the_first_of_several_streams_decides_and_none_leaves_labels_as_they_are(
    split,
):
    windows = split.windows(4, 2)
    usual = split.read(windows, None)["kp_2d"]
    for streams, same_as in (
        (("usual", "resnet50.j1"), None),
        (("resnet50.j1", "usual"), "resnet50.j1"),
        ((), None),
    ):
        several = split.read(windows, streams=streams)["kp_2d"]
        assert_array_equal(several, split.read(windows, same_as)["kp_2d"])
    assert_array_equal(split.read(windows, "usual")["kp_2d"], usual)
    # This split has no resnet50, which is the default; a stream that is named must be there.
    assert_array_equal(split.read(windows, fields=["kp_2d"])["kp_2d"], usual)
    with cache_refuses("no feature stream 'resnet50'"):
        split.read(windows, "resnet50", fields=["kp_2d"])
    assert (split.read(windows, "resnet50", fields=["valid"])["valid"] == 1).all()


def test_the_14_joints_of_evaluation_splits_are_mirrored_too(tmp_path):
    joints = np.random.default_rng(0).normal(size=(8, 14, 3)).astype(np.float32)
    joints[2, 5] = np.nan
    split = with_mirrored(tmp_path, {"kp_3d_eval": joints})
    batch = split.read([[0, 8]], "j1", fields=["kp_3d", "w_3d"])
    names = JOINTS["common14"]
    left, right = names.index("lwrist"), names.index("rwrist")
    assert_array_equal(batch["kp_3d"][0, :, left], joints[:, right] * [-1, 1, 1])
    assert batch["w_3d"][0].tolist() == [1, 1, 0, 1, 1, 1, 1, 1]
    alone = split.read([[0, 8]], "j1", fields=["kp_3d_eval"])["kp_3d_eval"]
    assert alone.tobytes() == batch["kp_3d"].tobytes()
    assert not np.signbit(
        batch["kp_3d"][0, 2, names.index("lankle")] + batch["kp_3d"][0, 2, 0]
    ).any()


@pytest.mark.parametrize("theta_first", [True, False])
def test_columns_of_a_mirrored_stream_are_the_body_of_theta_and_where_it_is(tmp_path, theta_first):
    rng = np.random.default_rng(0)
    sizes = {"pose": 72, "betas": 10, "trans": 3}
    columns = {name: rng.normal(size=(8, n)).astype(np.float32) for name, n in sizes.items()}
    columns["trans"][5] = np.nan
    split = with_mirrored(tmp_path, columns | {"has_smpl": np.ones(8, np.uint8)})
    names = [*columns]
    fields = ["theta", *names] if theta_first else [*names, "theta"]
    batch = split.read([[0, 8]], "j1", fields=fields)
    assert_array_equal(
        batch["theta"][..., 3:], np.concatenate([batch["pose"], batch["betas"]], axis=-1)
    )
    assert np.abs(batch["pose"][0] - columns["pose"]).max() > 0.1
    assert_array_equal(batch["trans"][0], columns["trans"] * np.float32([-1, 1, 1]))
    plain = split.read([[0, 8]], stream=None, fields=["trans"])["trans"]
    assert_array_equal(plain[0], columns["trans"])


def test_a_policy_of_a_later_version_is_refused_by_name(tmp_path):
    toy.write(tmp_path, toy.videos()[:1])
    toy.write_stream(tmp_path, identity={"crop": {"rotation": 30}})
    split = toy.opened(tmp_path)
    with cache_refuses(r"resnet50/manifest\.json.*rotation"):
        split.read([[0, 4]])
    assert split.read([[0, 4]], fields=["features"])["features"].shape == (1, 4, 4)


def test_a_mirrored_pose_is_the_mirrored_body():
    rng = np.random.default_rng(0)
    theta = np.zeros((5, 85), np.float32)
    theta[:, labels.POSE] = rng.normal(0, 0.4, (5, 72))
    theta[:, labels.BETAS] = rng.normal(0, 1, (5, 10))
    flipped = labels.mirror("theta", theta)
    body, joints = the_body(), []
    for one in (theta, flipped):
        rotmat = (
            Rotation.from_rotvec(one[:, labels.POSE].reshape(-1, 3))
            .as_matrix()
            .reshape(5, 24, 3, 3)
        )
        rotmat, betas = (
            torch.from_numpy(x.astype(np.float32)) for x in (rotmat, one[:, labels.BETAS])
        )
        with torch.no_grad():
            joints.append(body.joints(betas=betas, rotmat=rotmat).numpy())
    assert_allclose(joints[1], labels.mirror("kp_3d", joints[0]), atol=1e-5)
    assert np.abs(joints[1] - joints[0]).max() > 0.1
