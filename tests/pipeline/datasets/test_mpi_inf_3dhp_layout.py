"""The embedded MPI-INF-3DHP: the official keys and shapes, and its truth back through the reader."""

from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from scipy.io import loadmat

import cache
from pipeline import datasets, synthetic
from pipeline.accounting import Accounting
from pipeline.datasets.contract import reader_problems
from pipeline.pixels import sources
from pipeline.skeletons import JOINTS
from pipeline.synthetic.layouts.layout import Request
from pipeline.synthetic.scene.scene import Take

N = 6
SPIN49 = JOINTS["spin49"]
PLACES = [*range(25, 39), 39, 41, 43]  # the 14 of common14, hip, Spine and Head (H36M)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Take]]:
    folder = tmp_path_factory.mktemp("mpi") / "mpi_inf_3dhp"
    takes = synthetic.write_dataset("mpi_inf_3dhp", folder, n_videos=4, n_frames=N)
    return folder, {take.shot.name: take for take in takes}


@pytest.fixture(scope="module")
def tracks(written: tuple[Path, dict[str, Take]]) -> dict[str, Any]:
    reader, report = datasets.get("mpi_inf_3dhp"), Accounting()
    found = {t.video: t for split in reader.splits for t in reader.tracks(written[0], split, report=report)}
    assert report.totals()["frames"] == {"found": 8 * N, "kept": 8 * N, "dropped": {}}
    assert [note for account in report for note in account.notes] == []
    return found


def test_the_files_lie_as_in_the_release(written: tuple[Path, dict[str, Take]]) -> None:
    folder, takes = written
    assert sorted(takes) == [
        "S1/Seq1/video_0", "S1/Seq1/video_1", "S2/Seq1/video_0", "S2/Seq1/video_1", "TS1", "TS2", "TS5", "TS6",
    ]  # fmt: skip
    assert sorted(p.name for p in folder.iterdir()) == ["S1", "S2", "STAND_IN.json", "mpi_inf_3dhp_test_set"]
    assert sorted(p.name for p in (folder / "S1/Seq1").iterdir()) == ["annot.mat", "camera.calibration", "imageFrames"]
    pictures = sorted(p.name for p in (folder / "S1/Seq1/imageFrames/video_1").iterdir())
    assert pictures == [f"frame_{i:06d}.jpg" for i in range(N)]
    assert (folder / "S2/Seq1/imageSequence/video_1.avi").is_file()
    assert not (folder / "S2/Seq1/imageFrames/video_1").exists()
    test = sorted(p.name for p in (folder / "mpi_inf_3dhp_test_set/TS5/imageSequence").iterdir())
    assert test == [f"img_{i:06d}.jpg" for i in range(1, N + 1)]
    assert cv2.imread(str(folder / "mpi_inf_3dhp_test_set/TS5/imageSequence" / test[0])).shape == (216, 384, 3)


def test_train_labels_have_the_official_variables(written: tuple[Path, dict[str, Take]]) -> None:
    file = written[0] / "S1/Seq1/annot.mat"
    mat = loadmat(file)
    assert {key for key in mat if not key.startswith("__")} == {"annot2", "annot3", "univ_annot3", "cameras", "frames"}
    for key, width in (("annot2", 56), ("annot3", 84), ("univ_annot3", 84)):
        assert mat[key].shape == (14, 1)
        assert {mat[key][k, 0].shape for k in range(14)} == {(N, width)}
    assert mat["cameras"].ravel().tolist() == list(range(14))
    assert b"1970" in file.read_bytes()[:116]


