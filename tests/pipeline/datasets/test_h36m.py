"""Human3.6M from raw files made by hand: every rule and every quirk of the release."""

import functools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline import datasets
from pipeline.demo.files import write_cdf
from pipeline.files.pixels.frames import Video
from pipeline.skeletons import JOINTS
from tests.pipeline.datasets import by_hand

H36M = datasets.get("h36m")
SPIN49 = JOINTS["spin49"]
N = 20
STEM = "Directions 1.54138969"
NAME = f"S1/{STEM}"
CAMERAS = ("54138969", "55011271", "58860488", "60457274")
# Which of the 32 stored joints is which, as DATASETS.md has it.
USED = (11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27)
NAMES = (
    "hip", "lhip", "lknee", "lankle", "rhip", "rknee", "rankle", "Spine (H36M)", "neck",
    "Head (H36M)", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip
STORED_AT = dict(zip(NAMES, USED, strict=True))


def poses(n_frames=N):
    """(F, 32, 2) px and (F, 32, 3) mm: joint j at (200 + 5 j + t, 300 + 3 j), and at (10 j + t, -20
    j, 4000 + j).
    """
    t, j = np.arange(n_frames)[:, None], np.arange(32.0)[None]
    pixels = np.stack([200 + 5 * j + t, 300 + 3 * j + 0 * t], axis=-1)
    return pixels, np.stack([10 * j + t, -20 * j + 0 * t, 4000 + j + 0 * t], axis=-1)


def pose_file(raw, kind, name=NAME):
    subject, _, stem = name.partition("/")
    return raw / subject / "MyPoseFeatures" / kind / f"{stem}.cdf"


def write_pose(file, values):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    write_cdf(file, values.reshape(len(values), -1))


def write_poses(raw, name=NAME, pixels=None, millimetres=None, n_frames=N):
    usual = poses(n_frames)
    for kind, given, stored in (
        ("D2_Positions", pixels, usual[0]),
        ("D3_Positions_mono", millimetres, usual[1]),
    ):
        values = stored if given is None else given
        write_pose(pose_file(raw, kind, name), values)


def write_video(raw, name=NAME, n_frames=N, fps=50.0):
    subject, _, stem = name.partition("/")
    return by_hand.write_video(raw / subject / "Videos" / f"{stem}.mp4", n_frames, fps, (480, 416))


def write_metadata(raw, **changed):
    """metadata.xml with two takes: ids (2, 1) and (14, 2), which S1 and S9 call otherwise. f = 1000
    + camera.
    """
    subjects = [f"S{k}" for k in range(1, 12)]
    rows = [["", "", *subjects]]
    rows += [["2", "1", *("Directions" if s == "S9" else "Directions 1" for s in subjects)]]
    rows += [
        ["14", "2", *("Walking 1" if s == "S9" else "Walking" for s in subjects)],
        ["note", "", *subjects],
    ]
    w0 = [0.5] * (4 * 11 * 6)
    for camera in range(4):
        w0 += [1000.0 + camera, 2000 + camera, 500 + camera, 600 + camera, 0.1, 0.1, 0.1, 0.1, 0.1]
    table = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    ids = "".join(f"<id>{camera}</id>" for camera in changed.get("cameras", CAMERAS))
    numbers = changed.get("w0", "[" + " ".join(map(str, w0)) + "]")
    text = f"<metadata><mapping>{table}</mapping><dbcameras><index2id>{ids}</index2id></dbcameras><w0>{numbers}</w0>"
    (raw / "metadata.xml").write_text(changed.get("text", text + "</metadata>"))


def rotations():
    return Rotation.from_rotvec([[0.3, -1, 2], [1, 1, 1], [0, 0, 3], [-2, 0.1, 0.5]]).as_matrix()


def fit_of(frame):
    rng = np.random.default_rng(frame)
    return {
        "pose": rng.normal(0, 0.4, 72).tolist(),
        "shape": rng.normal(0, 1, 10).tolist(),
        "trans": [1.0, 2.0, 3.0],
    }


def write_fits(raw, fits=None, *, subject=1, cameras_in="smpl_param"):
    if fits is None:
        fits = {"2": {"1": {str(frame): fit_of(frame) for frame in (0, 2, 4, 8, 10)}}}
    for folder in {"smpl_param", cameras_in}:
        (raw / folder).mkdir(exist_ok=True)
    stored = {
        str(i): {"R": r.tolist(), "t": [1, 2, 3], "f": [1, 1]}
        for i, r in enumerate(rotations(), start=1)
    }
    (raw / cameras_in / f"Human36M_subject{subject}_camera.json").write_text(json.dumps(stored))
    text = fits if isinstance(fits, str) else json.dumps(fits)
    (raw / "smpl_param" / f"Human36M_subject{subject}_smpl_param.json").write_text(text)


read = functools.partial(by_hand.read_one, H36M)


@pytest.fixture
def raw(tmp_path):
    """One sequence of 20 frames with its video."""
    write_poses(tmp_path)
    write_video(tmp_path)
    write_metadata(tmp_path)
    return tmp_path


def test_subjects_decide_the_split_and_what_else_lies_there_is_no_sequence(tmp_path):
    for subject in ("S1", "S11", "S5", "S9", "S7", "S2"):
        write_poses(tmp_path, f"{subject}/Walking 1.60457274")
    write_video(tmp_path, "S1/_ALL 1.54138969")
    write_poses(tmp_path, "S1/_ALL.54138969")
    (tmp_path / "S1/Videos/._Directions 1.54138969.mp4").touch()
    by_hand.touch(tmp_path / "S1/images/_ALL_1.54138969", "000000.jpg", "000001.jpg")
    for split, listed in (("train", ["S1", "S5", "S7"]), ("val", ["S11", "S9"])):
        assert [video.name for video in H36M.videos(tmp_path, split)] == [
            f"{s}/Walking 1.60457274" for s in listed
        ]


def test_a_video_without_a_frame_or_without_both_pose_files_is_set_aside(raw):
    avi = by_hand.write_video(raw / "pictures.avi", N, 50.0, (64, 48)).read_bytes()
    no_jpeg = re.sub(
        rb"\xff\xd8\xff.*?\xff\xd9", lambda jpeg: bytes(len(jpeg[0])), avi, flags=re.DOTALL
    )
    (raw / f"S1/Videos/{STEM}.mp4").write_bytes(no_jpeg)
    assert Video(raw, f"S1/Videos/{STEM}.mp4").header() == (N, 50.0, 64, 48)
    _, account = read(raw)
    assert (account["set_aside"], account["found"]) == ("video_unreadable", N)
    for kind, n in (("D2_Positions", {"no_label": N}), ("D3_Positions_mono", {})):
        pose_file(raw, kind).unlink()
        tracks, account = read(raw)
        assert (tracks, account["set_aside"], account["dropped"]) == ([], "no_label", n)


def test_lengths_that_are_very_different_another_rate_and_another_skeleton_are_refused(raw):
    for n_frames, fps in ((17, 50.0), (30, 25.0)):
        write_video(raw, n_frames=n_frames, fps=fps)
        _, account = read(raw)
        assert (account["set_aside"], account["dropped"]) == (
            "frame_count_mismatch",
            {"frame_count_mismatch": N},
        )
    for values, reason in (
        (poses(10)[1], "frame_count_mismatch"),
        (np.ones((N, 51)), "bad_label_file"),
    ):
        write_pose(pose_file(raw, "D3_Positions_mono"), values)
        _, account = read(raw)
        # as many as the other file has
        assert (account["set_aside"], account["found"]) == (reason, N)


def test_a_short_video_without_a_rate_is_refused_by_its_number_of_frames(raw, monkeypatch):
    write_video(raw, n_frames=15)
    record = Video(raw, f"S1/Videos/{STEM}.mp4").record()
    unknown = replace(record, header_fps=math.nan, times=np.full(15, math.nan))
    monkeypatch.setattr(Video, "record", lambda _: unknown)
    _, account = read(raw)
    assert "about 20 at 50 fps, as there are labels, found 15. Extract" in account["message"]


@pytest.mark.parametrize(
    ("folder", "name", "first"),
    [
        ("images/Directions_1.54138969", "frame_{:04d}.jpg", 0),
        ("Images/S1_Directions_1.54138969", "S1_Directions_1.54138969_{:06d}.jpg", 1),
        (f"imageSequence/{STEM}", "img_{:06d}.png", 1),
    ],
)
def test_pictures_take_the_place_of_a_video(raw, folder, name, first):
    (raw / "S1/Videos" / f"{STEM}.mp4").unlink()
    by_hand.touch(raw / "S1" / folder, *map(name.format, range(first, first + N)))
    (track,), account = read(raw)
    assert track.frames.path(4) == raw / "S1" / folder / name.format(4 + first)
    assert (track.video, len(track.frame_index), account["notes"]) == (NAME, 10, [])


def test_poses_and_video_of_slightly_different_lengths_are_used_as_far_as_all_go(raw):
    write_poses(raw, n_frames=21, millimetres=poses(19)[1])
    (track,), account = read(raw)
    assert track.frame_index[-1] == 18
    assert (account["found"], account["dropped"]) == (21, {"not_sampled": 10, "no_label": 1})
    longer = "1 of 21 labelled frames have no picture, the first is frame 20"
    assert account["notes"] == ["poses of 21 frames in 2D, of 19 in 3D", longer]
    write_poses(raw, n_frames=21)
    assert read(raw)[1]["dropped"] == {"not_sampled": 10, "no_picture": 1}


def test_what_is_not_finite_loses_its_own_label_only(raw):
    pixels, millimetres = poses()
    pixels[2, STORED_AT["lwrist"]] = np.nan
    pixels[3] = np.nan  # not sampled
    pixels[4] = np.inf
    pixels[6, STORED_AT["hip"], 0] = 1e9
    millimetres[8, STORED_AT["rknee"], 1] = np.inf
    millimetres[10, STORED_AT["hip"]] = np.nan  # the pelvis
    millimetres[14, STORED_AT["neck"], 2] = 1e30  # its square would be none in float32
    millimetres[12, 31] = np.nan  # a joint that is not used
    write_poses(raw, pixels=pixels, millimetres=millimetres)
    (track,), account = read(raw)
    assert account["dropped"] == {"not_sampled": 10, "no_visible_joint": 1}
    assert track.frame_index.tolist() == [0, 2, 6, 8, 10, 12, 14, 16, 18]
    np.testing.assert_array_equal(track.kp_2d[1, SPIN49.index("lwrist")], [0, 0, 0])
    np.testing.assert_array_equal(track.kp_2d[2, SPIN49.index("hip")], [0, 0, 0])
    assert track.frame_index[~track.has_3d].tolist() == [8, 10, 14]
    assert np.isnan(track.kp_3d[~track.has_3d]).all()
    assert np.isfinite(track.kp_3d[track.has_3d]).all()
    assert np.isfinite(track.kp_2d).all()
    without = "3 of the kept frames are not finite in 3D: without kp_3d"
    assert account["notes"] == ["36 joints are not finite in 2D: not used", without]


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b '
    '"&a;&a;&a;&a;">]><m>&b;</m>'
)


