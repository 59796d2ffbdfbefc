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
from tests.pipeline.datasets.by_hand import require

H36M = datasets.get("h36m")
SPIN49 = JOINTS["spin49"]
N = 20
STEM = "Directions 1.54138969"
NAME = f"S1/{STEM}"
CAMERAS = ("54138969", "55011271", "58860488", "60457274")
# Which of the 32 stored joints some are, as DATASETS.md has it.
STORED_AT = {"hip": 11, "rknee": 2, "neck": 24, "lwrist": 19}
KINDS = ("D2_Positions", "D3_Positions_mono")


def poses(n_frames=N):
    """(F, 32, 2) px and (F, 32, 3) mm: joint j at (200 + 5 j + t, 300 + 3 j), and at (10 j + t, -20
    j, 4000 + j).
    """
    t, j = np.mgrid[:n_frames, :32].astype(float)
    pixels = np.stack([200 + 5 * j + t, 300 + 3 * j], axis=-1)
    return pixels, np.stack([10 * j + t, -20 * j, 4000 + j], axis=-1)


def pose_file(raw, kind, name=NAME):
    subject, _, stem = name.partition("/")
    return raw / subject / "MyPoseFeatures" / kind / f"{stem}.cdf"


def write_poses(raw, name=NAME, n_frames=N, **changed):
    """changed: arrays by kind, in the place of the usual ones."""
    for kind, usual in zip(KINDS, poses(n_frames), strict=True):
        values = changed.get(kind, usual)
        file = pose_file(raw, kind, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        write_cdf(file, values.reshape(len(values), -1))


def write_video(raw, name=NAME, n_frames=N, fps=50.0):
    subject, _, stem = name.partition("/")
    by_hand.write_video(raw / subject / "Videos" / f"{stem}.mp4", n_frames, fps, (480, 416))


def write_metadata(raw, cameras=CAMERAS):
    """metadata.xml with two takes: ids (2, 1) and (14, 2), which S1 and S9 call otherwise. f = 1000
    + camera.
    """
    subjects = [f"S{k}" for k in range(1, 12)]
    rows = [["", "", *subjects]]
    rows += [["2", "1", *("Directions" if s == "S9" else "Directions 1" for s in subjects)]]
    rows += [["14", "2", *("Walking 1" if s == "S9" else "Walking" for s in subjects)]]
    rows += [["note", "", *subjects]]
    w0 = [0.5] * (4 * 11 * 6)
    for camera in range(4):
        w0 += [1000.0 + camera, 2000 + camera, 500 + camera, 600 + camera, 0.1, 0.1, 0.1, 0.1, 0.1]
    table = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    ids = "".join(f"<id>{camera}</id>" for camera in cameras)
    body = f"<dbcameras><index2id>{ids}</index2id></dbcameras><w0>[{' '.join(map(str, w0))}]</w0>"
    text = f"<metadata><mapping>{table}</mapping>{body}</metadata>"
    (raw / "metadata.xml").write_text(text)


ROTATIONS = [[0.3, -1, 2], [1, 1, 1], [0, 0, 3], [-2, 0.1, 0.5]]
TURNS = Rotation.from_rotvec(ROTATIONS).as_matrix()  # of the four cameras


def fit_of(frame):
    rng = np.random.default_rng(frame)
    pose, shape = rng.normal(0, 0.4, 72), rng.normal(0, 1, 10)
    return {"pose": pose.tolist(), "shape": shape.tolist(), "trans": [1.0, 2.0, 3.0]}


def write_fits(raw, fits=None, *, subject=1, cameras_in="smpl_param"):
    """fits: the file's text, else what becomes JSON (default: five frames of the sequence)."""
    if fits is None:
        fits = {"2": {"1": {str(frame): fit_of(frame) for frame in (0, 2, 4, 8, 10)}}}
    for folder in {"smpl_param", cameras_in}:
        (raw / folder).mkdir(exist_ok=True)
    stored = {
        str(i): {"R": turn.tolist(), "t": [1, 2, 3], "f": [1, 1]} for i, turn in enumerate(TURNS, 1)
    }
    (raw / cameras_in / f"Human36M_subject{subject}_camera.json").write_text(json.dumps(stored))
    text = fits if isinstance(fits, str) else json.dumps(fits)
    (raw / f"smpl_param/Human36M_subject{subject}_smpl_param.json").write_text(text)


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
    by_hand.touch(tmp_path / "S1/Videos", "._Directions 1.54138969.mp4")
    by_hand.touch(tmp_path / "S1/images/_ALL_1.54138969", "000000.jpg", "000001.jpg")
    for split, listed in (("train", ["S1", "S5", "S7"]), ("val", ["S11", "S9"])):
        names = [video.name for video in H36M.videos(tmp_path, split)]
        assert names == [f"{subject}/Walking 1.60457274" for subject in listed]


def test_a_video_without_a_frame_or_without_both_pose_files_is_set_aside(raw):
    avi = by_hand.write_video(raw / "pictures.avi", N, 50.0, (64, 48)).read_bytes()
    jpegs = re.compile(rb"\xff\xd8\xff.*?\xff\xd9", flags=re.DOTALL)
    (raw / f"S1/Videos/{STEM}.mp4").write_bytes(jpegs.sub(lambda one: bytes(len(one[0])), avi))
    assert Video(raw, f"S1/Videos/{STEM}.mp4").header() == (N, 50.0, 64, 48)
    require(read(raw), refused="video_unreadable")
    for kind, n in zip(KINDS, ({"no_label": N}, {}), strict=True):
        pose_file(raw, kind).unlink()
        require(read(raw), [], n, refused="no_label")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: write_video(raw, n_frames=17), "frame_count_mismatch"),
        (lambda raw: write_video(raw, n_frames=30, fps=25.0), "frame_count_mismatch"),
        (lambda raw: write_poses(raw, D3_Positions_mono=poses(10)[1]), "frame_count_mismatch"),
        (lambda raw: write_poses(raw, D3_Positions_mono=np.ones((N, 51))), "bad_label_file"),
    ],
)
def test_another_length_rate_or_skeleton_is_refused(change, reason, raw):
    change(raw)
    require(read(raw), dropped={reason: N}, refused=reason)


