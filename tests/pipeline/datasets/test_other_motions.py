"""Motions of BEAT2, AIST++, Motion-X, NymeriaPlus and of SMPL's npz beside AMASS's, and files that look like them. Made up in
their forms: none of them is a real file.
"""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cache
from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.errors import RawDataError, UnsafePickle
from pipeline.extras.exchange.bodies.tools import read_estimates
from tests.hostile import Call
from tests.pipeline.datasets.by_hand import read_one, refusal

AMASS = datasets.get("amass")
N = 301  # frames


def angles(n_joints, rate):
    """(N, n_joints, 3) rad: joint j turns about x at (j + 1) / 100 rad/s; joint 0 does not."""
    turned = np.zeros((N, n_joints, 3))
    turned[..., 0] = np.arange(N)[:, None] / rate * (np.arange(n_joints) + 1) / 100
    turned[:, 0] = 0
    return turned


def walk(rate):
    """(N, 3) m: 1 m/s along x, in a world with y up."""
    time = np.arange(N) / rate
    return np.column_stack([time, 0 * time + 0.9, 0 * time])


def place(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def beat2(raw, **changes):
    file = place(raw / "BEAT2/smplxflame_30/2_scott_0_1_1.npz")
    arrays = {
        "poses": angles(55, 30).reshape(N, 165),
        "betas": np.arange(300) / 100,
        "expressions": np.zeros((N, 100)),
        "trans": walk(30),
        "model": "smplx2020",
        "gender": "neutral",
        "mocap_frame_rate": 30,
    }
    np.savez(file, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return file


def aist(raw, **changes):
    """`smpl_trans` is in units of the scaled body."""
    file = place(raw / "AIST++/gBR_sBM_cAll_d04_mBR0_ch01.pkl")
    content = {
        "smpl_poses": angles(24, 60).reshape(N, 72),
        "smpl_scaling": np.array([93.5]),
        "smpl_trans": 93.5 * walk(60),
        "smpl_loss": 0.1,
    }
    file.write_bytes(pickle.dumps(content | changes))
    return file


def motion_x(raw):
    """Joints in Motion-X's order: 22 of the body, 30 of the hands, the jaw."""
    file = place(raw / "Motion-X/humanml/000021.npy")
    turned = angles(53, 30).reshape(N, 159)
    face = np.full((N, 150), 7.0)  # not read
    betas = np.tile(np.arange(10) / 10, (N, 1))
    np.save(file, np.hstack([turned[:, :66], turned[:, 66:], face, walk(30), betas]))
    return file


def smpl(raw, **changes):
    """As GVHMR's and ASAP's users write AMASS's form: SMPL's 72 numbers."""
    file = place(raw / "mine/clip_poses.npz")
    arrays = {
        "poses": angles(24, 30).reshape(N, 72),
        "trans": walk(30),
        "betas": np.arange(10) / 10,
        "gender": "neutral",
        "mocap_framerate": 30,
    }
    np.savez(file, **(arrays | changes))


def nymeria(raw, **changes):
    file = place(raw / "Nymeria/20230607_s0_act0/body/xdata_smpl_neutral.npz")
    turned = angles(24, 60)
    turned[:, 0, 0] = np.pi / 2  # z is up
    arrays = {
        "global_orient": turned[:, 0],
        "body_pose": turned[:, 1:].reshape(N, 69),
        "betas": np.arange(10) / 10 + np.linspace(-1, 1, N)[:, None],
        "transl": walk(60)[:, [0, 2, 1]],
        "timestamps": 5_000_000_000 + np.round(np.arange(N) / 60 * 1e6),
    }
    np.savez(file, **(arrays | changes))
    return arrays


def read(raw):
    (track,), account = read_one(AMASS, raw)
    return track, account["notes"]


UP = "the motion's world has y up: turned, so that z is up"


def require_turned(track):
    """The pelvis goes along x, its joints are turned up, at 25 fps."""
    time = np.arange(len(track.frame_index)) / 25
    steps = track.trans - track.trans[0]
    np.testing.assert_allclose(steps, np.column_stack([time, 0 * time, 0 * time]), atol=1e-5)
    assert 0.4 < track.trans[0, 2] < 1.4
    up = Rotation.from_rotvec(track.pose[:, :3]).apply([0, 1, 0])
    np.testing.assert_allclose(up, np.tile([0, 0, 1.0], (len(time), 1)), atol=1e-5)
    np.testing.assert_allclose(track.pose[25, 3 * 21], 0.22, rtol=1e-4)  # a wrist after 1 s


@pytest.mark.parametrize("changes", [{}, {"mocap_frame_rate": None, "fps": 30}])
def test_beat2_has_its_rate_under_either_key(tmp_path, changes):
    beat2(tmp_path, **changes)
    track, notes = read(tmp_path)
    require_turned(track)
    assert notes == [UP, "betas has 300 numbers: the first 16 are used"]
    np.testing.assert_allclose(track.extra["smplx_pose"][25, 3 * 54], 0.55, rtol=1e-4)


def test_aists_translation_is_divided_by_its_scaling_and_y_is_up_at_any_height(tmp_path):
    aist(tmp_path)
    track, notes = read(tmp_path)
    require_turned(track)
    # of real motions, `smpl_trans` is 1.85 m above 0, and little above it along z
    aist(tmp_path, smpl_trans=93.5 * (walk(60) + np.array([0, 0.95, 0.5])))
    np.testing.assert_array_equal(read(tmp_path)[0].pose, track.pose)
    assert len(track.frame_index) == 126  # 5 s of 60 Hz
    assert not track.betas.any()
    assert track.gender == "neutral"
    assert notes == [UP, "AIST++ states no rate and no shape: 60 Hz and the average body are taken"]


def test_the_axis_of_least_movement_tells_y_up(tmp_path):
    """At a height of 1.85 m, and 0.6 to 3.1 m along z, where a person could lie."""
    along_z = walk(30)[:, [2, 1, 0]] / 4 + [0, 1.625, 0.6]
    beat2(tmp_path, trans=along_z)
    track, notes = read(tmp_path)
    assert notes[0] == UP
    np.testing.assert_allclose(track.trans[:, 2], track.trans[0, 2], atol=1e-6)


def test_motion_xs_joints_go_to_their_places_in_smplx(tmp_path):
    motion_x(tmp_path)
    track, notes = read(tmp_path)
    require_turned(track)
    assert notes == [UP, "Motion-X states no rate: 30 Hz is taken"]
    after_1_s = track.extra["smplx_pose"][25].reshape(55, 3)[:, 0]
    file_order = [*range(22), 52, None, None, *range(22, 52)]  # jaw; eyes are not in the file
    expected = [0.0 if j is None else (j + 1) / 100 for j in file_order]
    np.testing.assert_allclose(after_1_s[1:], expected[1:], atol=1e-5)
    np.testing.assert_allclose(track.betas[0], np.arange(10) / 10, rtol=1e-6)
    assert track.extra["smplx_n_betas"] == 10


def test_smpls_own_72_numbers_are_its_pose_with_both_hands(tmp_path):
    for betas in (np.arange(10) / 10, np.arange(16) / 10):
        smpl(tmp_path, betas=betas)
        track, notes = read(tmp_path)
        require_turned(track)
        assert notes == [UP]
        after_1_s = track.pose[25].reshape(24, 3)[1:, 0]
        np.testing.assert_allclose(after_1_s, np.arange(2, 25) / 100, atol=1e-5)
        np.testing.assert_allclose(track.betas[0], np.arange(10) / 10, rtol=1e-6)
        assert track.extra == {}


def test_nymerias_times_are_its_rate_and_its_world_has_z_up(tmp_path):
    arrays = nymeria(tmp_path)
    track, notes = read(tmp_path)
    assert notes == []
    assert len(track.frame_index) == 126  # 5 s
    time = np.arange(126) / 25
    expected = np.column_stack([time, 0 * time, 0 * time + 0.9])
    np.testing.assert_allclose(track.trans, expected, atol=1e-4)
    np.testing.assert_allclose(track.pose[::5, 3:], arrays["body_pose"][::12], atol=1e-5)
    np.testing.assert_allclose(track.pose[:, 0], np.pi / 2, rtol=1e-6)
    np.testing.assert_allclose(track.betas[0], np.arange(10) / 10, atol=1e-6)
    assert track.gender == "neutral"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timestamps": np.arange(N) * 2e4 + 9e4 * (np.arange(N) > 100)}, "s off it. Split"),
        ({"timestamps": np.arange(N)[::-1] * 2e4}, "expected 1 to 10,000 frames per second"),
        ({"timestamps": np.zeros(N)}, "'timestamps': expected NymeriaPlus's"),
        ({"timestamps": np.zeros(0)}, "'timestamps': expected NymeriaPlus's"),
        ({"timestamps": np.full(N, np.nan)}, "'timestamps': expected NymeriaPlus's"),
        ({"timestamps": np.full(N, np.inf)}, "'timestamps': expected NymeriaPlus's"),
        ({"body_pose": np.zeros((N, 63))}, "'poses': expected (N, 72) SMPL"),
        ({"body_pose": np.zeros((N - 1, 69))}, "'timestamps': expected NymeriaPlus's"),
        ({"transl": np.zeros((N - 1, 3))}, "'trans': expected numbers of shape (301, 3)"),
    ],
)
def test_damaged_motions_of_nymeria_are_refused(tmp_path, changes, words):
    nymeria(tmp_path, **changes)
    assert words in str(refusal(AMASS, tmp_path))


