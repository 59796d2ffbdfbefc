"""Human3.6M as images and JSON files: made-up files of these forms, beside the release's own layout
of one scene.
"""

import functools
import os
import shutil

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.datasets.h36m import json_layout
from pipeline.files.pixels.frames import Video
from tests.hostile import memory_peak
from tests.pipeline.datasets import by_hand
from tests.pipeline.datasets.by_hand import read_video, require, write_json
from tests.pipeline.datasets.contract import (
    ANOTHER_START,
    HALF,
    N_FRAMES,
    RENUMBERED,
    SHIFTED,
    ImageFolders,
)
from tests.pipeline.datasets.made_h36m_json import (
    EVERY,
    FOLDER,
    NAME,
    annotation,
    joints,
    ring,
    write_images,
    write_scene,
    write_subject,
)

H36M = datasets.get("h36m")


# its braces alone have a sequence 2/1
AS_IF_2_1 = {"5": {"a": "}", "2": {"1": joints()}, "b": "{"}}


@pytest.fixture
def raw(tmp_path):
    write_subject(tmp_path)
    write_images(tmp_path)
    return tmp_path


read = functools.partial(by_hand.read_one, H36M)


@pytest.mark.promise("problems of Human3.6M")
@pytest.mark.parametrize("is_place", [False, True], ids=["t", "place"])
@pytest.mark.parametrize(("split", "fits"), [("train", "smpl_param"), ("val", "SMPL_NeuralAnnot")])
def test_the_release_and_these_files_of_one_scene_give_the_same_rows(
    split, fits, is_place, embedded, tmp_path
):
    released = {track.name: track for track in H36M.tracks(embedded.raw("h36m"), split)}
    takes = [
        take
        for take in embedded.takes("h36m")
        if take.shot.name.startswith(("S1/Walking", "S9/Posing"))
    ]
    takes = [take for take in takes if take.shot.split == split][-2:]
    for take in takes:
        write_scene(take, tmp_path, is_place=is_place, fits=fits)
    tracks = list(H36M.tracks(tmp_path, split))
    assert [track.video for track in tracks] == sorted(take.shot.name for take in takes)
    for track in tracks:
        other = released[track.name]
        assert (track.fps, track.step) == (50, 2)
        np.testing.assert_array_equal(track.frame_index, other.frame_index)
        assert track.has_3d.all() and track.has_smpl.all()
        pairs = [(track.extra[key], other.extra[key]) for key in ("extrinsics", "up")]
        pairs += [(track.kp_3d, other.kp_3d), (track.intrinsics, other.intrinsics)]
        if split == "val":
            pairs.append((track.kp_3d_eval, other.kp_3d_eval))
        else:
            fitted = other.has_smpl
            pairs.append((track.pose[fitted, 3:], other.pose[fitted, 3:]))
            pairs.append((turns(track)[fitted], turns(other)[fitted]))
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-4)
        np.testing.assert_allclose(track.kp_2d, other.kp_2d, atol=1e-2)
        np.testing.assert_allclose(track.bbox, other.bbox, atol=1e-2)


def turns(track):
    return Rotation.from_rotvec(track.pose[:, :3]).as_matrix()


@pytest.mark.promise("problems of Human3.6M")
@pytest.mark.parametrize(
    ("frames", "kept", "step", "n_missing"),
    [
        (EVERY, range(0, 40, 2), 2, 0),
        (range(0, 40, 2), range(0, 40, 2), 2, 0),
        (range(0, 40, 5), range(0, 40, 5), 5, 0),
        (range(3, 40, 3), range(3, 40, 3), 3, 1),
        ([0, 5, 10, 20, 25, 30, 31, 35], [0, 5, 10, 20, 25, 30, 35], 5, 1),
        ([*range(10), *range(17, 40)], [0, 2, 4, 6, 8, *range(18, 40, 2)], 2, 4),
        ([4], [4], 1, 19),
    ],
)
def test_every_second_frame_is_used_or_all_images_of_every_s_th(frames, kept, step, n_missing, raw):
    shutil.rmtree(raw / "images")
    write_images(raw, frames)
    found = read(raw)
    (track,) = require(found, [kept])
    assert (track.name, track.fps, track.step) == (f"{NAME}/0", 50.0, step)
    not_sampled = 40 - len(kept) - n_missing
    dropped = {"not_sampled": not_sampled, "no_picture": n_missing}
    assert found[1]["dropped"] == {reason: n for reason, n in dropped.items() if n}
    assert track.frames.path(kept[0]).name == f"{FOLDER}_{kept[0] + 1:06d}.jpg"


