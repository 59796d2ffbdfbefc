"""Real samples through the whole way: raw -> tracks -> features -> windows. They are not part of the project."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import loadmat

import cache
from pipeline import crops, datasets
from pipeline.conversion import convert
from pipeline.features import extract
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.pixels import sources
from pipeline.skeletons import bones, correspondence

SAMPLES = Path(__file__).parents[1].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real samples are not beside the checkout")

SPEC = StreamSpec(stream=ResNet50(weights=WeightsSpec("untrained", "0")))
EXTRACTED = ("0100", "0191")  # uint16 coordinates of a training video; a short test video
DETECTED = 30  # frames of OpenPose's video that take part: enough for tracks, quick to extract
GREEN = (40, 200, 40)


def into_cache(name: str, split: str, raw: Path, root: Path) -> cache.Split:
    dataset = datasets.get(name)
    convert.convert(convert.plan_conversion(dataset, split, raw=raw, root=root))
    if dataset.has_pixels:
        extract.extract(plan_extraction(root, f"{name}/{split}", SPEC))
    assert cache.verify(root).ok
    return cache.open(root)[f"{name}/{split}"]


def render_penn_action(raw: Path, name: str) -> None:
    """Frames of the label's own number and size, in which visible joints are green dots, joined by green lines."""
    shutil.copy(SAMPLES / f"penn_action/labels/{name}.mat", raw / "labels")
    label = loadmat(raw / "labels" / f"{name}.mat")
    height, width, n_frames = label["dimensions"].ravel().astype(int)
    take, put = correspondence("penn_action", "spin49")
    native = {joint: i for i, joint in zip(take, put, strict=True)}
    limbs = [(native[a], native[b]) for a, b in bones("spin49") if a in native and b in native]
    xy = np.stack([label["x"], label["y"]], axis=-1).astype(float)
    seen = label["visibility"].astype(float) > 0
    (raw / "frames" / name).mkdir()
    for t in range(n_frames):
        picture = np.full((height, width, 3), 110, np.uint8)
        for a, b in limbs:
            if seen[t, a] and seen[t, b]:
                ends = [tuple(int(v) for v in np.round(xy[t, k])) for k in (a, b)]
                cv2.line(picture, ends[0], ends[1], GREEN, 7)
        for k in np.flatnonzero(seen[t]):  # the head's top has no limb
            cv2.circle(picture, tuple(int(v) for v in np.round(xy[t, k])), 4, GREEN, -1)
        cv2.imwrite(str(raw / "frames" / name / f"{t + 1:06d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])


@pytest.fixture(scope="module")
def penn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    raw, root = tmp_path_factory.mktemp("penn_action"), tmp_path_factory.mktemp("cache")
    (raw / "labels").mkdir()
    (raw / "frames").mkdir()
    for name in EXTRACTED:
        render_penn_action(raw, name)
    return raw, root


@pytest.mark.slow
def test_penn_actions_labels_become_windows_with_features(penn: tuple[Path, Path]) -> None:
    raw, root = penn
    for split, name, n_frames in (("train", "0100", 97), ("test", "0191", 38)):
        converted = into_cache("penn_action", split, raw, root)
        assert [(t.name, t.stop - t.start) for t in converted.tracks] == [(f"{name}/0", n_frames)]
        windows = converted.windows(seqlen=16, stride=8, stream="resnet50")
        assert len(windows) == (n_frames - 16) // 8 + 1
        batch = converted.read(windows, stream="resnet50")
        assert batch["features"].shape == (len(windows), 16, 2048)
        assert np.isfinite(batch["features"]).all()
        assert batch["features"].std(axis=(0, 1)).mean() > 0.01  # they differ from frame to frame
        assert batch["w_3d"].sum() == 0  # the dataset has no 3D


@pytest.mark.slow
def test_penn_actions_keypoints_lie_on_the_limbs_that_were_drawn(penn: tuple[Path, Path]) -> None:
    raw, root = penn
    split = into_cache("penn_action", "train", raw, root)
    windows = split.windows(seqlen=1, stride=1)
    kp_2d = split.read(windows, fields=["kp_2d"])["kp_2d"][:, 0]  # (F, 49, 3) in the crop
    bbox, source = split.rows("bbox", 0, len(windows)), sources.parse(raw, split.videos[0].source)
    wrong = total = 0
    for frame, box, joints in zip(source.read(range(97)), bbox, kp_2d, strict=True):
        crop = crops.crop_person(frame.image, box, scale=split.tracks[0].crop_scale)
        for joint in {j for bone in bones("common14") for j in bone}:
            x, y, confidence = joints[25 + joint]
            if confidence:
                total += 1
                red, green, _ = crop[round((y + 1) * 112), round((x + 1) * 112)].astype(int)
                wrong += green - red < 60
    assert total > 600
    assert wrong / total < 0.01  # at the picture's edge there is black beside the dot


def test_an_amass_motion_becomes_windows_of_theta(tmp_path: Path) -> None:
    file = tmp_path / "raw/TotalCapture/s1/sample_poses.npz"
    file.parent.mkdir(parents=True)
    shutil.copy(SAMPLES / "amass/amass_sample.npz", file)
    split = into_cache("amass", "train", tmp_path / "raw", tmp_path / "cache")
    windows = split.windows(seqlen=16, stride=16)
    assert len(windows) == 126 // 16
    batch = split.read(windows, stream=None)
    stored = np.load(file)["poses"]
    np.testing.assert_allclose(batch["theta"][0, 0, 3:69], stored[0, :66], atol=1e-6)
    np.testing.assert_allclose(batch["theta"][0, 10, 3:69], stored[48, :66], atol=1e-6)  # 0.4 s in
    assert (batch["w_smpl"] == 1).all()


@pytest.mark.slow
def test_a_detected_crowd_becomes_tracks_with_features(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "train/walking").mkdir(parents=True)
    (raw / "keypoints/train/video").mkdir(parents=True)
    shutil.copy(SAMPLES / "openpose/video.avi", raw / "train/walking")
    for t in range(DETECTED):
        shutil.copy(SAMPLES / f"openpose/json/video_{t:012d}_keypoints.json", raw / "keypoints/train/video")
    split = into_cache("kinetics", "train", raw, tmp_path / "cache")
    assert len(split.tracks) >= 4  # four people are seen all the time
    assert split.manifest["accounting"]["videos"]["kept"] == 1
    windows = split.windows(seqlen=16, stride=4, stream="resnet50")
    batch = split.read(windows, stream="resnet50")
    assert {split.tracks[i].name for i in split.track_of(windows[:, 0])} >= {split.tracks[0].name}
    kp_2d = batch["kp_2d"][batch["kp_2d"][..., 2] > 0]
    assert (np.abs(kp_2d[:, :2]) < 1).mean() > 0.99  # people lie within their crops
    # Two people's features differ more than one person's from frame to frame.
    first, last = batch["features"][0], batch["features"][-1]
    assert np.linalg.norm(first.mean(0) - last.mean(0)) > np.linalg.norm(np.diff(first, axis=0), axis=1).mean()