def test_the_calibration_projects_the_3d_labels_onto_the_2d_labels(written: tuple[Path, dict[str, Take]]) -> None:
    mat = loadmat(written[0] / "S2/Seq1/annot.mat")
    lines = (written[0] / "S2/Seq1/camera.calibration").read_text().splitlines()
    assert (lines[0], len(lines)) == ("Skeletool Camera Calibration File V1.0", 1 + 14 * 7)
    world = None
    for camera in range(14):
        block = [line.split() for line in lines[1 + 7 * camera : 8 + 7 * camera]]
        keys = ["name", "sensor", "size", "animated", "intrinsic", "extrinsic", "radial"]
        assert [words[0] for words in block] == keys
        assert block[0][1:] == [str(camera)]
        intrinsic, extrinsic = (np.array(words[1:], float).reshape(4, 4) for words in block[4:6])
        mm = mat["annot3"][camera, 0].reshape(N, 28, 3)
        pixels = mm @ intrinsic[:3, :3].T
        np.testing.assert_allclose(
            pixels[..., :2] / pixels[..., 2:], mat["annot2"][camera, 0].reshape(N, 28, 2), atol=1e-5
        )
        from_here = (mm - extrinsic[:3, 3]) @ extrinsic[:3, :3]  # the inverse of a rotation is its transpose
        world = from_here if world is None else world
        np.testing.assert_allclose(from_here, world, atol=1e-4)  # all cameras see the same body


def test_test_labels_have_the_official_arrays(written: tuple[Path, dict[str, Take]]) -> None:
    file = written[0] / "mpi_inf_3dhp_test_set/TS1/annot_data.mat"
    assert file.read_bytes().startswith(b"MATLAB 7.3 MAT-file")
    assert file.read_bytes()[124:128] == b"\x00\x02IM"
    with h5py.File(file) as stored:
        assert {key: stored[key].shape for key in stored} == {
            "annot2": (N, 1, 17, 2),
            "annot3": (N, 1, 17, 3),
            "univ_annot3": (N, 1, 17, 3),
            "valid_frame": (N, 1),
            "activity_annotation": (N, 1),
            "bb_crop": (N, 34),
        }
        assert {stored[key].attrs["MATLAB_class"] for key in stored} == {b"double"}
        assert stored["valid_frame"][:, 0].tolist() == [0] * 5 + [1] * (N - 5)


def test_2d_and_3d_come_back_to_float_precision(written: tuple[Path, dict[str, Take]], tracks: dict[str, Any]) -> None:
    for name, take in written[1].items():
        track, actor = tracks[name], take.actors[0]
        np.testing.assert_allclose(track.kp_2d[:, PLACES, :2], actor.kp_2d[:, PLACES], atol=2e-5)
        assert (track.kp_2d[:, PLACES, 2] == 1).all()
        assert track.kp_2d[..., 2].sum() == 17 * N
        assert take.camera is not None
        seen = take.camera.to_camera(actor.spin49)
        scale = 1.0 if take.shot.split == "train" else 0.83 / leg(actor.spin49[0])
        truth = scale * (seen - seen[:, [SPIN49.index("hip")]])
        np.testing.assert_allclose(track.kp_3d[:, PLACES, :3], truth[:, PLACES], atol=2e-6)


def leg(joints: np.ndarray) -> float:
    hip, knee, ankle = (joints[SPIN49.index(name)] for name in ("lhip", "lknee", "lankle"))
    return float(np.linalg.norm(hip - knee) + np.linalg.norm(knee - ankle))


def test_boxes_hold_the_joints_with_a_tenth_more(written: tuple[Path, dict[str, Take]], tracks: dict[str, Any]) -> None:
    for name, take in written[1].items():
        points = take.actors[0].kp_2d[:, PLACES]
        low, high = points.min(axis=1), points.max(axis=1)
        side = 1.1 * (high - low).max(axis=1)
        expected = np.column_stack([(low + high) / 2, side, side])
        np.testing.assert_allclose(tracks[name].bbox, expected, rtol=1e-5)


def test_two_cameras_see_one_body(tracks: dict[str, Any]) -> None:
    first, second = (tracks[f"S2/Seq1/video_{k}"].kp_3d[:, PLACES, :3].reshape(-1, 3).astype(float) for k in (0, 1))
    u, _, vt = np.linalg.svd(first.T @ second)
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    np.testing.assert_allclose(first @ rotation, second, atol=1e-5)
    assert np.abs(first - second).max() > 0.1


