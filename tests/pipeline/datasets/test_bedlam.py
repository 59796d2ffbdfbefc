"""BEDLAM's readers: files of exactly the release's form by hand, and each trap of the format."""

import shutil

import cv2
import numpy as np
import pytest

from pipeline.datasets.bedlam import Bedlam, Bedlam2
from pipeline.datasets.releases.examination import examine
from pipeline.files.pixels.sources import parse
from pipeline.files.raw.changes import video_digest
from pipeline.people.skeletons import JOINTS
from tests.bodies import the_body
from tests.pipeline.datasets.by_hand import read_one, refusal, require
from tests.pipeline.datasets.contract import RENUMBERED, SHIFTED, ImageFolders
from tests.pipeline.datasets.made_bedlam import SCENE, SEQ, SUBJECTS, N, labels, write

TURNED_K = np.array([[1400.0, 0, 360], [0, 1400, 640], [0, 0, 1]])


def read(raw, body=None, dataset=None):
    return read_one(dataset or Bedlam(), raw, "train", body)


@pytest.mark.parametrize("width", [10, 11, 16])
def test_smplx_bodies_are_not_taken_for_smpls(width, tmp_path):
    data = labels(width=165) | {"shape": np.full((2 * N, width), 0.5)}
    write(tmp_path, data, folder="training_labels/all_npz_12_training")
    tracks, account = read(tmp_path, the_body())
    assert any("SMPL-X" in note for note in account["notes"])
    for track in tracks:
        assert not (
            track.has_smpl.any() or track.has_3d.any() or track.pose.any() or track.trans.any()
        )
        assert (track.kp_2d[..., 2] > 0).any()
        own = slice(SUBJECTS.index(track.name.rpartition("/")[2]), None, 2)
        np.testing.assert_allclose(track.extra["smplx_pose"], data["pose_cam"][own], atol=1e-6)
        np.testing.assert_array_equal(
            track.extra["smplx_betas"][0], [0.5] * width + [0] * (16 - width)
        )
        assert track.extra["smplx_n_betas"] == width
        trans = data["trans_cam"][own] + data["cam_ext"][own, :3, 3]
        np.testing.assert_allclose(track.extra["smplx_trans"], trans, atol=1e-6)


def test_images_at_6_fps_that_were_numbered_again_are_refused(tmp_path):
    write(tmp_path / "again", labels(), pictures=range(N))
    error = refusal(Bedlam(), tmp_path / "again")
    assert error.reason == "frame_count_mismatch"
    write(tmp_path / "all", labels(), pictures=range(5 * N))
    assert [len(track.frame_index) for track in read(tmp_path / "all")[0]] == [N, N]


def test_smpl_labels_come_before_smplx_labels_of_a_scene(tmp_path):
    write(tmp_path, labels(width=165), folder="all_npz_12_training")
    write(tmp_path, labels())
    assert all(track.has_smpl.all() for track in read(tmp_path)[0])


def test_the_world_of_a_moving_camera_is_not_used(tmp_path):
    data = labels()
    data["cam_ext"][5, 0, 3] += 0.01  # of one person, in one picture: the camera is that of both
    write(tmp_path, data)
    tracks, account = read(tmp_path)
    assert all(not track.extra for track in tracks)
    assert any("camera moves" in note for note in account["notes"])
    data = labels()
    write(tmp_path / "orbit", data, scene="20221014_3_250_batch01hand_orbit_archVizUI3_time15_6fps")
    assert all(not track.extra for track in read(tmp_path / "orbit")[0])


def test_a_camera_that_zooms_has_intrinsics_by_row(tmp_path):
    data = labels()
    data["cam_int"][:, 0, 0] += np.arange(2 * N)
    write(tmp_path, data)
    track = read(tmp_path)[0][1]
    assert track.intrinsics is None
    np.testing.assert_allclose(track.extra["intrinsics"], data["cam_int"][1::2])


