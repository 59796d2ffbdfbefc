"""The embedded Human3.6M: in the official layout, and read back to what was played."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import cdflib
import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline import datasets, synthetic
from pipeline.datasets import contract
from pipeline.datasets.release import globs
from pipeline.pixels import sources
from pipeline.skeletons import JOINTS, convert
from pipeline.synthetic.layouts import h36m
from pipeline.synthetic.layouts.layout import Request

H36M = datasets.get("h36m")
SPIN49 = JOINTS["spin49"]
N_FRAMES = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Five videos a split - four cameras of one take, and one of another - and the truth by the video's name."""
    folder = tmp_path_factory.mktemp("h36m") / "h36m"
    takes = synthetic.write_dataset("h36m", folder, n_videos=5, n_frames=N_FRAMES)
    return folder, {take.shot.name: take for take in takes}


def pose(folder: Path, kind: str, name: str) -> np.ndarray:
    subject, _, stem = name.partition("/")
    stored: np.ndarray = cdflib.CDF(folder / subject / "MyPoseFeatures" / kind / f"{stem}.cdf")["Pose"]
    return stored


def test_the_folders_and_names_are_the_release_s(written: tuple[Path, dict[str, Any]]) -> None:
    folder, takes = written
    there = sorted(path.name for path in folder.iterdir())
    assert there == ["S1", "S11", "S5", "S9", "STAND_IN.json", "metadata.xml", "smpl_param"]
    assert sorted(takes)[:4] == [
        "S1/Walking 1.54138969", "S1/Walking 1.55011271", "S1/Walking 1.58860488", "S1/Walking 1.60457274",
    ]  # fmt: skip
    for name, take in takes.items():
        subject, _, stem = name.partition("/")
        video = cv2.VideoCapture(str(folder / subject / "Videos" / f"{stem}.mp4"))
        assert video.get(cv2.CAP_PROP_FPS) == 50
        sizes = [int(video.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        assert sizes == [take.shot.width, take.shot.height]
        assert sum(1 for _ in iter(lambda video=video: video.read()[0], False)) == N_FRAMES


def test_pose_files_hold_one_record_of_frames_by_numbers(written: tuple[Path, dict[str, Any]]) -> None:
    folder, takes = written
    for name in takes:
        n_poses = N_FRAMES - (2 if name.startswith("S5/") else 0)
        for kind, n in (("D2_Positions", 64), ("D3_Positions_mono", 96)):
            stored = pose(folder, kind, name)
            assert (stored.shape, stored.dtype) == ((1, n_poses, n), np.float32)


def test_metadata_has_300_numbers_and_names_every_file(written: tuple[Path, dict[str, Any]]) -> None:
    folder, takes = written
    root = ET.parse(folder / "metadata.xml").getroot()
    header, *rows = [[cell.text for cell in row] for row in root.find("mapping")]
    assert header[2:] == [f"S{k}" for k in range(1, 12)]
    assert len(rows) == 32
    for name in takes:
        subject, _, stem = name.partition("/")
        assert stem.rpartition(".")[0] in {row[header.index(subject)] for row in rows}
    assert [camera.text for camera in root.find("dbcameras/index2id")] == [
        "54138969", "55011271", "58860488", "60457274",
    ]  # fmt: skip
    numbers = np.array(root.find("w0").text.strip("[]").split(), float)
    assert numbers.shape == (300,)
    for name, take in takes.items():
        camera = h36m.CAMERAS.index(name.rpartition(".")[2])
        fx, fy, cx, cy = numbers[264 + 9 * camera :][:4]
        np.testing.assert_array_equal(take.camera.intrinsics, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        subject = int(name.partition("/")[0][1:])
        *angles, x, y, z = numbers[6 * (camera * 11 + subject - 1) :][:6]
        to_camera = Rotation.from_euler("XYZ", angles).as_matrix()
        np.testing.assert_allclose(take.camera.extrinsics[0, :3, :3], to_camera, atol=1e-9)
        np.testing.assert_allclose(take.camera.extrinsics[0, :3, 3], -to_camera @ [x, y, z] / 1000, atol=1e-9)


def test_four_cameras_see_one_take(written: tuple[Path, dict[str, Any]]) -> None:
    _, takes = written
    first, *others = (take for name, take in takes.items() if name.startswith("S1/"))
    assert len(others) == 3
    for other in others:
        np.testing.assert_array_equal(other.actors[0].spin49, first.actors[0].spin49)
        assert np.abs(other.actors[0].kp_2d - first.actors[0].kp_2d).max() > 20


def test_the_person_is_large_and_its_crop_inside_the_picture(written: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = written
    for split in H36M.splits:
        for track in H36M.tracks(folder, split):
            width, height = track.frames.size()
            side = 1.3 * track.bbox[:, 2]
            assert (track.bbox[:, 2] > height / 2).all()
            assert (track.bbox[:, 0] > side / 2 - 20).all()
            assert (track.bbox[:, 0] < width - side / 2 + 20).all()


def test_what_is_read_back_is_what_was_played(written: tuple[Path, dict[str, Any]]) -> None:
    folder, takes = written
    rows = list(range(0, N_FRAMES - 2, 2))
    used = [name in JOINTS["h36m"] for name in SPIN49]
    for split in H36M.splits:
        for track in H36M.tracks(folder, split):
            take = takes[track.video]
            (actor,) = take.actors
            n = len(rows) if track.video.startswith("S5/") else N_FRAMES // 2
            assert track.frame_index.tolist() == list(range(0, N_FRAMES, 2))[:n]
            kp_2d = actor.kp_2d[track.frame_index]
            np.testing.assert_allclose(track.kp_2d[:, used, :2], kp_2d[:, used], rtol=1e-6)
            in_camera = take.camera.to_camera(actor.spin49)[track.frame_index]
            centred = in_camera - in_camera[:, [SPIN49.index("hip")]]
            np.testing.assert_allclose(track.kp_3d[:, used, :3], centred[:, used], atol=2e-6)
            np.testing.assert_array_equal(track.kp_3d[..., 3], np.tile(used, (n, 1)))
            joints = convert(kp_2d, source="spin49", target="h36m")
            low, high = joints.min(axis=1), joints.max(axis=1)
            side = 1.1 * (high - low).max(axis=1)
            expected = np.column_stack([(low + high) / 2, side, side])
            np.testing.assert_allclose(track.bbox, expected, rtol=1e-5)
            if split == "val":
                common14 = convert(centred, source="spin49", target="common14")
                np.testing.assert_allclose(track.kp_3d_eval, common14, atol=2e-6)


def test_fits_of_the_first_subject_come_back_in_the_camera(written: tuple[Path, dict[str, Any]]) -> None:
    folder, takes = written
    fits = json.loads((folder / "smpl_param/Human36M_subject1_smpl_param.json").read_text())
    assert list(fits) == ["14"]  # walking
    assert {key: len(value) for key, value in fits["14"]["1"]["0"].items()} == {"pose": 72, "shape": 10, "trans": 3}
    for track in H36M.tracks(folder, "train"):
        (actor,) = takes[track.video].actors
        if track.video.startswith("S5/"):
            assert not track.has_smpl.any()
            continue
        assert track.frame_index[track.has_smpl].tolist() == [0, 2, 4, 6, 8]
        frames = track.frame_index[track.has_smpl]
        world = Rotation.from_rotvec(actor.pose[frames, :3]).as_matrix()
        expected = takes[track.video].camera.extrinsics[frames, :3, :3] @ world
        ours = Rotation.from_rotvec(track.pose[track.has_smpl, :3]).as_matrix()
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        np.testing.assert_allclose(track.pose[track.has_smpl, 3:], actor.pose[frames, 3:], atol=1e-6)
        np.testing.assert_allclose(track.betas[track.has_smpl], np.tile(actor.betas, (5, 1)), atol=1e-6)


def test_limbs_in_the_pictures_have_the_colour_of_their_side_where_labels_say_they_are(
    written: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = written
    right, total = 0, 0
    for track in H36M.tracks(folder, "val"):
        for row, frame in enumerate(track.frames.read(track.frame_index.tolist())):
            assert frame.image is not None
            for side, sign in (("l", 1), ("r", -1)):
                ends = track.kp_2d[row, [SPIN49.index(f"{side}elbow"), SPIN49.index(f"{side}wrist")], :2]
                x, y = ends.mean(axis=0).round().astype(int)
                red, _, blue = frame.image[y, x].astype(int)
                right += sign * (blue - red) > 25
                total += 1
    assert total == 60
    assert right / total > 0.75  # the other arm, or the body, is in front in the rest


def test_the_reader_keeps_its_promises_and_the_data_show_no_mistake(written: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = written
    for split in H36M.splits:
        assert contract.reader_problems(H36M, folder, split) == []


def test_every_part_of_the_release_is_there(written: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = written
    for part in H36M.parts:
        assert any(next(folder.glob(glob), None) for glob in globs(part.patterns)), part.what


def test_it_converts_and_absent_fits_are_zero_with_weight_zero(
    written: tuple[Path, dict[str, Any]], tmp_path: Path, into: Any
) -> None:
    import cache

    folder, _ = written
    for split in H36M.splits:
        conversion = into.convert(tmp_path, folder, "h36m", split)
        assert conversion.set_aside == ()
    split = cache.open(tmp_path)["h36m/train"]
    known = {}
    for track in split.tracks:
        batch = split.read(np.array([[track.start, track.stop]]), stream=None)
        assert all(np.isfinite(values).all() for values in batch.values())
        assert (batch["w_3d"] == 1).all()
        known[track.name] = batch["w_smpl"].sum()
        absent = batch["w_smpl"][0] == 0
        assert not batch["theta"][0, absent, 3:].any()
        assert np.isnan(split.rows("pose", track.start, track.stop)[absent]).all()
        source = sources.parse(folder, str(next(v.source for v in split.videos if v.name == track.video)))
        (frame,) = source.read([2])
        assert frame.image is not None
    assert set(known.values()) == {0, 5}
    validation = cache.open(tmp_path)["h36m/val"]
    first = validation.tracks[0]
    assert validation.read(np.array([[first.start, first.stop]]), stream=None)["kp_3d"].shape == (1, 6, 14, 3)


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(tmp_path: Path, into: Any) -> None:
    for folder, workers in (("one", 1), ("two", 2)):
        synthetic.write_dataset("h36m", tmp_path / folder, n_videos=2, n_frames=3, workers=workers)
    assert into.tree(tmp_path / "one") == into.tree(tmp_path / "two")


def test_the_usual_amount_has_tracks_of_20_to_40_frames_and_the_frontal_camera_in_val() -> None:
    shots = synthetic.LAYOUTS["h36m"].shots(Request())
    by_split = {split: [shot for shot in shots if shot.split == split] for split in H36M.splits}
    assert {split: len(of) for split, of in by_split.items()} == {"train": 6, "val": 3}
    assert all(40 <= shot.n_frames <= 80 for shot in shots)
    assert any(shot.name.endswith(".60457274") for shot in by_split["val"])
    for size in ("tiny", "large"):
        names = [shot.name for shot in synthetic.LAYOUTS["h36m"].shots(Request(size=size))]
        assert len(set(names)) == len(names)