@pytest.mark.promise("problems of Human3.6M")
def test_the_210_sequences_have_the_release_s_names_and_are_found_in_it(tmp_path):
    names = json_layout.NAMES
    assert (
        len(names) == len({(subject, name) for (subject, _), name in names.items()}) == 7 * 15 * 2
    )
    expected = """S1 2/1 Directions 1, S1 2/2 Directions, S1 4/1 Eating 2, S1 12/2 TakingPhoto, S1 15/1 WalkingDog 1,
        S5 3/2 Discussion 3, S5 10/1 SittingDown, S5 12/2 Photo 2, S6 13/1 Waiting 3,
        S7 14/2 Walking 2,
        S8 16/2 WalkTogether 2, S9 13/1 Waiting 1, S9 10/2 SittingDown 1, S11 6/1 Phoning 3, S11 11/2 Smoking"""
    for subject, take, name in (text.split(maxsplit=2) for text in expected.split(",")):
        action, subaction = map(int, take.split("/"))
        assert names[subject, (action, subaction)] == name
    for release in ("WalkDog", "WalkingDog"):  # downloads have either
        raw = tmp_path / release
        write_subject(raw)
        write_images(raw, folder="s_01_act_15_subact_01_ca_04")
        assert [video.name for video in H36M.videos(raw, "train")] == ["S1/WalkingDog 1.60457274"]
        stem = f"{release} 1.60457274"
        by_hand.touch(raw / "S1/Videos", f"{stem}.mp4")
        for kind in ("D2_Positions", "D3_Positions_mono"):
            by_hand.touch(raw / "S1/MyPoseFeatures" / kind, f"{stem}.cdf")
        by_hand.touch(raw, "metadata.xml")
        assert [video.name for video in H36M.videos(raw, "train")] == [f"S1/{stem}"]


def test_cameras_that_see_nothing_cost_their_subject_and_are_named(raw):
    for subject, cameras in ((5, ring(is_place=True)), (6, ring()), (7, ring())):
        write_subject(raw, subject, **cameras)
        write_images(raw, folder=FOLDER.replace("s_01", f"s_{subject:02d}"))
    for subject, key, value in ((6, "t", [0, 0, -5e3]), (7, "R", (-np.eye(3)).tolist())):
        cameras = ring()
        cameras["3"][key] = value
        write_json(annotation(raw, "camera", subject), cameras)
    report = Accounting()
    tracks = list(H36M.tracks(raw, "train", report=report))
    assert [track.video for track in tracks] == [NAME, NAME.replace("S1", "S5")]
    for account in list(report)[2:]:
        assert (account.set_aside, account.dropped) == ("bad_camera", {"bad_camera": 40})
        assert (
            f"subject{account.name[1]}_camera.json: 'camera 3': expected a rotation R, and a t"
            in account.message
        )


@pytest.mark.parametrize(
    ("damage", "reason", "message"),
    [
        (lambda raw: annotation(raw, "joint_3d").unlink(), "no_label", "only images"),
        (lambda raw: write_json(annotation(raw, "joint_3d"), {"3": {"1": joints()}}), "no_label", "'2/1'"),
        (lambda raw: write_json(annotation(raw, "joint_3d"), {"2": {"1": {"0": [[1]]}}}), "bad_label_file", "(1, 1, 1"),
        (lambda raw: annotation(raw, "joint_3d").write_text('{"2": {"1": {"0": [['), "bad_label_file", "ends early"),
        (lambda raw: write_json(annotation(raw, "joint_3d"), AS_IF_2_1), "bad_label_file", "a text with } at byte 13"),
        (lambda raw: [file.unlink() for file in (raw / "images" / FOLDER).iterdir()], "no_picture", "40 images"),
        (lambda raw: write_images(raw, size=(500, 501)), "other_picture_size", "principal point"),
    ],
)  # fmt: skip
def test_what_is_missing_or_damaged_is_refused_with_its_file(damage, reason, message, raw):
    damage(raw)
    error = by_hand.refusal(H36M, raw)
    assert error.reason == reason
    assert message in str(error)


