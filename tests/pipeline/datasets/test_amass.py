import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import cache
from pipeline import datasets
from pipeline.datasets.amass import LIES, _sample_positions
from pipeline.errors import ConfigError
from pipeline.grades import grade
from tests.pipeline.datasets.by_hand import read_one, refusal, require
from tests.pipeline.datasets.label_files import edit_labels
from tests.pipeline.datasets.made_motions import smplx, write_motion

AMASS = datasets.get("amass")


def read(raw, **options):
    """The tracks and their account, without the note that the bodies of `write_motion` lie."""
    tracks, account = read_one(AMASS, raw, **options)
    account["notes"] = [note for note in account["notes"] if note != LIES]
    return tracks, account


@pytest.mark.promise("problems of AMASS")
@pytest.mark.parametrize("rate", [25.0, 30.0, 59.94, 120.00000763, 250.0])
def test_sample_k_is_the_motion_at_k_over_25_seconds(tmp_path, rate):
    write_motion(tmp_path, n_frames=round(4 * rate), rate=rate)
    (track,), _ = read(tmp_path)
    time = np.arange(len(track.frame_index)) / 25
    # Every joint turns evenly about a fixed axis, so its angle says the time.
    angle = np.linalg.norm(track.pose.reshape(-1, 24, 3), axis=-1)
    np.testing.assert_allclose(angle[:, 21], time * 0.22, atol=1e-5)
    np.testing.assert_allclose(track.trans[:, 0], time, atol=1e-5)
    last = (round(4 * rate) - 1) / rate
    # the last sample lies in the motion, the next would not
    assert time[-1] <= last + 1e-4 < time[-1] + 1 / 25


@pytest.mark.parametrize("rate", [100.0, 120.0, 59.94])
def test_a_motion_that_is_missing_or_does_not_move_is_doubtful_and_not_turned(tmp_path, rate):
    """Zeros look like somebody who stands in a world with y up."""
    held = np.tile(np.random.default_rng(0).normal(0, 0.5, 156), (601, 1))
    held[:, :3] = np.pi / 2, 0, 0  # z is up
    for poses in (np.zeros((601, 156)), held):
        trans = np.zeros((601, 3))
        write_motion(tmp_path, rate=rate, poses=poses, trans=trans)
        (track,), account = read_one(AMASS, tmp_path)
        assert account["notes"] == []
        np.testing.assert_allclose(track.trans, trans[: len(track.trans)])
        expected = np.tile(poses[0, :66], (len(track.pose), 1))
        np.testing.assert_allclose(track.pose[:, :66], expected, atol=1e-6)
        (reason,) = grade(track.columns, track.fps).reasons
        assert reason.endswith("% of the frames or poses repeat the one before")


@pytest.mark.promise("problems of AMASS")
def test_smpls_hands_are_the_index_fingers_of_smplh_and_smplx(tmp_path):
    for n_joints, left, right in ((52, 22, 37), (55, 25, 40)):
        write_motion(tmp_path, n_joints=n_joints)
        (track,), _ = read(tmp_path)
        angle = np.linalg.norm(track.pose[25].reshape(24, 3), axis=-1)  # after 1 s
        np.testing.assert_allclose(angle[:22], (np.arange(22) + 1) / 100, rtol=1e-5)
        np.testing.assert_allclose(angle[22:], [(left + 1) / 100, (right + 1) / 100], rtol=1e-5)


def test_whole_ratios_and_decimation_of_120_hz_take_every_fourth_stored_frame_unchanged(tmp_path):
    for reader, rate, fps in (
        (AMASS, 100.00000381, 25),
        (datasets.get("amass", resampling="decimate"), 120.0, 30),
    ):
        write_motion(tmp_path, rate=rate)
        stored = np.load(tmp_path / "ACCAD/s1/walk_poses.npz")["poses"]
        (track,), account = read_one(reader, tmp_path)
        assert track.fps == fps
        np.testing.assert_array_equal(track.pose[:, :66], stored[::4, :66].astype(np.float32))
        assert account["dropped"] == {"resampled": 450}
    for rate in (20.0, 30.0, 49.0):  # under 50 Hz, every frame
        fps, position = _sample_positions(4, rate, "decimate")
        assert (fps, position.tolist()) == (rate, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("amass", {"resampling": "nearest"}, "slerp or decimate"),
        ("3dpw", {"model": "smplx"}, "model is 'smplx'; it can be neutral or gendered"),
    ],
)
def test_another_option_is_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        datasets.get(name, **options)
    assert AMASS.parameters() == {"resampling": "slerp"}


