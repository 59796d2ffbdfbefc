"""Human3.6M's release: what changes of the demo data give, for every rule and quirk."""

import functools
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline import datasets
from pipeline.files.pixels.frames import Video
from pipeline.people.skeletons import JOINTS
from tests.pipeline.datasets import by_hand
from tests.pipeline.datasets.by_hand import read_video, require
from tests.pipeline.datasets.contract import HALF, N_FRAMES, RENUMBERED, SHIFTED, ImageFolders
from tests.pipeline.datasets.label_files import edit_labels, load_labels

H36M = datasets.get("h36m")
SPIN49 = JOINTS["spin49"]
N = 16  # frames, of which every second is used; all but the last have a fit
STEM = "Walking 1.54138969"
NAME = f"S1/{STEM}"
VIDEO = f"S1/Videos/{STEM}.mp4"
FITS, CAMERAS = (f"smpl_param/Human36M_subject1_{kind}.json" for kind in ("smpl_param", "camera"))
PIXELS, MILLIMETRES = (
    f"S1/MyPoseFeatures/{kind}/{STEM}.cdf" for kind in ("D2_Positions", "D3_Positions_mono")
)
# Which of the 32 stored joints some are, as DATASETS.md has it.
STORED_AT = {"hip": 11, "rknee": 2, "neck": 24, "lwrist": 19}


@pytest.fixture
def raw(embedded, tmp_path):
    return embedded.copy("h36m", tmp_path / "h36m")


read = functools.partial(read_video, H36M, split="train", name=NAME)


def write_video(raw, n_frames, fps=50.0):
    by_hand.write_video(raw / VIDEO, n_frames, fps, (300, 302))


def take_rows(raw, file, rows):
    """Frames of a pose file; those after the last are the last one."""
    edit_labels(raw / file, lambda labels: {"Pose": labels["Pose"][np.minimum(rows, N - 1)]})


def test_subjects_decide_the_split_and_what_else_lies_there_is_no_sequence(tmp_path):
    for subject in ("S1", "S11", "S5", "S9", "S7", "S2"):
        for kind in ("D2_Positions", "D3_Positions_mono"):
            folder = tmp_path / subject / "MyPoseFeatures" / kind
            by_hand.touch(folder, "Walking 1.60457274.cdf", "_ALL.54138969.cdf")
    by_hand.touch(tmp_path / "S1/Videos", "._Directions 1.54138969.mp4", "_ALL 1.54138969.mp4")
    by_hand.touch(tmp_path / "S1/images/_ALL_1.54138969", "000000.jpg", "000001.jpg")
    for split, listed in (("train", ["S1", "S5", "S7"]), ("val", ["S11", "S9"])):
        names = [video.name for video in H36M.videos(tmp_path, split)]
        assert names == [f"{subject}/Walking 1.60457274" for subject in listed]


@pytest.mark.promise("problems of Human3.6M")
def test_a_video_without_a_frame_or_without_both_pose_files_is_set_aside(raw):
    avi = by_hand.write_video(raw / "pictures.avi", N, 50.0, (64, 48)).read_bytes()
    jpegs = re.compile(rb"\xff\xd8\xff.*?\xff\xd9", flags=re.DOTALL)
    (raw / VIDEO).write_bytes(jpegs.sub(lambda one: bytes(len(one[0])), avi))
    assert Video(raw, VIDEO).header() == (N, 50.0, 64, 48)
    require(read(raw), refused="video_unreadable")
    for file, n in ((PIXELS, {"no_label": N}), (MILLIMETRES, {})):
        (raw / file).unlink()
        require(read(raw), [], n, refused="no_label")


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1000, 1000), ""),
        ((1000, 1002), ""),
        ((900, 902), "other_picture_size"),
        ((980, 980), "other_picture_size"),
    ],
)
def test_videos_of_another_size_than_the_release_s_are_refused(size, reason, raw):
    (raw / "STAND_IN.json").unlink()
    by_hand.write_video(raw / VIDEO, N, 50.0, size)
    found = read(raw)
    require(found, refused=reason)
    if reason:
        told = f"'size': expected 1000 x 1000 px, as in {STEM}.cdf, found {size[0]} x {size[1]}"
        assert told in found[1]["message"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: write_video(raw, 13), "frame_count_mismatch"),
        (lambda raw: write_video(raw, 24, fps=25.0), "frame_count_mismatch"),
        (lambda raw: take_rows(raw, MILLIMETRES, range(8)), "frame_count_mismatch"),
        (
            lambda raw: edit_labels(raw / MILLIMETRES, lambda _: {"Pose": np.ones((N, 51))}),
            "bad_label_file",
        ),
    ],
)
def test_another_length_rate_or_skeleton_is_refused(change, reason, raw):
    change(raw)
    require(read(raw), dropped={reason: N}, refused=reason)


