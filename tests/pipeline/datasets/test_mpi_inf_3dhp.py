import functools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.accounting import Accounting
from pipeline.files.pixels.frames import Video
from tests.pipeline.datasets import by_hand
from tests.pipeline.datasets.by_hand import touch
from tests.pipeline.datasets.made_mpi_inf_3dhp import (
    HEIGHT,
    MPI,
    TEST_JOINTS,
    WIDTH,
    N,
    cell,
    labels_2d,
    labels_3d,
    raw,
    read,
    write_annot,
    write_calibration,
    write_pictures,
    write_test,
)

__all__ = ["raw"]  # a fixture

AT_50_FPS = {"S1/Seq2", "S3/Seq1", "S3/Seq2", "S5/Seq1", "S5/Seq2"}


def write_video(file, n_frames=N, fps=25.0):
    by_hand.write_video(file, n_frames, fps, (WIDTH, HEIGHT))


refusal = functools.partial(by_hand.refusal, MPI)


def test_the_eight_usual_cameras_are_listed_and_only_what_is_there(tmp_path):
    write_annot(tmp_path)
    for camera in range(14):
        write_pictures(tmp_path, f"S1/Seq1/imageFrames/video_{camera}", numbers=[0])
    write_annot(tmp_path, "S3/Seq2")
    write_pictures(tmp_path, "S3/Seq2/video_5", numbers=[0])
    touch(tmp_path / "S3/Seq2/imageSequence", "video_5.avi", "video_8.avi")
    videos = MPI.videos(tmp_path, "train")
    names = [
        *(f"S1/Seq1/video_{k}" for k in (0, 1, 2, 4, 5, 6, 7, 8)),
        "S3/Seq2/video_5",
        "S3/Seq2/video_8",
    ]
    assert [video.name for video in videos] == names
    labels = [Path("S3/Seq2/annot.mat"), Path("S3/Seq2/camera.calibration")]
    assert (*videos[-2].files, *videos[-2].folders) == (*labels, Path("S3/Seq2/video_5"))
    assert (*videos[-1].files, *videos[-1].folders) == (
        *labels,
        Path("S3/Seq2/imageSequence/video_8.avi"),
    )


def test_a_list_of_cameras_in_order_is_agreed_with_and_another_is_refused(raw):
    for listed in (np.arange(1, 15)[:, None], np.arange(8), None, "fourteen"):
        write_annot(raw, cameras=listed)
        assert read(raw)[1]["kept"] == N
    for listed in (np.arange(14)[::-1], np.arange(14) * 2, np.full(14, np.nan)):
        write_annot(raw, cameras=listed)
        assert "'cameras'" in str(refusal(raw))


def test_frames_with_a_joint_outside_the_picture_or_no_extent_are_dropped(raw):
    kp_2d = np.tile(labels_2d()[:1], (9, 1, 1))
    inside = [(0, 0), (WIDTH - 0.01, HEIGHT - 0.01)]
    kp_2d[2:8, 10] = [*inside, (-0.01, 50), (50, -0.01), (WIDTH, 50), (50, HEIGHT)]
    kp_2d[8, [12, 22]] = [(-500, 5000), (math.nan, 0)]  # a hand, a toe
    write_annot(raw, kp_2d=kp_2d, kp_3d=labels_3d(n_frames=9))
    write_pictures(raw, numbers=range(9))
    (track,), account = read(raw)
    assert track.frame_index.tolist() == [0, 1, 2, 3, 8]
    assert account["dropped"] == {"joint_outside_picture": 4}
    kp_2d = np.full_like(labels_2d(), 50.0)  # no extent
    kp_2d[1, 10] = (-3, 0)
    write_annot(raw, kp_2d=kp_2d)
    for number in range(N, 9):
        (raw / f"S1/Seq1/imageFrames/video_0/frame_{number:06d}.jpg").unlink()
    tracks, account = read(raw)
    assert (tracks, account["tracks_dropped"]) == ([], {"no_frame_left": 1})
    assert account["dropped"] == {"degenerate_box": 4, "joint_outside_picture": 1}