def test_a_short_video_without_a_rate_is_refused_by_its_number_of_frames(raw, monkeypatch):
    write_video(raw, n_frames=15)
    record = Video(raw, f"S1/Videos/{STEM}.mp4").record()
    unknown = replace(record, header_fps=math.nan, times=np.full(15, math.nan))
    monkeypatch.setattr(Video, "record", lambda _: unknown)
    require(read(raw), refused="frame_count_mismatch")


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
    (track,) = require(read(raw), [range(0, N, 2)], notes=[])
    assert track.frames.path(4) == raw / "S1" / folder / name.format(4 + first)
    assert track.video == NAME


def test_poses_and_video_of_slightly_different_lengths_are_used_as_far_as_all_go(raw):
    write_poses(raw, n_frames=21, D3_Positions_mono=poses(19)[1])
    notes = ["poses of 21 frames in 2D, of 19 in 3D", "1 of 21 labelled frames have no picture"]
    require(read(raw), [range(0, 19, 2)], {"not_sampled": 10, "no_label": 1}, notes)
    write_poses(raw, n_frames=21)
    require(read(raw), dropped={"not_sampled": 10, "no_picture": 1})


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
    write_poses(raw, D2_Positions=pixels, D3_Positions_mono=millimetres)
    frames = [0, 2, 6, 8, 10, 12, 14, 16, 18]
    notes = ["36 joints are not finite in 2D", "3 of the kept frames are not finite in 3D"]
    (track,) = require(read(raw), [frames], {"not_sampled": 10, "no_visible_joint": 1}, notes)
    for row, joint in ((1, "lwrist"), (2, "hip")):
        np.testing.assert_array_equal(track.kp_2d[row, SPIN49.index(joint)], [0, 0, 0])
    assert track.frame_index[~track.has_3d].tolist() == [8, 10, 14]
    assert np.isnan(track.kp_3d[~track.has_3d]).all()
    assert np.isfinite(track.kp_3d[track.has_3d]).all()
    assert np.isfinite(track.kp_2d).all()