def test_evaluation_may_not_use_the_first_frames_of_a_test_video(tracks: dict[str, Any]) -> None:
    assert tracks["TS1"].valid.tolist() == [False] * 5 + [True] * (N - 5)


def test_limbs_in_the_pixels_have_the_colour_of_the_side_that_the_labels_say(tracks: dict[str, Any]) -> None:
    right = total = 0
    for track in tracks.values():
        for i, frame in enumerate(track.frames.read(track.frame_index)):
            for side, sign in (("l", 1), ("r", -1)):  # blue is the left arm, orange the right one
                elbow, wrist = (track.kp_2d[i, SPIN49.index(f"{side}{joint}"), :2] for joint in ("elbow", "wrist"))
                x, y = np.round((elbow + wrist) / 2).astype(int)
                red, _, blue = frame.image[y, x].astype(int)
                right += sign * (blue - red) > 30
                total += 1
    assert right / total > 0.75  # an arm may be hidden by the body


def test_one_picture_of_every_track_can_be_read_by_the_line_that_is_kept(
    written: tuple[Path, dict[str, Take]], tracks: dict[str, Any]
) -> None:
    assert tracks["S2/Seq1/video_1"].frames.spec == "video:S2/Seq1/imageSequence/video_1.avi"
    for name, track in tracks.items():
        shot = written[1][name].shot
        (frame,) = sources.parse(written[0], track.frames.spec).read([N - 1])
        assert frame.image.shape == (shot.height, shot.width, 3)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_reader_keeps_its_promises(written: tuple[Path, dict[str, Take]], split: str) -> None:
    assert reader_problems(datasets.get("mpi_inf_3dhp"), written[0], split) == []


def test_it_is_converted_into_a_cache(tmp_path: Path, written: tuple[Path, dict[str, Take]], into: Any) -> None:
    for split, columns in (
        ("train", {"frame_index", "bbox", "kp_2d", "kp_3d", "has_3d"}),
        ("test", {"frame_index", "bbox", "kp_2d", "kp_3d", "has_3d", "kp_3d_eval", "valid"}),
    ):
        into.convert(tmp_path, written[0], "mpi_inf_3dhp", split)
        committed = cache.open(tmp_path)[f"mpi_inf_3dhp/{split}"]
        assert set(committed.columns) == columns
        assert [track.stop - track.start for track in committed.tracks] == [N] * 4
        read = committed.read(committed.windows(seqlen=N, stride=N), stream=None)
        assert read["kp_3d"].shape == (4, N, *((49, 3) if split == "train" else (14, 3)))
        assert (read["w_3d"] == 1).all()


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(
    tmp_path: Path, written: tuple[Path, dict[str, Take]], into: Any
) -> None:
    synthetic.write_dataset("mpi_inf_3dhp", tmp_path / "again", n_videos=4, n_frames=N, workers=2)
    assert into.tree(tmp_path / "again") == into.tree(written[0])


def test_by_default_there_are_two_views_of_two_sequences_and_two_test_videos() -> None:
    shots = synthetic.LAYOUTS["mpi_inf_3dhp"].shots(Request())
    assert [shot.name for shot in shots if shot.split == "train"] == [
        "S1/Seq1/video_0", "S1/Seq1/video_1", "S2/Seq1/video_0", "S2/Seq1/video_1",
    ]  # fmt: skip
    assert [(shot.name, shot.width, shot.height) for shot in shots[4:]] == [("TS1", 300, 300), ("TS5", 384, 216)]
    assert sum(shot.n_frames for shot in shots) == 4 * 28 + 2 * 32
    many = synthetic.LAYOUTS["mpi_inf_3dhp"].shots(Request(n_videos=60))
    assert len({shot.name for shot in many}) == 66