def test_motions_of_smplx_that_come_later_are_converted_beside_the_others(embedded, into, tmp_path):
    raw, root, names = embedded.copy("amass", tmp_path / "raw"), tmp_path / "cache", []
    for write in (None, beat2):
        if write:
            write(raw)
        into.convert(root, raw, "amass")
        names.append({track.name for track in cache.open(root)["amass/train"].tracks})
    assert names[1] - names[0] == {"BEAT2/smplxflame_30/2_scott_0_1_1/0"}
    rows = into.rows(root, "amass/train", "smplx_pose")
    assert [name for name in rows if np.isfinite(rows[name]).all()] == [*names[1] - names[0]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"smpl_scaling": np.array([0.0])}, "'smpl_scaling': expected a number over 0"),
        ({"smpl_trans": np.zeros((3, 3))}, "'smpl_trans': expected"),
        ({"smpl_poses": np.full((N, 72), np.nan)}, "'poses': expected finite numbers"),
        ({"smpl_poses": np.degrees(angles(24, 1).reshape(N, 72))}, "as in degrees"),
    ],
)
def test_damaged_motions_of_aist_are_refused(tmp_path, changes, words):
    aist(tmp_path, **changes)
    assert words in str(refusal(AMASS, tmp_path))


def test_no_code_of_a_motion_runs(tmp_path):
    mark = tmp_path / "it ran"
    aist(tmp_path / "raw", smpl_loss=Call(Path.touch, mark))
    objects = place(tmp_path / "raw/objects/walk.npy")
    np.save(objects, np.array([Call(Path.touch, mark)]), allow_pickle=True)
    report = Accounting()
    assert list(AMASS.tracks(tmp_path / "raw", "train", report=report)) == []
    assert [account.set_aside for account in report] == ["unsafe_pickle", "bad_label_file"]
    assert not mark.exists()


