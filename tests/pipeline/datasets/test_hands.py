"""The joints of hands: from the files of each tool into the column kp_2d_hands, row by row."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_equal

import cache
from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.clips.labels.detections import read_detections
from pipeline.clips.labels.label_content import NOT_STATED
from pipeline.people.skeletons import joint_names
from tests.pipeline.clips.labels.made_detections import COCO_NAMES
from tests.pipeline.clips.labels.made_people import (
    as_coco,
    as_demo,
    as_mmpose,
    as_openpose,
    as_results,
)
from tests.pipeline.clips.labels.test_whole_bodies import FEET_OF_COCO, HALPE
from tests.pipeline.datasets import made_insta_variety
from tests.pipeline.datasets.by_hand import standing, write_json, write_video

REAL = Path(__file__).parents[4] / "shared/data/sam_3d_body/img_subj00.npz"
# of COCO-WholeBody, joints 91 to 111; the right hand has the same, 112 to 132
LEFT = [
    *("left_hand_root", "left_thumb1", "left_thumb2", "left_thumb3", "left_thumb4"),
    *("left_forefinger1", "left_forefinger2", "left_forefinger3", "left_forefinger4"),
    *("left_middle_finger1", "left_middle_finger2", "left_middle_finger3", "left_middle_finger4"),
    *("left_ring_finger1", "left_ring_finger2", "left_ring_finger3", "left_ring_finger4"),
    *("left_pinky_finger1", "left_pinky_finger2", "left_pinky_finger3", "left_pinky_finger4"),
]
HANDS = [*LEFT, *(name.replace("left", "right") for name in LEFT)]
WHOLE = [*COCO_NAMES, *FEET_OF_COCO, *(f"face-{n}" for n in range(68)), *HANDS]
N = 60
SIZE = (320, 240)


def person(number, t, order="coco"):
    """Joints of one of two people who cross at frame 30."""
    x = (60 + 3 * t, 240 - 3 * t)[number]
    return standing(order, x, 100 + 25 * number)


def hands(number, t):
    """(42, 3) of the person: any points from the wrists on; the right hand of frame 30 has no score,
    the left one of some frames is absent.
    """
    rng = np.random.default_rng([number, t])
    joints = rng.uniform(1, 200, (42, 3))
    joints[:, 2] = rng.uniform(0.01, 1, 42)
    joints[[0, 21], :2] = person(number, t)[9:11, :2]
    joints[5] = 0
    joints[7, 2] = 1.5
    if t % 10 == number:
        joints[:21] = 0
    if t == 30:
        joints[21:, 2] = 0
    return joints


def expected(number, t, *, scored=True):
    joints = hands(number, t)
    joints[:, 2] = np.minimum(joints[:, 2], 1)
    if t == 30:
        joints[21:, 2] = 1
    if not scored:
        joints[:, 2] = joints[:, :2].any(axis=1)
    return joints


def whole(number, t, names):
    """The person's joints by these names; others are 0."""
    order = "halpe_26" if names is HALPE else "coco_feet"
    body = person(number, t, order)
    joints = np.zeros((len(names), 3))
    joints[: len(body)] = body
    joints[-42:] = hands(number, t)
    return joints


def frames(of_person):
    return [[of_person(number, t) for number in (0, 1)] for t in range(N)]