def test_labels_that_are_not_finite_images_without_labels_and_damaged_sequences_are_noted(raw):
    poses = joints()
    poses["4"][0] = [float("nan")] * 3
    poses["6"] = [[1e9] * 3] * 17
    write_json(annotation(raw, "joint_3d"), {"2": {"1": poses}})
    write_images(raw, [40, 41])
    (track,), account = read(raw)
    assert account["dropped"] == {"not_sampled": 20, "no_visible_joint": 1}
    assert track.frame_index[~track.has_3d].tolist() == [4]
    assert account["notes"][0] == "2 of 42 images have no joints: not used"
    assert "1 of the kept frames are not finite in 3D: without kp_3d" in account["notes"]
    write_json(annotation(raw, "joint_3d", 9), {"5": {"2": joints()}})
    write_json(annotation(raw, "camera", 9), ring())
    write_images(raw, folder="s_09_act_05_subact_02_ca_01")
    assert read(raw, "val")[1]["notes"] == ["its labels lie off the images"]


def test_the_release_counts_for_the_sequences_of_which_it_is_complete(embedded, tmp_path, into):
    takes = [take for take in embedded.takes("h36m") if take.shot.name.startswith("S1/")]
    raw, release, root = tmp_path / "raw", embedded.raw("h36m"), tmp_path / "cache"
    for take in takes:
        write_scene(take, raw, is_place=False, fits="smpl_param")
    write_subject(raw, 5)
    write_images(raw, folder=FOLDER.replace("s_01", "s_05"))
    shutil.copy(release / "STAND_IN.json", raw)
    convert = functools.partial(into.convert, root, raw, "h36m")
    n_others = 1
    assert convert().document["accounting"]["videos"]["kept"] == len(takes) + n_others
    shutil.copytree(release / "S1", raw / "S1")
    assert convert().document["read"] == 0, (
        "without metadata.xml, and so without cameras, it does not count"
    )
    shutil.copy(release / "metadata.xml", raw)
    last = convert().document
    assert (last["read"], last["unchanged"], last["removed"]) == (len(takes), n_others, [])
    assert last["notes"][0].endswith("images/s_01_act_14_subact_01_ca_01 is not used")
    (raw / "S1/MyPoseFeatures").rename(tmp_path / "elsewhere")
    _, account = read_video(H36M, raw, "train", takes[0].shot.name)
    assert account["notes"][0].endswith("S1/ lacks poses, frames or metadata.xml")


def test_memory_is_that_of_one_sequence_however_many_its_subject_has(tmp_path):
    peaks = []
    fit = {"pose": [0.1] * 72, "shape": [0.2] * 10, "trans": [0.3] * 3}
    for n_actions in (2, 8):
        raw = tmp_path / str(n_actions)
        write_subject(raw, n_actions=n_actions)
        write_images(raw)
        take = {str(t): fit for t in EVERY}
        fits = {str(a): {"1": take, "2": take} for a in range(2, 2 + n_actions)}
        write_json(annotation(raw, "smpl_param"), fits)
        read(raw)  # imports
        os.utime(annotation(raw, "smpl_param"), ns=(1, 1))  # it is searched again
        peaks.append(memory_peak(lambda raw=raw: read(raw)))
        assert read(raw)[0][0].has_smpl.all()
    assert peaks[1] < 1.05 * peaks[0]


class TestHuman36MOfJson(ImageFolders):
    dataset, video = "h36m", "S1/Walking 1.54138969"
    images, first = "images/s_01_act_14_subact_01_ca_01", 1
    refused = frozenset(
        ANOTHER_START
        | {
            "more labels than images",  # under 90 %
            RENUMBERED,
            HALF,
        }
    )
    undecided = frozenset({SHIFTED})

    def write(self, demo, takes, raw):
        (take,) = (take for take in takes if take.shot.name == self.video)
        write_scene(take, raw, is_place=False, fits="smpl_param")
        frames = Video(demo, f"S1/Videos/{self.video[3:]}.mp4").read(range(N_FRAMES))
        for file, frame in zip(sorted((raw / self.images).iterdir()), frames, strict=True):
            cv2.imwrite(str(file), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        (raw / "STAND_IN.json").write_bytes((demo / "STAND_IN.json").read_bytes())