def numbers(**widths):
    return {key: np.zeros((N, width)) for key, width in widths.items()}


SMPLER_X = {
    key: np.zeros((n, 3))
    for key, n in (("global_orient", 1), ("body_pose", 21), ("left_hand_pose", 15), ("transl", 1))
}


@pytest.mark.parametrize(
    ("content", "imported", "converted"),
    [
        (
            numbers(poses=69, betas=10, trans=3) | {"fps": 30.0},
            "a subset of the dataset amass",
            "A pose begins with the root's rotation, 3 numbers, which 63 or 69 numbers lack",
        ),
        (
            numbers(body_pose=69, betas=10, transl=3, global_orient=3),
            "a body's parameters without times or images",
            "a body's parameters without times or images, as SMPLer-X's. Take the file away",
        ),
        (SMPLER_X, "as SMPLer-X's", "Take the file away"),
    ],
)
def test_no_command_sends_back_to_the_one_that_sent_here(content, imported, converted, tmp_path):
    file = place(tmp_path / "CMU/01/walk_poses.npz")
    np.savez(file, **content)
    with pytest.raises(RawDataError) as caught:
        list(read_estimates(file))
    assert imported in str(caught.value)
    message = str(refusal(AMASS, tmp_path))
    assert converted in message
    for text in (message, str(caught.value)):
        assert "--format bodies" not in text
        assert "GVHMR" not in text


def test_a_result_that_names_other_objects_is_not_sent_to_the_command_that_refused_it(tmp_path):
    (tmp_path / "results.pkl").write_bytes(pickle.dumps({"a": Counter("a")}))
    with pytest.raises(UnsafePickle, match="have others written as plain dicts") as caught:
        list(read_estimates(tmp_path / "results.pkl"))
    assert "--format bodies" not in str(caught.value)