def test_intrinsics_are_the_camera_s_and_action_ids_become_file_names_by_the_subject(tmp_path):
    write_metadata(tmp_path)
    # both are action 14, subaction 2
    for subject, action in (("S1", "Walking"), ("S9", "Walking 1")):
        name = f"{subject}/{action}.58860488"
        write_poses(tmp_path, name)
        write_video(tmp_path, name)
        fits = {"14": {"2": {"6": fit_of(6)}}, "2": {}}
        write_fits(tmp_path, fits, subject=int(subject[1:]), cameras_in="annotations")
        (track,), _ = read(tmp_path, "train" if subject == "S1" else "val")
        # the third
        np.testing.assert_array_equal(track.intrinsics, [[1002, 0, 502], [0, 2002, 602], [0, 0, 1]])
        assert track.frame_index[track.has_smpl].tolist() == [6]
        expected = rotations()[2] @ Rotation.from_rotvec(fit_of(6)["pose"][:3]).as_matrix()
        np.testing.assert_allclose(
            Rotation.from_rotvec(track.pose[3, :3]).as_matrix(), expected, atol=1e-6
        )


def test_fits_without_metadata_cameras_or_this_sequence_are_noted_and_not_used(raw):
    write_fits(raw, {"2": {"2": {"0": fit_of(0)}}})
    assert "'action/subaction': expected 2/1, found none" in read(raw)[1]["notes"][0]
    write_fits(raw)
    file = raw / "smpl_param/Human36M_subject1_camera.json"
    stored = json.loads(file.read_text())
    stored["1"]["R"][0] = [-x for x in stored["1"]["R"][0]]  # it mirrors
    file.write_text(json.dumps(stored))
    assert "'54138969': expected a rotation" in read(raw)[1]["notes"][0]
    file.unlink()
    assert "expected Human36M_subject*_camera.json to go with it" in read(raw)[1]["notes"][0]
    (raw / "metadata.xml").unlink()
    (track,), account = read(raw)
    assert "expected metadata.xml to go with it" in account["notes"][1]
    assert not track.has_smpl.any()


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"text": BOMB}, "'dbcameras/index2id': expected this element"),
        ({"cameras": CAMERAS[::-1]}, "'index2id': expected 54138969, 55011271"),
        (
            '{"2": {"1": {"0": {"pose": [' + "1," * 71 + "1]}}}}",
            "'2/1/0/shape': expected 10 numbers, found 0",
        ),
        (
            json.dumps({"2": {"1": {"zero": fit_of(0)}}}),
            "'2/1': expected action, subaction and frame as numbers, found other keys",
        ),
        ('{"2": {"1": {"0": ' + '{"a": ' * 50_000, "found other lists"),
    ],
)
def test_metadata_and_fits_that_are_none_are_noted_and_the_labels_are_kept(raw, metadata, told):
    write_fits(raw, metadata) if isinstance(metadata, str) else write_metadata(raw, **metadata)
    (track,), account = read(raw)
    assert (track.intrinsics is None) == (not isinstance(metadata, str))
    assert (track.has_smpl.any(), len(track.frame_index)) == (False, 10)
    (note,) = account["notes"]
    assert note.startswith(
        "SMPL fits are not used: " if isinstance(metadata, str) else "not used: "
    )
    assert told in note
    assert len(note) < 1000


def test_fits_that_are_not_finite_are_not_used_and_of_two_of_a_frame_the_last_is(raw):
    (before,) = H36M.videos(raw, "train")
    wild = fit_of(2) | {"pose": [1e300, *fit_of(2)["pose"][1:]]}  # beyond float32
    frames = (("2", wild), ("0", fit_of(7)), ("0", fit_of(0)))
    text = ", ".join(f'"{frame}": {json.dumps(fit)}' for frame, fit in frames)
    write_fits(raw, f'{{"2": {{"1": {{{text}}}}}}}')
    (track,), _ = read(raw)
    assert track.frame_index[track.has_smpl].tolist() == [0]
    np.testing.assert_allclose(track.betas[0], fit_of(0)["shape"], rtol=1e-6)
    # They are inputs, so that adding them reads the video again.
    (after,) = H36M.videos(raw, "train")
    added = {file.relative_to(raw) for file in (raw / "smpl_param").iterdir()}
    assert (set(after.files) - set(before.files), Path("metadata.xml") in before.files) == (
        added,
        True,
    )