@pytest.mark.parametrize(
    ("dataset", "scene"), [(Bedlam(), "x_closeup_suburb_6fps"), (Bedlam2(), "x_portrait_6fps")]
)
def test_pictures_on_their_side_are_turned_clockwise(dataset, scene, tmp_path):
    data = labels(k=TURNED_K)
    data["gtkps"] = np.concatenate([data["gtkps"], data["gtkps"][:, :20]], axis=1)  # 44
    write(tmp_path, data, scene)
    stored = np.zeros((720, 1280, 3), np.uint8)
    stored[700:, :20] = (0, 0, 255)  # BGR: red, lower left; turned clockwise, upper left
    cv2.imwrite(str(tmp_path / scene / "png" / SEQ / f"{SEQ}_0000.png"), stored)
    track = read(tmp_path, dataset=dataset)[0][0]
    frame = next(track.frames.read([0]))
    assert frame.image.shape == (1280, 720, 3) and track.frames.size() == (720, 1280)
    assert frame.image[5, 5].tolist() == [255, 0, 0] and frame.image.sum() == 255 * 400
    assert parse(tmp_path, track.frames.spec) == track.frames
    other = Bedlam2() if dataset.name == "bedlam" else Bedlam()
    # by the camera's principal point
    assert refusal(other, tmp_path).reason == "other_picture_size"


def test_rows_may_have_any_order(tmp_path):
    data, shuffled = labels(), np.random.default_rng(3).permutation(2 * N)
    write(tmp_path / "a", data)
    write(tmp_path / "b", {key: values[shuffled] for key, values in data.items()})
    for ours, theirs in zip(read(tmp_path / "a")[0], read(tmp_path / "b")[0], strict=True):
        assert ours.name == theirs.name
        for column, array in ours.columns.items():
            np.testing.assert_array_equal(theirs.columns[column], array, err_msg=column)


def test_holes_and_what_is_left_out_are_counted(tmp_path):
    data = labels()
    # the first person's third picture
    data = {key: np.delete(values, 4, axis=0) for key, values in data.items()}
    data["trans_cam"][0] = np.nan
    data["cam_ext"][1, 0] *= -1
    data["scale"][3] = 0
    data["imgname"][-1] = data["imgname"][-3]  # the second person twice in picture 20
    write(tmp_path, data, pictures=[0, 5, 10, 20, 25])
    reasons = {"bad_camera": 1, "degenerate_box": 1, "duplicate_person": 2, "label_not_finite": 1}
    require(read(tmp_path), [[5, 20, 25], [10]], reasons | {"no_picture": 2})


@pytest.mark.parametrize(
    ("dataset", "n", "knee", "wrist"),
    [(Bedlam(), n, 4, 21) for n in (24, 45, 127)] + [(Bedlam(), 44, 13, 4), (Bedlam2(), 90, 13, 4)],
)
def test_the_order_of_the_joints_is_told_by_their_number(dataset, n, knee, wrist, tmp_path):
    """Of BEDLAM, 44 are OpenPose's 25 and 19 others, 24, 45 and 127 begin with SMPL's 22; BEDLAM2's
    are OpenPose's.
    """
    data = labels() | {"gtkps": np.random.default_rng(1).uniform(300, 600, (2 * N, n, 3))}
    write(tmp_path, data)
    track = read(tmp_path, dataset=dataset)[0][0]
    for name, number in (("OP LKnee", knee), ("OP RWrist", wrist)):
        expected = data["gtkps"][::2, number, :2]
        np.testing.assert_allclose(
            track.kp_2d[:, JOINTS["spin49"].index(name), :2], expected, atol=1e-4
        )


def test_bodies_with_an_eleventh_number_are_smpls_first_ten_and_boxes_are_those_of_the_crop(
    tmp_path,
):
    data = labels()
    write(tmp_path, data | {"shape": np.column_stack([data["shape"], np.full(2 * N, 7.0)])})
    tracks, account = read(tmp_path, the_body())
    for p, track in enumerate(tracks):
        np.testing.assert_array_equal(track.betas, data["shape"][p::2].astype(np.float32))
        # the release states the crop
        np.testing.assert_allclose(track.bbox[:, :2], data["center"][p::2], atol=1e-4)
        side = track.bbox[:, 2] * track.crop_scale
        np.testing.assert_allclose(side, 200 * data["scale"][p::2], atol=1e-3)
        assert track.crop_scale == 1.2
    assert all(track.has_smpl.all() for track in tracks)
    assert any("11 numbers" in note for note in account["notes"])


def test_without_subjects_people_are_told_apart_by_their_shape(tmp_path):
    data = labels()
    del data["sub"]
    write(tmp_path, data)
    tracks, account = read(tmp_path)
    assert (len(tracks), account["kept"]) == (2, 2 * N)
    assert sorted(float(track.betas[0, 0]) for track in tracks) == pytest.approx([0, 0.3])
    assert any("sub" in note for note in account["notes"])


