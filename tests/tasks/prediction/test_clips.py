"""Clips without labels: found, tracked, predicted, drawn and exported by one command, into one
cache.
"""

import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

import cache
from pipeline.datasets.amass import SMPL_JOINTS, Motion
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import MARKER
from tasks.__main__ import main
from tests.bodies import the_body
from tests.pipeline.datasets.by_hand import encode
from tests.tasks.prediction.conftest import (
    SHORT,
    bodies_of,
    halves_of,
    of_model,
    save_checkpoint,
    summary,
    without_settings,
)
from vibe_model.hmmr.config import PRESETS
from vibe_model.prediction.motions import TO_WORLD
from vibe_model.trained import Trained

N_LONG, N_SHORT = 28, 15  # frames; 15 have neither past nor future of the whole window


@pytest.fixture(scope="module")
def patch(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        without_settings(patch, tmp_path_factory.mktemp("without_settings"))
        yield patch


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    """Two demo clips, one of them in a folder, a file that is none, and a checkpoint of HMMR."""
    folder = tmp_path_factory.mktemp("phone") / "clips"
    folder.mkdir()
    shutil.copy(world.raw / MARKER, folder)
    shutil.copy(world.video, folder / "dance.mp4")
    frames = Video(world.video.parent, world.video.name).read(range(N_SHORT))
    encode(folder / "more/short.AVI", [frame.image[..., ::-1] for frame in frames], code="MPNG")
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    save_checkpoint(
        folder.parent / "hmmr.pt", PRESETS["embedded"](regressor_size=8, width=32, regressor="hmr")
    )
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return Trained.load(folder.parent / "hmmr.pt", None, "cpu").generator.eval()


def run(*words):
    return main(["predict", *map(str, words)])


def with_model(folder, out):
    model = of_model(folder.parent / "hmmr.pt", folder)
    return (*model, "--weights", "untrained:0", "--out", out, "--cache", out / "cache", *SHORT)


@pytest.fixture(scope="module")
def out(folder, patch, tmp_path_factory):
    """All of it, once. One clip cannot be used."""
    out = tmp_path_factory.mktemp("out")
    assert run(folder, *with_model(folder, out), "--export") == 1
    return out


def test_a_clip_that_cannot_be_used_costs_itself(out):
    assert [video["video"] for video in summary(out)["videos"]] == ["dance.mp4", "more/short.AVI"]
    assert cache.open(out / "cache").splits == ("videos/train",)


def test_past_and_future_are_those_of_the_model(out, model):
    split = cache.open(out / "cache")["videos/train"]
    found = bodies_of(out)
    for track in split.tracks:
        features = split.read(np.array([[track.start, track.stop]]), fields=("features",))[
            "features"
        ]
        with torch.no_grad():
            # `norm` is frame: windows change nothing
            whole = model(torch.from_numpy(features), vertices=False)
        file = found[track.name]
        assert_allclose(file["joints_3d"], whole["kp_3d"][0], atol=1e-4)
        for step, name in ((-5, "minus5"), (5, "plus5")):
            assert_allclose(file[f"joints_3d_{name}"], whole["deltas"][step]["kp_3d"][0], atol=1e-4)
            turned = (
                Rotation.from_rotvec(file[f"pose_{name}"].reshape(-1, 3))
                .as_matrix()
                .reshape(-1, 24, 3, 3)
            )
            assert_allclose(turned, whole["deltas"][step]["rotmat"][0], atol=1e-4)
            assert_array_equal(file[f"theta_{name}"][:, :3], file["camera"])
            assert_array_equal(file[f"theta_{name}"][:, 75:], file["betas"])


def test_overlays_show_past_and_future_in_their_corners(out):
    for video in summary(out)["videos"]:
        halves = halves_of(out / video["overlay"]["file"])
        assert len(halves) == (N_SHORT if "short" in video["video"] else N_LONG)
        _, with_bodies = halves[7]
        height, width = with_bodies.shape[:2]
        corner = np.s_[: height // 4 - 24]  # without the caption
        for part in (with_bodies[corner, : width // 4], with_bodies[corner, -(width // 4) :]):
            differs = np.abs(part.astype(int) - 60).max(axis=2)  # from the grey ground
            assert 0.005 < (differs > 60).mean() < 0.5


def test_motions_are_read_back_by_the_reader_of_amass_and_stand_where_the_bodies_are_seen(
    out,
):
    body, found = the_body(), bodies_of(out)
    for video in summary(out)["videos"]:
        for track in video["tracks"]:
            motion, file = Motion.read(out / track["motion"]), found[track["name"]]
            n_frames = track["last"] - track["first"] + 1
            n_motion = 2 * n_frames - 1  # 25 frames a second, for what plays slower motions at 30
            assert (len(motion.pose), motion.rate, motion.gender) == (n_motion, 50, "neutral")
            rows, pose = (
                2 * (file["frame_index"] - track["first"]),
                motion.pose[:, SMPL_JOINTS[165]],
            )
            betas = motion.betas[:10]
            inner = Rotation.from_rotvec(pose[:, 1:].reshape(-1, 3))
            turn = (inner[:-23].inv() * inner[23:]).magnitude().reshape(-1, 23)
            assert_allclose(turn[0::2], turn[1::2], atol=1e-5)  # halfway between two
            own = Rotation.from_rotvec(pose[rows].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
            assert_allclose(own[:, 1:], file["rotmat"][:, 1:], atol=1e-5)
            assert_allclose(betas, file["betas"].mean(axis=0), atol=1e-5)
            # The body in the world, back in the camera and projected: its joints are where they are
            # in the picture.
            posed = body(
                betas=torch.tensor(betas).float().expand(len(rows), -1),
                rotmat=torch.tensor(own).float(),
                trans=torch.tensor(motion.trans[rows]).float(),
            )
            joints = posed.joints.numpy() @ TO_WORLD
            size = np.array(video["picture"])
            seen = joints[..., :2] / joints[..., 2:] * np.hypot(*size) + size / 2
            off = np.linalg.norm(seen - file["joints_2d"], axis=-1).max(axis=1) / file["bbox"][:, 3]
            assert off.max() < 0.1  # by another perspective, and the mean shape
            # as retargeting to humanoids reads it
            with np.load(out / track["motion"], allow_pickle=True) as stored:
                assert (stored["betas"].shape, stored["mocap_frame_rate"].item()) == ((16,), 50)
                assert stored["pose_hand"].shape == (n_motion, 90)
                joints = np.hstack([stored["root_orient"], stored["pose_body"]])
            assert_array_equal(joints.reshape(n_motion, 22, 3), motion.pose[:, :22])


def test_a_split_with_features_is_predicted_without_a_picture(
    out, folder, patch, tmp_path, monkeypatch
):
    monkeypatch.setattr(Video, "read", lambda *_, **__: pytest.fail("a video was decoded"))
    words = (*of_model(folder.parent / "hmmr.pt", folder), "--out", tmp_path)
    assert run("videos/train", "--cache", out / "cache", *words, "--tracks", "dance*") == 0
    before, after = bodies_of(out), bodies_of(tmp_path)
    assert after.keys() == {name for name in before if name.startswith("dance")}
    for name, file in after.items():
        assert_allclose(file["theta"], before[name]["theta"], atol=1e-5)
    assert run("videos/train", "--cache", out / "cache", *words, "--stream", "none") == 2