def test_intrinsics_are_the_camera_s_and_action_ids_become_file_names_by_the_subject(tmp_path):
    write_metadata(tmp_path)
    # both are action 14, subaction 2
    for split, subject, action in (("train", 1, "Walking"), ("val", 9, "Walking 1")):
        name = f"S{subject}/{action}.58860488"
        write_poses(tmp_path, name)
        write_video(tmp_path, name)
        fits = {"14": {"2": {"6": fit_of(6)}}, "2": {}}
        write_fits(tmp_path, fits, subject=subject, cameras_in="annotations")
        (track,), _ = read(tmp_path, split)
        # the third
        np.testing.assert_array_equal(track.intrinsics, [[1002, 0, 502], [0, 2002, 602], [0, 0, 1]])
        assert track.frame_index[track.has_smpl].tolist() == [6]
        expected = TURNS[2] @ Rotation.from_rotvec(fit_of(6)["pose"][:3]).as_matrix()
        turned = Rotation.from_rotvec(track.pose[3, :3]).as_matrix()
        np.testing.assert_allclose(turned, expected, atol=1e-6)


def mirror(raw):
    file = raw / "smpl_param/Human36M_subject1_camera.json"
    stored = json.loads(file.read_text())
    stored["1"]["R"][0] = [-x for x in stored["1"]["R"][0]]
    file.write_text(json.dumps(stored))


def write_bomb(raw):
    """Entities that grow."""
    entities = '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">'
    text = f'<?xml version="1.0"?><!DOCTYPE m [{entities}]><m>&b;</m>'
    (raw / "metadata.xml").write_text(text)


DEEP = '{"2": {"1": {"0": ' + '{"a": ' * 50_000
UNUSED = {  # what is done to the fits or to metadata.xml, and words of the note
    "not this sequence": (lambda raw: write_fits(raw, {"2": {"2": {}}}), "'action/subaction'"),
    "a mirror": (mirror, "'54138969': expected a rotation"),
    "no cameras": (
        lambda raw: (raw / "smpl_param/Human36M_subject1_camera.json").unlink(),
        "expected Human36M_subject*_camera.json",
    ),
    "no metadata": (lambda raw: (raw / "metadata.xml").unlink(), "expected metadata.xml"),
    "a bomb": (write_bomb, "'dbcameras/index2id': expected this element"),
    "other cameras": (lambda raw: write_metadata(raw, CAMERAS[::-1]), "'index2id': expected"),
    "no shape": (
        lambda raw: write_fits(raw, {"2": {"1": {"0": {"pose": [1] * 72}}}}),
        "'2/1/0/shape': expected 10 numbers",
    ),
    "words for numbers": (
        lambda raw: write_fits(raw, {"2": {"1": {"zero": fit_of(0)}}}),
        "'2/1': expected action, subaction and frame as numbers",
    ),
    "too deep": (lambda raw: write_fits(raw, DEEP), "found other lists"),
}


@pytest.mark.parametrize("change", UNUSED)
def test_fits_and_metadata_that_do_not_fit_are_noted_and_the_labels_are_kept(raw, change):
    write_fits(raw)
    spoil, words = UNUSED[change]
    spoil(raw)
    (track,), account = read(raw)
    assert (track.has_smpl.any(), len(track.frame_index)) == (False, 10)
    is_metadata = change in ("no metadata", "a bomb", "other cameras")
    assert (track.intrinsics is None) == is_metadata
    assert any(words in note for note in account["notes"]), account["notes"]
    assert max(map(len, account["notes"])) < 1000


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
    assert {*after.files} - {*before.files} == added
    assert Path("metadata.xml") in before.files