@pytest.mark.parametrize(
    ("dataset", "folder", "images"),
    [
        (Bedlam(), "bedlam_labels", "training_images"),
        (Bedlam(), "bedlam_labels/all_npz_12_training", ""),
        (Bedlam2(), "training-labels/bedlam_v2", "training-images/bedlam_v2"),
    ],
)
def test_the_folders_of_the_releases_own_scripts_are_read(dataset, folder, images, tmp_path):
    scene = SCENE.removesuffix("_6fps")
    data = labels() | {"gtkps": np.random.default_rng(1).uniform(300, 600, (2 * N, 127, 3))}
    write(tmp_path, data, scene, folder)
    write(tmp_path, data, "agora-bfh", folder)  # of another dataset
    if images:
        (tmp_path / images).mkdir(parents=True)
        (tmp_path / scene).rename(tmp_path / images / scene)
    assert [track.name for track in read(tmp_path, dataset=dataset)[0]] == [
        f"{scene}/{SEQ}/{sub}" for sub in SUBJECTS
    ]
    other = Bedlam2() if dataset.name == "bedlam" else Bedlam()
    if "all_npz" not in folder:
        assert folder in dataset.folders and folder not in other.folders
    assert not examine(dataset, tmp_path).missing


def test_scenes_that_were_not_released_are_a_split_of_their_own(tmp_path):
    data, unreleased = labels(), "20240621_1_250_archmodelsvol8_tracking_6fps"
    data["gtkps"] = np.random.default_rng(1).uniform(300, 600, (2 * N, 90, 3))
    for scene in ("20241107_1_250_archmodelsvol8_tracking_6fps", unreleased):
        write(tmp_path, data, scene)
    splits = {
        split: [v.name for v in Bedlam2().videos(tmp_path, split)] for split in Bedlam2.splits
    }
    released = "20241107_1_250_archmodelsvol8_tracking_6fps/seq_000000"
    assert splits == {"train": [released], "unreleased": [f"{unreleased}/seq_000000"]}


def test_labels_of_a_sequence_without_a_folder_are_counted(tmp_path):
    data, other = labels(), labels(n=2)
    other["imgname"] = np.char.replace(other["imgname"], "seq_000000", "seq_000007")
    write(tmp_path, {key: np.concatenate([data[key], other[key]]) for key in data})
    found = read(tmp_path)
    require(found, [range(0, 5 * N, 5)] * 2, {"no_picture": 4})
    assert any("seq_000007" in note for note in found[1]["notes"])
    shutil.rmtree(tmp_path / SCENE)  # and of a scene without any
    require(read(tmp_path), [], {"no_picture": 2 * N + 4}, refused="no_picture")


def test_a_folder_that_comes_later_is_counted_once(tmp_path):
    """The first sequence's video changes with the list of folders, since it counts what none is
    there for.
    """

    def digests():
        videos = Bedlam().videos(tmp_path, "train")
        return {video.name: video_digest(tmp_path, video) for video in videos}

    write(tmp_path, labels())
    (before,) = digests().values()
    (tmp_path / SCENE / "png/seq_000007").mkdir()
    after = digests()
    assert [*after] == [f"{SCENE}/seq_000000", f"{SCENE}/seq_000007"]
    assert after[f"{SCENE}/seq_000000"] != before


FROM_1 = np.repeat([f"{SEQ}/{SEQ}_{5 * i + 1:04d}.png" for i in range(N)], 2)
TRAPS = [  # reason, word of the message, other labels
    ("no_picture", "", {}),
    ("frame_count_mismatch", "multiples of 5", {"imgname": FROM_1}),
    ("bad_label_file", "imgname", {"imgname": FROM_1.astype(object)}),
    ("bad_label_file", "imgname", {"imgname": np.array(["../x.png"] * 2 * N)}),
    ("bad_label_file", "10 or 11", {"shape": np.zeros((2 * N, 12))}),
    ("bad_label_file", "165", {"pose_cam": np.zeros((2 * N, 156))}),
    ("bad_label_file", "24, 45, 127, 44 joints", {"gtkps": np.zeros((2 * N, 17, 3))}),
]


@pytest.mark.parametrize(("reason", "word", "changes"), TRAPS)
def test_traps_are_refused_by_name(reason, word, changes, tmp_path):
    write(tmp_path, labels() | changes, pictures=None if changes else ())
    error = refusal(Bedlam(), tmp_path)
    assert (error.reason, word in str(error)) == (reason, True), str(error)


class TestBedlam(ImageFolders):
    dataset, n_videos = "bedlam", 3
    video = "20221018_1_1_batch01hand_30fps/seq_000000"
    images = "20221018_1_1_batch01hand_30fps/png/seq_000000"
    refused = frozenset({"numbers one higher", RENUMBERED})
    undecided = frozenset({SHIFTED})