@pytest.mark.parametrize("stored", [np.float32, np.uint16])
def test_a_video_file_gives_its_own_rate_and_other_cameras_may_hold_anything(tmp_path, stored):
    write_video(tmp_path / "S1/Seq1/imageSequence/video_4.avi", n_frames=4, fps=50)
    flat_2d, flat_3d, nothing = (
        labels_2d().reshape(N, -1).astype(stored),
        labels_3d().reshape(N, -1),
        np.zeros((0, 0)),
    )
    annot2, annot3 = (
        [none] * 4 + [flat] + [none] * 9 for none, flat in (("none", flat_2d), (nothing, flat_3d))
    )
    write_annot(tmp_path, annot2=cell(*annot2), annot3=cell(*annot3))
    write_calibration(tmp_path)
    (track,), account = read(tmp_path)
    assert (track.name, track.fps) == ("S1/Seq1/video_4/0", 50)
    assert track.frames == Video(tmp_path, "S1/Seq1/imageSequence/video_4.avi")
    assert account["dropped"] == {"no_picture": 1}
    assert [frame.image.shape for frame in track.frames.read(track.frame_index)] == [
        (HEIGHT, WIDTH, 3)
    ] * 4
    np.testing.assert_array_equal(track.kp_2d[:, 39, :2], labels_2d()[:4, 4])
    np.testing.assert_array_equal(track.intrinsics, [[150, 0, 104], [0, 151, 50], [0, 0, 1]])


def test_the_rate_of_pictures_is_the_release_s(tmp_path):
    sequences = [f"S{subject}/Seq{k}" for subject in range(1, 9) for k in (1, 2)]
    for sequence in (*sequences, "S9/Seq1"):
        write_annot(tmp_path, sequence)
        write_pictures(tmp_path, f"{sequence}/video_0")
    found = {
        track.video.removesuffix("/video_0"): track.fps for track in MPI.tracks(tmp_path, "train")
    }
    assert math.isnan(found.pop("S9/Seq1"))
    assert found == {sequence: 50 if sequence in AT_50_FPS else 25 for sequence in sequences}


@pytest.mark.parametrize(
    "content", [None, b"Skeletool Camera Calibration File V1.0\nname 3\n", "focal: nan"]
)
def test_a_broken_calibration_costs_the_intrinsics_alone(raw, content):
    file = write_calibration(raw, focal="nan")
    if content is None:
        file.unlink()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    (track,), account = read(raw)
    assert track.intrinsics is None
    assert account["kept"] == N
    (note,) = account["notes"]
    assert note.startswith("no camera intrinsics: ")


def test_pictures_that_were_scaled_are_refused(raw):
    write_calibration(raw, size="2048 2048")
    error = refusal(raw)
    assert error.reason == "other_picture_size"
    assert read(raw)[1]["dropped"] == {"other_picture_size": N}


def test_pictures_without_labels_and_labels_without_pixels_are_told(raw):
    (raw / "S1/Seq1/annot.mat").unlink()
    assert read(raw)[1]["set_aside"] == "no_label"
    write_annot(raw)
    shutil.rmtree(raw / "S1/Seq1/imageFrames")
    report = Accounting()
    assert list(MPI.tracks(raw, "train", report=report)) == []
    assert [(a.set_aside, a.found) for a in report] == [("no_picture", N)] * 8
    file = write_test(raw)
    shutil.rmtree(file.parent / "imageSequence")
    account = read(raw, "test")[1]
    assert (account["set_aside"], account["found"]) == ("no_picture", N)
    file.unlink()
    assert read(raw, "test")[1]["set_aside"] == "no_label"


def test_a_test_video_has_universal_3d(tmp_path):
    write_test(tmp_path)
    (track,), _ = read(tmp_path, "test")
    for native, joint in enumerate(TEST_JOINTS):
        d = 1.5 * (native - 14)  # of annot3; the pelvis is native joint 14
        expected = np.tile([0.1 * d, -0.01 * d, 0.001 * d, 1], (N, 1))
        np.testing.assert_allclose(track.kp_3d[:, joint], expected, atol=1e-6)


@pytest.mark.parametrize(
    "stored", [np.array([1, 0, 1, 1, 0], np.uint8), np.array([[1.0, 0, 1, 1, 0]])]
)
def test_valid_frame_may_be_a_row_of_any_type_and_frames_keep_theirs(tmp_path, stored):
    kp_2d, kp_3d = labels_2d(17)[:, None], labels_3d(17)[:, None]
    kp_2d[4, 0, 3, 1], kp_3d[2, 0, 14, 0] = math.inf, math.nan
    below = "mpi_inf_3dhp_test_set/mpi_inf_3dhp_test_set"
    file = write_test(tmp_path, below=below, valid_frame=stored, annot2=kp_2d, univ_annot3=kp_3d)
    (file.parent / "imageSequence/img_000001.jpg").unlink()  # the others still count from 1
    (track,), account = read(tmp_path, "test")
    assert track.frame_index.tolist() == [1, 3]
    assert track.valid.tolist() == [False, True]
    assert account["dropped"] == {"no_picture": 1, "label_not_finite": 2}