@pytest.mark.promise("problems of Human3.6M")
@pytest.mark.parametrize(
    ("folder", "name", "first"),
    [
        ("images/Walking_1.54138969", "frame_{:04d}.jpg", 0),
        ("Images/S1_Walking_1.54138969", "S1_Walking_1.54138969_{:06d}.jpg", 1),
        (f"imageSequence/{STEM}", "img_{:06d}.png", 1),
    ],
)
def test_pictures_take_the_place_of_a_video(raw, folder, name, first):
    (raw / VIDEO).unlink()
    by_hand.touch(raw / "S1" / folder, *map(name.format, range(first, first + N)))
    (track,) = require(read(raw), [range(0, N, 2)])
    assert track.frames.path(4) == raw / "S1" / folder / name.format(4 + first)


@pytest.mark.promise("problems of Human3.6M")
def test_poses_and_video_of_slightly_different_lengths_are_used_as_far_as_all_go(raw):
    take_rows(raw, PIXELS, range(N + 1))
    found = read(raw)
    require(found, [range(0, N, 2)], {"not_sampled": N // 2, "no_label": 1})
    assert found[1]["notes"][:2] == [
        f"poses of {N + 1} frames in 2D, of {N} in 3D",
        f"1 of {N + 1} labelled frames have no picture, the first is frame {N}",
    ]
    take_rows(raw, MILLIMETRES, range(N + 1))
    require(read(raw), dropped={"not_sampled": N // 2, "no_picture": 1})


def test_what_is_not_finite_loses_its_own_label_only(raw):
    def change_pixels(labels):
        joints = labels["Pose"].reshape(N, 32, 2)
        joints[2, STORED_AT["lwrist"]] = np.nan
        joints[3] = np.nan  # not sampled
        joints[4] = np.inf
        joints[6, STORED_AT["hip"], 0] = 1e9

    def change_millimetres(labels):
        joints = labels["Pose"].reshape(N, 32, 3)
        joints[8, STORED_AT["rknee"], 1] = np.inf
        joints[10, STORED_AT["hip"]] = np.nan  # the pelvis
        joints[14, STORED_AT["neck"], 2] = 1e30  # its square would be none in float32
        joints[12, 31] = np.nan  # a joint that is not used

    edit_labels(raw / PIXELS, change_pixels)
    edit_labels(raw / MILLIMETRES, change_millimetres)
    found = read(raw)
    dropped = {"not_sampled": N // 2, "no_visible_joint": 1}
    (track,) = require(found, [[0, 2, 6, 8, 10, 12, 14]], dropped)
    assert found[1]["notes"][:2] == [
        "36 joints are not finite in 2D: not used",
        "3 of the kept frames are not finite in 3D: without kp_3d",
    ]
    for row, joint in ((1, "lwrist"), (2, "hip")):
        np.testing.assert_array_equal(track.kp_2d[row, SPIN49.index(joint)], [0, 0, 0])
    assert track.frame_index[~track.has_3d].tolist() == [8, 10, 14]
    assert np.isnan(track.kp_3d[~track.has_3d]).all()


def rename(raw, name):
    """Give the sequence another name."""
    for old in (PIXELS, MILLIMETRES, VIDEO):
        new = raw / old.replace("S1", name.partition("/")[0]).replace(STEM, name.partition("/")[2])
        new.parent.mkdir(parents=True, exist_ok=True)
        (raw / old).rename(new)


@pytest.mark.promise("problems of Human3.6M")
@pytest.mark.parametrize(("subject", "action"), [(1, "Walking 2"), (6, "Walking 1")])
def test_intrinsics_are_the_camera_s_and_action_ids_become_file_names_by_the_subject(
    subject, action, raw
):
    """Both are action 14, subaction 2."""
    fit = load_labels(raw / FITS)["14"]["1"]["6"]
    (raw / "smpl_param").rename(raw / "annotations")
    cameras = (raw / f"annotations/{Path(CAMERAS).name}").rename(raw / "annotations/camera")
    shutil.rmtree(raw / "smpl_param", ignore_errors=True)
    (raw / "smpl_param").mkdir()
    cameras.rename(raw / f"annotations/Human36M_subject{subject}_camera.json")
    text = json.dumps({"14": {"2": {"6": fit}}, "2": {}})
    (raw / f"smpl_param/Human36M_subject{subject}_smpl_param.json").write_text(text)
    name = f"S{subject}/{action}.58860488"
    rename(raw, name)
    (track,), _ = read(raw, name=name)
    camera = load_labels(raw / f"annotations/Human36M_subject{subject}_camera.json")["3"]
    f, c = camera["f"], camera["c"]
    expected = np.float32([[f[0], 0, c[0]], [0, f[1], c[1]], [0, 0, 1]])
    np.testing.assert_allclose(track.intrinsics, expected)
    assert track.frame_index[track.has_smpl].tolist() == [6]
    turned = Rotation.from_rotvec(track.pose[3, :3]).as_matrix()
    world = Rotation.from_rotvec(fit["pose"][:3]).as_matrix()
    np.testing.assert_allclose(turned, np.array(camera["R"]) @ world, atol=1e-6)


def change_fits(change):
    return lambda raw: edit_labels(raw / FITS, change)


def write_fits(raw, text):
    (raw / FITS).write_text(text)


def write_bomb(raw):
    """Entities that grow."""
    entities = '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">'
    text = f'<?xml version="1.0"?><!DOCTYPE m [{entities}]><m>&b;</m>'
    (raw / "metadata.xml").write_text(text)


def exchange_cameras(raw):
    text = (raw / "metadata.xml").read_text()
    ids = (">54138969<", ">60457274<")
    swapped = text.replace(ids[0], ">0<").replace(ids[1], ids[0]).replace(">0<", ids[1])
    (raw / "metadata.xml").write_text(swapped)


UNUSED = {  # what is done to the fits or to metadata.xml, and words of the note
    "not this sequence": (change_fits(lambda fits: {"14": {"2": {}}}), "'action/subaction'"),
    "no cameras": (lambda raw: (raw / CAMERAS).unlink(), "expected Human36M_subject*_camera.json"),
    "no metadata": (lambda raw: (raw / "metadata.xml").unlink(), "expected metadata.xml"),
    "a bomb": (write_bomb, "'dbcameras/index2id': expected this element"),
    "other cameras": (exchange_cameras, "'index2id': expected"),
    "no shape": (
        change_fits(lambda fits: fits["14"]["1"]["0"].update(shape=[])),
        "'14/1/0/shape': expected 10 numbers",
    ),
    "too deep": (
        lambda raw: write_fits(raw, '{"14": {"1": {"0": ' + '{"a": ' * 50_000),
        "found other lists",
    ),
}


@pytest.mark.parametrize("change", UNUSED)
def test_fits_and_metadata_that_do_not_fit_are_noted_and_the_labels_are_kept(raw, change):
    spoil, words = UNUSED[change]
    spoil(raw)
    (track,), account = read(raw)
    assert (track.has_smpl.any(), len(track.frame_index)) == (False, N // 2)
    is_metadata = change in ("no metadata", "a bomb", "other cameras")
    assert (track.intrinsics is None) == is_metadata
    assert any(words in note for note in account["notes"]), account["notes"]
    assert max(map(len, account["notes"])) < 1000


def test_fits_that_are_not_finite_are_not_used_and_of_two_of_a_frame_the_last_is(raw):
    fits = load_labels(raw / FITS)["14"]["1"]
    fits["2"]["pose"][0] = 1e300  # beyond float32
    other = fits["0"] | {"shape": [0.5] * 10}
    frames = (("2", fits["2"]), ("0", other), ("0", fits["0"]))
    text = ", ".join(f'"{frame}": {json.dumps(fit)}' for frame, fit in frames)
    write_fits(raw, f'{{"14": {{"1": {{{text}}}}}}}')
    (track,), _ = read(raw)
    assert track.frame_index[track.has_smpl].tolist() == [0]
    np.testing.assert_allclose(track.betas[0], fits["0"]["shape"], rtol=1e-6)
    # They are inputs, so that adding them reads the video again.
    (after, _) = H36M.videos(raw, "train")
    (raw / "smpl_param").rename(raw / "elsewhere")
    (before, _) = H36M.videos(raw, "train")
    assert {*after.files} - {*before.files} == {Path(FITS), Path(CAMERAS)}
    assert Path("metadata.xml") in before.files


class TestHuman36M(ImageFolders):
    dataset, video = "h36m", "S1/Walking 1.54138969"
    images = f"S1/images/{video[3:]}"
    released_size = 1000, 1002
    refused = frozenset(
        {
            "first missing",
            "more labels than images",  # under 90 %
            RENUMBERED,
            HALF,
        }
    )
    undecided = frozenset({SHIFTED})  # videos have more frames than poses

    def write(self, demo, takes, raw):
        super().write(demo, takes, raw)
        file = raw / f"S1/Videos/{self.video[3:]}.mp4"
        (raw / self.images).mkdir(parents=True)
        for frame in Video(raw, file.relative_to(raw).as_posix()).read(range(N_FRAMES)):
            name = raw / self.images / f"{frame.index:06d}.png"
            cv2.imwrite(str(name), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        file.unlink()