def keyed(content, people, keys):
    """People of a file with the joints of hands under keys of their own; absent ones are left out,
    or empty.
    """
    for k, one in enumerate(people):
        both = hands(k % 2, k // 2).reshape(2, 63).tolist()
        for key, joints in zip(keys, both, strict=True):
            if any(joints):
                one[key] = joints
            elif k % 4:
                one[key] = []
    return content


def openpose(version):
    content = as_openpose(frames(lambda k, t: person(k, t, "body_25")), None)
    people = [one for page in content for one in page["people"]]
    keys = [f"hand_{side}_keypoints{version}" for side in ("left", "right")]
    keyed(content, people, keys)
    for one in people:
        one[f"pose_keypoints{version}"] = one.pop("pose_keypoints_2d")
    return content


def wholebody_keys(writer):
    content = writer(frames(person), COCO_NAMES)
    people = content["annotations"] if writer is as_coco else content
    return keyed(content, people, ("lefthand_kpts", "righthand_kpts"))


# the first joint of a finger, beside the palm, is the third from its tip
SAM = [
    f"{finger}{joint}"
    for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    for joint in (4, 3, 2, 1)
] + ["hand_root"]  # fmt: skip


def sam():
    """Of 70 joints, 21 to 41 are those of the right hand, 42 to 62 of the left one."""
    people = []
    for t in range(N):
        for number in (0, 1):
            points = np.zeros((70, 2))
            body = person(number, t)
            points[:5], points[5:9] = body[:5, :2], body[5:9, :2]
            points[9:15] = body[11:, :2]
            both = dict(zip(HANDS, hands(number, t), strict=True))
            points[21:42] = [both[f"right_{name}"][:2] for name in SAM]
            points[42:63] = [both[f"left_{name}"][:2] for name in SAM]
            box = [body[:, 0].min(), body[:, 1].min(), body[:, 0].max(), body[:, 1].max()]
            one = {"frame": t, "bbox": np.array(box), "pred_keypoints_2d": points}
            one |= {"pred_keypoints_3d": np.ones((70, 3)), "pred_cam_t": np.ones(3)}
            people.append(one)
    return pickle.dumps(people)


FORMS = {
    "OpenPose": lambda: openpose("_2d"),
    "OpenPose, first version": lambda: openpose(""),
    "COCO-WholeBody, named": lambda: as_coco(frames(lambda k, t: whole(k, t, WHOLE)), WHOLE),
    "COCO-WholeBody, keys": lambda: wholebody_keys(as_coco),
    "results": lambda: as_results(frames(lambda k, t: whole(k, t, WHOLE)), None),
    "results, keys": lambda: wholebody_keys(as_results),
    "MMPose": lambda: as_mmpose(frames(lambda k, t: whole(k, t, WHOLE)), None),
    "MMPose's demo, Halpe-136": lambda: as_demo(frames(lambda k, t: whole(k, t, HALPE)), HALPE),
    "SAM 3D Body": sam,
}


def write(raw, content, name="a.mp4"):
    write_video(raw / name, N, size=SIZE, step=0)
    file = raw / f"keypoints/{name}"
    if isinstance(content, bytes):
        file.parent.mkdir(exist_ok=True)
        file.with_suffix(".mp4.pkl").write_bytes(content)
    else:
        write_json(file.with_suffix(".mp4.json"), content)


def read(raw, **options):
    report = Accounting()
    tracks = [*datasets.get("videos", **options).tracks(raw, "train", report=report)]
    (account,) = report
    return tracks, account


def who(kp_2d, t):
    """Whose the joints of a row are."""
    ankles = joint_names("spin49").index("lankle"), joint_names("spin49").index("OP LAnkle")
    x, y = kp_2d[list(ankles)].max(axis=0)[:2]
    (number,) = (
        k for k in (0, 1) if abs(x - person(k, t)[15, 0]) + abs(y - person(k, t)[15, 1]) < 0.01
    )
    return number


def require_hands(columns, *, scored=True):
    """Each joint of each row is the file's of the same person and frame."""
    rows = zip(columns["frame_index"], columns["kp_2d"], columns["kp_2d_hands"], strict=True)
    for t, body, found in rows:
        if not body.any():  # added between detections
            assert not found.any()
            continue
        number = who(body, t)
        assert_allclose(found, expected(number, t, scored=scored), rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_hands_of_each_tool_are_in_the_rows_of_their_people(form, tmp_path):
    write(tmp_path, FORMS[form]())
    tracks, account = read(tmp_path, hands=True)
    assert sum(len(track.frame_index) for track in tracks) == 2 * N
    for track in tracks:
        require_hands(track.columns, scored=form != "SAM 3D Body")
    told = {kind: [*names] for kind, names in account.unread.items()}
    assert "hand" not in str(told)

    without, account = read(tmp_path)
    told = [kind for kind, names in account.unread.items() if "hand" in f"{kind}{names}"]
    assert told == ["hands not read (hands = true keeps them)"]
    for track, bare in zip(tracks, without, strict=True):
        columns = track.columns
        columns.pop("kp_2d_hands")
        assert_equal(bare.columns, columns)


def test_people_without_hands_have_zeros(tmp_path):
    write(tmp_path, as_coco(frames(person), COCO_NAMES))
    for track in read(tmp_path, hands=True)[0]:
        assert_equal(track.kp_2d_hands, np.zeros((N, 42, 3)))
    assert not read(tmp_path)[1].unread
    made_insta_variety.write(tmp_path / "raw", made_insta_variety.clip())
    reader = datasets.get("insta_variety", hands=True)
    for track in reader.tracks(tmp_path / "raw", "train"):
        assert track.kp_2d_hands.shape == (len(track.frame_index), 42, 3)


@pytest.mark.skipif(not REAL.is_file(), reason="no sample of SAM 3D Body")
def test_the_hands_of_sams_real_person_are_at_their_arms(tmp_path):
    (tmp_path / "a_000000.npz").write_bytes(REAL.read_bytes())
    stated = NOT_STATED._replace(hands=True)
    found = read_detections(tmp_path, "a", lambda: [SIZE], stated)
    body = dict(zip(joint_names(found.skeleton), found.keypoints.rows[0, :, :2], strict=True))
    of_hands = found.hands[0, :, :2].reshape(2, 21, 2)
    elbows = body["lelbow"], body["relbow"]
    for side, (wrist, *fingers) in enumerate(of_hands):
        assert_allclose(wrist, body[("lwrist", "rwrist")[side]])
        to_own, to_other = (
            np.linalg.norm(wrist - elbow) for elbow in (elbows[side], elbows[1 - side])
        )
        assert to_own < to_other
        for base, *_, tip in np.reshape(fingers, (5, 4, 2)):
            assert np.linalg.norm(tip - wrist) > np.linalg.norm(base - wrist)


CONVERT = "convert videos/train --raw TMP/clips --cache CACHE"
ON = f"{CONVERT} --set videos.hands=true"


def stored(tmp_path, root="cache"):
    split = cache.open(tmp_path / root)["videos/train"]
    return {
        track.name: {name: split.rows(name, track.start, track.stop) for name in split.columns}
        for track in split.tracks
    }


def test_a_split_keeps_its_hands_until_it_is_deleted(tmp_path, types):
    write(tmp_path / "clips", FORMS["OpenPose"]())
    types(CONVERT, "hands not read (hands = true keeps them) in 1 video (a.mp4)")
    without = stored(tmp_path)
    types(ON, "parameters.hands was not set")
    before = stored(tmp_path)
    for name, columns in before.items():
        require_hands(columns)
        assert_equal({key: columns[key] for key in without[name]}, without[name])
    write(tmp_path / "clips", FORMS["COCO-WholeBody, named"](), "b.mp4")
    types(CONVERT, "1 new video")
    both = stored(tmp_path)
    assert_equal({name: both[name] for name in before}, before)
    assert len(both) == 2 * len(before)
    for columns in both.values():
        require_hands(columns)
    types(
        f"{CONVERT} --set videos.hands=false",
        "has the column kp_2d_hands, and [videos] hands is false. Take the line out; the column",
        code=2,
    )
    assert_equal(stored(tmp_path), both)
    prepare = "prepare videos --raw TMP/clips --cache CACHE --weights untrained:0 --plan"
    assert "(none ends it)" not in types(prepare, "as before: videos.hands = true")
    types("copy --cache CACHE --to TMP/copied")
    assert_equal(stored(tmp_path, "copied"), both)


def test_hands_follow_corrections_and_chosen_rows(tmp_path, types):
    write(tmp_path / "clips", FORMS["OpenPose"]())
    (tmp_path / "c.txt").write_text("exchange_sides a.mp4/0 10-30\nleave_out a.mp4/1 40-44\n")
    types(f"{ON} --set convert.corrections=TMP/c.txt --set convert.max_fps=12.5")
    tracks = stored(tmp_path)
    first = tracks["a.mp4/0"]
    number = who(first["kp_2d"][0], 0)

    def turned(joints, k, t):
        return np.roll(joints, 21, axis=0) if k == number and 10 <= t <= 30 else joints

    n_rows = 0
    for columns in tracks.values():
        steps = np.diff(columns["frame_index"])
        assert steps.min() == 2
        for t, found in zip(columns["frame_index"], columns["kp_2d_hands"], strict=True):
            assert any(np.allclose(found, turned(expected(k, t), k, t), rtol=1e-6) for k in (0, 1))
            n_rows += 1
    assert n_rows == 2 * N // 2 - 3


def exchange(joints, t):
    """Exchange the sides of a whole body: of the arms in frames 20 to 24, of all in 40 to 42."""
    part = "elbow|wrist|hand|thumb|finger" if 20 <= t < 25 else "" if 40 <= t < 43 else "none"
    order = []
    for place, name in enumerate(WHOLE):
        side, _, rest = name.partition("_")
        other = f"{'right' if side == 'left' else 'left'}_{rest}"
        order.append(WHOLE.index(other) if other in WHOLE and re.search(part, name) else place)
    return joints[order]


def test_hands_change_sides_with_the_arms_and_are_absent_in_added_frames(tmp_path):
    people = frames(lambda k, t: whole(k, t, WHOLE))
    for t, of_frame in enumerate(people):
        of_frame[0] = exchange(of_frame[0], t)
    del people[15][0]
    write(tmp_path, as_coco(people, WHOLE))
    tracks, account = read(tmp_path, hands=True, put_sides_right=True, bridge=True)
    assert "in 8 of 59 frames" in str(account.notes)
    for track in tracks:
        assert len(track.frame_index) == N
        require_hands(track.columns)