@pytest.mark.parametrize(
    ("n_frames", "rate", "kept", "dropped", "notes"),
    [
        # 59 / 25 s = frame 283.2 at 120 Hz
        (283, 120.0, [], {"resampled": 283 - 59, "track_too_short": 59}, []),
        (285, 120.0, [range(60)], {"resampled": 285 - 60}, []),
        (51, 20.0, [range(63)], {}, ["51 frames at 20 Hz give 63 at 25"]),
    ],
)
def test_under_60_frames_after_resampling_is_dropped(
    tmp_path, n_frames, rate, kept, dropped, notes
):
    write_motion(tmp_path, n_frames=n_frames, rate=rate)
    found = read(tmp_path)
    require(found, kept, dropped, notes)
    assert found[1]["tracks_dropped"] == ({} if kept else {"track_too_short": 1})


@pytest.mark.promise("problems of AMASS")
def test_both_releases_are_read_and_shapes_are_no_motions(tmp_path):
    tmp_path = tmp_path / "raw"
    write_motion(tmp_path, "ACCAD/s1/walk_poses")
    write_motion(
        tmp_path, "KIT/3/jump_stageii", n_joints=55, mocap_framerate=None, mocap_frame_rate=120.0
    )
    write_motion(tmp_path, "Any Folder/deep/er/run_poses")
    for other in ("ACCAD/s1/shape", "KIT/3/neutral_stagei", "KIT/3/male_stagei"):
        np.savez(tmp_path / f"{other}.npz", betas=np.zeros(16))
    for other in ("KIT/LICENSE.txt", "KIT/3/jump.mp4"):
        (tmp_path / other).touch()
    # a Macintosh leaves such files beside the others
    (tmp_path / "ACCAD/s1/._walk_poses.npz").touch()
    write_motion(tmp_path.with_name("disk"), "s1/sit_poses")
    (tmp_path / "Linked").symlink_to(tmp_path.with_name("disk"))
    (tmp_path.with_name("disk") / "s1/loop").symlink_to(tmp_path.with_name("disk"))
    names = [
        "ACCAD/s1/walk_poses",
        "Any Folder/deep/er/run_poses",
        "KIT/3/jump_stageii",
        "Linked/s1/sit_poses",
    ]
    assert [video.name for video in AMASS.videos(tmp_path, "train")] == names
    assert [track.video for track in AMASS.tracks(tmp_path, "train")] == names


@pytest.mark.parametrize(
    ("stored", "gender", "told"),
    [
        (np.array(b"male"), "male", 0), (np.array(["neutral"]), "neutral", 0), ("MALE", "male", 0),
        (np.array(b"M"), "male", 0), ("b'female'", "female", 0), (None, "neutral", 1),
        (np.array(["a", "b"]), "neutral", 1),
    ],
)  # fmt: skip
def test_gender_is_read_as_text_or_bytes_and_another_is_neutral_and_told(
    tmp_path, stored, gender, told
):
    write_motion(tmp_path, gender=stored)
    (track,), account = read(tmp_path)
    assert track.gender == gender
    assert ["taken for neutral" in note for note in account["notes"]] == [True] * told


@pytest.mark.parametrize(
    ("name", "rate", "true_rate"),
    [
        ("SSM_synced/20161014_50033/dance_sync_poses", 120.0, 59.0),
        ("SSM/20160930_50032/walk_stageii", 120.0, 59.0),
        ("BMLhandball/S01_Novice/Trial_upper_left_001_poses", 120.0, 240.0),
        ("SSM_synced/20161014_50033/dance_sync_poses", 59.0, 59.0),  # corrected in the release
        ("SSM_synced/20160330_03333/chicken_wings_poses", 120.0, 120.0),
    ],
)
def test_motions_whose_files_state_a_wrong_rate_are_read_at_their_own(
    tmp_path, name, rate, true_rate
):
    """The body moves at 1 m/s by the true rate."""
    trans = np.linspace((0, 0, 1), (600 / true_rate, 0, 1), 601)
    write_motion(tmp_path, name, 601, rate, trans=trans)
    told = f"the file states {rate:g} Hz; {true_rate:g} Hz is known to be right, and used"
    (track,) = require(read(tmp_path), notes=[] if rate == true_rate else [told])
    np.testing.assert_allclose(track.trans[:, 0], np.arange(len(track.frame_index)) / 25, atol=1e-5)
    assert len(track.frame_index) == int(600 / true_rate * 25) + 1


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("poses", lambda data: {"poses": np.degrees(data["poses"])}),
        ("trans", lambda data: {"trans": 100 * data["trans"]}),  # cm
        # mm of one who stands still
        ("trans", lambda data: {"trans": data["trans"] * 0 + (2000.0, 500, 900)}),
    ],
)
def test_degrees_and_positions_in_mm_or_cm_are_refused(tmp_path, key, change):
    write_motion(tmp_path)
    file = tmp_path / "ACCAD/s1/walk_poses.npz"
    edit_labels(file, lambda data: data | change(data))
    error = refusal(AMASS, tmp_path)
    assert error.reason == "other_unit"
    assert str(error).startswith(f"{file}: {key!r}: expected ")


