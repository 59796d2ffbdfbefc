import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips.tracks.cleaning import ABOVE, Cleaning, clean
from pipeline.errors import ConfigError
from pipeline.people.skeletons import JOINTS, joint_names

COCO = joint_names("coco")
# a body's joints come before a face's
LEGS_FIRST = np.argsort([name in ABOVE for name in COCO], kind="stable")


def seen(counts):
    """(T, 17): so many joints of the body and, beyond 10, of the face are visible."""
    visible = np.zeros((len(counts), 17), bool)
    for row, n in zip(visible, counts, strict=True):
        row[LEGS_FIRST[:n]] = True
    return visible


def spans(parts):
    assert all(np.array_equal(part, np.arange(part[0], part[-1] + 1)) for part in parts)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


def test_a_sequence_begins_above_six_joints_and_ends_at_four():
    parts, dropped = clean(seen([6] * 10 + [7] * 20 + [5] * 30 + [4] * 10), COCO, Cleaning())
    assert spans(parts) == [(10, 60)]  # 5 and 6 joints go on with it, but begin none
    ((reason, rows),) = dropped.items()
    assert (reason, rows.tolist()) == ("too_few_visible_joints", [*range(10), *range(60, 70)])


@pytest.mark.parametrize(("bad", "expected"), [(2, [(0, 90)]), (3, [(0, 40), (43, 90)])])
def test_one_or_two_bad_detections_end_nothing(bad, expected):
    counts = [10] * 90
    counts[40 : 40 + bad] = [0] * bad
    assert spans(clean(seen(counts), COCO, Cleaning())[0]) == expected


@pytest.mark.parametrize(
    ("n", "faces", "reason"),
    [(39, 0, "track_too_short"), (40, 0, None), (100, 39, None), (100, 40, "face_only")],
)
def test_forty_frames_are_enough_and_two_fifths_of_faces_alone_are_no_body(n, faces, reason):
    visible = seen([12] * n)
    visible[:faces] = [name in ABOVE for name in COCO]
    parts, dropped = clean(visible, COCO, Cleaning())
    assert spans(parts) == ([] if reason else [(0, n)])
    assert {name: len(rows) for name, rows in dropped.items()} == ({reason: n} if reason else {})


@pytest.mark.parametrize(
    ("n", "expected"), [(500, [500]), (501, [251, 250]), (1200, [400, 400, 400])]
)
def test_long_sequences_are_split_evenly(n, expected):
    assert [len(part) for part in clean(seen([15] * n), COCO, Cleaning())[0]] == expected


@given(st.lists(st.integers(0, 17), max_size=120), st.integers(1, 10), st.integers(20, 40))
def test_every_detection_is_kept_or_has_one_reason(counts, fewest, most):
    parts, dropped = clean(seen(counts), COCO, Cleaning(min_frames=fewest, max_frames=most))
    everywhere = np.concatenate([*parts, *dropped.values(), np.empty(0, int)])
    assert sorted(everywhere.tolist()) == list(range(len(counts)))
    assert all(fewest <= len(part) <= most for part in parts)


def test_every_order_of_detectors_has_a_body_below_the_shoulders():
    for name in (
        "coco",
        "body_25",
        "openpose_coco",
        "coco_neck",
        "body_25b",
        "halpe_26",
        "coco_feet",
    ):
        rest = set(JOINTS[name]) - ABOVE
        assert {joint.removeprefix("OP ").lower() for joint in rest} >= {"lelbow", "rhip", "lankle"}
        assert not any(
            part in joint.lower()
            for joint in rest
            for part in ("eye", "ear", "nose", "shoulder", "neck")
        )


@pytest.mark.parametrize(
    "options",
    [{"min_frames": 0}, {"min_frames": 300}, {"face_only": 1.5}],
)
def test_senseless_constants_are_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=rf"^[^(]*{name} {options[name]}[^(]*: expected"):
        Cleaning(**options)  # type: ignore[arg-type]