@pytest.mark.parametrize(
    "trans",
    [
        np.tile((3.0, -2.0, 0.12), (601, 1)),
        np.tile((0.5, 3.0, 0.4), (601, 1)),
        # along y, which is no height: 3 m are beyond a person's
        np.linspace((0, -0.6, 0.4), (0, 2.4, 0.4), 601),
    ],
)
def test_one_who_lies_on_the_ground_or_crawls_is_not_turned(trans, tmp_path):
    """The head points along y, as that of one who stands in a world with y up."""
    write_motion(tmp_path, trans=trans)
    (track,), account = read_one(AMASS, tmp_path)
    assert account["notes"] == [LIES]
    np.testing.assert_allclose(track.trans[:, 2], trans[0, 2], atol=1e-6)


@pytest.mark.parametrize(("times", "likely"), [(1, ""), (2, "60 Hz"), (4, "30 Hz")])
def test_joints_faster_than_people_s_are_told_with_a_likely_rate(tmp_path, times, likely):
    """An elbow that swings at up to 15 rad/s at the true rate."""
    poses = np.zeros((601, 52, 3))
    poses[:, 18, 0] = 1.5 * np.sin(10 * np.arange(601) / 120 * times)
    write_motion(tmp_path, poses=poses.reshape(601, -1))
    notes = " ".join(read(tmp_path)[1]["notes"])
    assert ("faster than people's" in notes) == bool(likely)
    assert likely in notes


@given(st.integers(1, 3000), st.floats(5, 300))
@example(601, 600 * 25 / 123 * (1 + 1e-13))  # the last sample is the last frame, but for rounding
def test_samples_lie_in_the_motion_and_none_is_left_out(n_frames, rate):
    fps, position = _sample_positions(n_frames, rate)
    assert fps == 25
    assert position[0] == 0
    assert (position <= n_frames - 1).all()
    assert position[-1] + rate / 25 > n_frames - 1 - 1e-6
    np.testing.assert_allclose(np.diff(position), rate / 25, rtol=1e-3, atol=1e-6)


@pytest.mark.promise("problems of AMASS")
def test_smplx_files_have_columns_of_their_own_beside_smpls_and_smplh_files(tmp_path):
    write_motion(tmp_path)
    before = read(tmp_path)[0][0]
    smplx(tmp_path, betas=np.arange(11) / 10)
    plain, track = AMASS.tracks(tmp_path, "train")  # sorted: walk_poses, wave_stageii
    assert (plain.extra, plain.pose.tobytes()) == ({}, before.pose.tobytes())
    angle = np.linalg.norm(track.extra["smplx_pose"][25].reshape(55, 3), axis=-1)  # after 1 s
    np.testing.assert_allclose(angle, (np.arange(55) + 1) / 100, rtol=1e-5)
    np.testing.assert_array_equal(track.pose[:, :66], track.extra["smplx_pose"][:, :66])
    np.testing.assert_allclose(
        track.extra["smplx_betas"][7], [*np.arange(11) / 10, 0, 0, 0, 0, 0], rtol=1e-6
    )
    assert track.extra["smplx_n_betas"] == 11


def test_a_damaged_file_is_not_taken_for_smplx(tmp_path):
    write_motion(tmp_path)
    (tmp_path / "ACCAD/s1/wave_stageii.npz").write_bytes(b"damaged")
    dataset = AMASS.detect_layout(tmp_path, "train")
    assert dataset.extra_columns("train", body=False) == AMASS.extra_columns("train", body=False)


SIDES = [(1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (23, 24)]
SIDES += [(25 + finger, 40 + finger) for finger in range(15)]


def test_a_mirrored_smplx_pose_turns_the_other_side_s_joints_the_other_way():
    """A turn about (x, y, z), mirrored at x = 0, is one about (x, -y, -z)."""
    pose = np.random.default_rng(0).normal(0, 0.7, (1, 165))
    expected = pose.reshape(55, 3) * (1, -1, -1)
    for left, right in SIDES:
        expected[[left, right]] = expected[[right, left]]
    stored = cache.ExtraColumn(name="smplx_pose", about="pose", shape=(165,), mirror="function")
    mirrored = stored.mirrored(pose, "amass/train")
    np.testing.assert_allclose(mirrored.reshape(55, 3), expected, atol=1e-12)


def test_a_motion_in_two_releases_is_named(tmp_path):
    write_motion(tmp_path, "ACCAD/s1/walk_poses")
    write_motion(tmp_path, "ACCAD/s1/run_poses")
    assert AMASS.label_note(tmp_path, "train") == ""
    smplx(tmp_path, "ACCAD/ACCAD/s1/walk_stageii")
    named = "1 motion more than once, as SMPL-H and SMPL-X: keep the files of one"
    assert AMASS.label_note(tmp_path, "train") == named
