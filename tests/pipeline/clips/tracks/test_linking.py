import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clips.tracks.linking import link, split_at_gaps

SHAPE = np.array(
    [[-10, -40], [10, -40], [0, -20], [-8, 0], [8, 0], [-9, 40], [9, 40], [0, -50]], float
)


def person(x, y=100, size=1, lean=0):
    """(8, 3): an upright figure, sheared by `lean`."""
    points = SHAPE * size
    points = points + np.column_stack([lean * points[:, 1], np.zeros(len(points))]) + [x, y]
    return np.column_stack([points, np.ones(len(points))])


def chains(tracks, detections):
    """(frame position, x of the first joint) of every track: who it is, whatever its number in the
    frame.
    """
    return sorted([(int(t), float(detections[t][p][0, 0])) for t, p in track] for track in tracks)


def test_joints_that_are_not_finite_are_not_seen():
    detections = [np.stack([person(100 + t), person(400 - t), person(700)]) for t in range(30)]
    for frame in detections[3::4]:
        frame[0, 2], frame[1, :3, 0], frame[2, :, 1] = np.nan, np.inf, -np.inf
    linked = [[row for row in range(30) if person < 2 or row % 4 != 3] for person in range(3)]
    assert [track[:, 0].tolist() for track in link(detections, range(30))] == linked


def test_the_pairing_is_the_best_in_sum_and_not_first_come_first_served():
    # Both move 6 px right. Greedily, the new left one would go to the old right one's place.
    before, now = np.stack([person(100), person(109)]), np.stack([person(106), person(115)])
    assert [track[:, 1].tolist() for track in link([before, now], [0, 1])] == [[0, 0], [1, 1]]


@pytest.mark.parametrize(("missing", "n_tracks"), [(0, 1), (1, 1), (25, 1), (26, 2), (60, 2)])
def test_a_track_bridges_up_to_a_second_of_frames_that_are_missing_or_without_people(
    missing, n_tracks
):
    frame_index = [0, 1, 2, 3 + missing, 4 + missing]
    tracks = link([person(100)[None]] * 5, frame_index)
    assert len(tracks) == n_tracks
    assert sum(len(track) for track in tracks) == 5
    detections = [person(100)[None], *[np.zeros((0, 8, 3))] * missing, person(100)[None]]
    assert len(link(detections, range(missing + 2))) == n_tracks


def test_people_who_come_at_the_same_time_are_in_order_from_left_to_right():
    both, left = np.stack([person(400), person(100)]), person(100)[None]
    tracks = link([both, both, *[left] * 8], range(10))
    assert [track.tolist() for track in tracks] == [
        [[0, 1], [1, 1], *([t, 0] for t in range(2, 10))],
        [[0, 0], [1, 0]],
    ]


def test_people_in_equal_boxes_are_in_order_of_their_joints():
    left, right = person(100), person(100)
    right[2, 0] += 3  # inside the box
    for frame, order in (([left, right], (0, 1)), ([right, left], (1, 0))):
        tracks = link([np.stack(frame), np.stack([left, right])], [0, 1])
        assert [track[:, 1].tolist() for track in tracks] == [[order[0], 0], [order[1], 1]]


def test_a_detection_without_a_joint_belongs_to_no_person():
    unseen = person(100) * [1, 1, 0]
    assert link([np.stack([unseen, person(100)])], [0])[0].tolist() == [[0, 1]]
    assert link([unseen[None]], [0]) == []


def test_joints_seen_in_only_one_of_two_frames_do_not_part_them():
    upper, lower = person(100), person(101)
    upper[5:7, 2] = 0
    lower[0:2, 2] = 0
    assert len(link([upper[None], lower[None]], [0, 1])) == 1
    thin = person(100)
    thin[2:, 2] = 0  # two joints in line
    assert len(link([thin[None]] * 3, range(3))) == 1


def larger():
    """A person at 100, enlarged about the joints' mean."""
    points = person(100)
    middle = points[:, :2].mean(axis=0)
    points[:, :2] = middle + 1.3 * (points[:, :2] - middle)
    return points


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (person(98), person(102) * [1, 1, 0.5]),  # equally near, and surer
        (person(100), larger()),  # the same mean, and of the person's size
    ],
)
def test_of_two_detections_at_one_place_a_track_takes_the_surer_and_the_more_alike(
    right, wrong, is_first
):
    last = [right, wrong] if is_first else [wrong, right]
    detections = [person(100)[None]] * 9 + [np.stack(last)]
    tracks = link(detections, range(10))
    assert tracks[0].tolist() == [*([t, 0] for t in range(9)), [9, int(not is_first)]]


@settings(max_examples=25)
@given(st.randoms(use_true_random=False), st.integers(0, 2**32 - 1))
def test_the_order_of_detections_within_a_frame_changes_nothing(shuffler, seed):
    rng = np.random.default_rng(seed)
    detections = [
        np.stack(
            [
                person(60 * k + 3 * t + rng.normal(0, 2), 100 + rng.normal(0, 2))
                for k in range(rng.integers(1, 6))
            ]
        )
        for t in range(12)
    ]
    orders = [shuffler.sample(range(len(frame)), len(frame)) for frame in detections]
    shuffled = [frame[order] for frame, order in zip(detections, orders, strict=True)]
    tracks, others = link(detections, range(12)), link(shuffled, range(12))
    assert chains(tracks, detections) == chains(others, shuffled)
    assert [orders[t][p] for t, p in (track[0].tolist() for track in others)] == [
        track[0][1] for track in tracks
    ]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_every_detection_belongs_to_exactly_one_track(seed):
    rng = np.random.default_rng(seed)
    detections = [
        np.stack([person(rng.uniform(0, 500), rng.uniform(0, 300)) for _ in range(n)])
        if n
        else np.zeros((0, 8, 3))
        for n in rng.integers(0, 5, 15)
    ]
    frame_index = np.cumsum(rng.integers(1, 5, 15))
    tracks = link(detections, frame_index)
    members = sorted((int(t), int(p)) for track in tracks for t, p in track)
    assert members == [(t, p) for t, frame in enumerate(detections) for p in range(len(frame))]
    for track in tracks:
        steps = np.diff(frame_index[track[:, 0]])
        assert ((steps >= 1) & (steps <= 26)).all()


def test_no_frames_and_no_people_give_no_tracks():
    assert link([], []) == []
    assert link([np.zeros((0, 25, 3))] * 3, range(3)) == []


def test_nobody_is_linked_over_a_cut():
    detections = [person(100)[None]] * 10
    tracks = link(detections, range(10), cuts=[4, 7])
    assert [track[:, 0].tolist() for track in tracks] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    # A cut in frames without people counts as well.
    assert [len(track) for track in link([person(100)[None]] * 2, [0, 3], cuts=[2])] == [1, 1]


@pytest.mark.parametrize("missing", [3, 12])
def test_who_walks_on_unseen_is_found_again(missing):
    # 8 px a frame: after 12 missing frames, 104 px from where last seen, five times a body's width.
    frames = [*range(10), *range(10 + missing, 20 + missing)]
    assert len(link([person(8 * t)[None] for t in frames], frames, 12)) == 1
    # Who stands where the first one was last seen has stopped; more than a body's length away it is
    # another person.
    stands = [person(8 * min(t, 9))[None] for t in frames]
    assert len(link(stands, frames, 12)) == (1 if missing == 3 else 2)


def test_one_person_is_split_at_gaps_and_cuts():
    frames = np.array([0, 1, 4, 9, 10, 11])
    assert [part.tolist() for part in split_at_gaps(frames, 2)] == [[0, 1, 2], [3, 4, 5]]
    assert [part.tolist() for part in split_at_gaps(frames, 99, cuts=[1, 10])] == [
        [0],
        [1, 2, 3],
        [4, 5],
    ]


@settings(max_examples=25, deadline=None)
@given(
    speed=st.floats(2, 9), apart=st.floats(0, 6), hidden=st.integers(0, 16), taller=st.booleans()
)
def test_two_who_cross_keep_to_their_straight_lines_while_one_hides_the_other(
    speed, apart, hidden, taller
):
    # They meet at frame 20.5; the second is missed around it.
    detections = [
        np.stack(
            [
                person(100 + speed * (t - 20.5)),
                person(100 - speed * (t - 20.5), 100 + apart, 0.9 + 0.1 * taller),
            ]
        )
        for t in range(42)
    ]
    detections = [f[:1] if abs(t - 20.5) < hidden / 2 else f for t, f in enumerate(detections)]
    tracks = link(detections, range(42))
    assert sorted(len(track) for track in tracks) == [sum(len(f) == 2 for f in detections), 42]
    assert all(len({int(p) for _, p in track}) == 1 for track in tracks)


def test_the_cameras_motion_is_not_taken_for_the_persons():
    # The camera jumps by a body's length and zooms; a neighbour stands where the person was.
    zoom = np.array([[1.25, 0, 70], [0, 1.25, 5], [0, 0, 1]])
    before = np.stack([person(100), person(186)])
    after = before.copy()
    after[..., :2] = before[..., :2] * 1.25 + [70, 5]
    both = [before, before, before[:0], after]
    kept, lost = link(both, range(4), camera={2: zoom}), link(both, range(4))
    assert [track.tolist() for track in kept] == [[[0, p], [1, p], [3, p]] for p in (0, 1)]
    assert len(lost) != 2 or any(len({int(p) for _, p in track}) > 1 for track in lost)


@pytest.mark.parametrize("n_halves", [1, 4, 7])
def test_a_person_who_is_found_as_two_halves_for_a_while_stays_the_same(n_halves):
    rng, places = (
        np.random.default_rng(0),
        np.column_stack([np.linspace(-20, 20, 17) % 15, np.linspace(0, 120, 17)]),
    )
    frames = []
    for t in range(60):
        swing = np.where(np.arange(17) < 9, 8 * np.sin(t / 3), 2 * np.sin(t / 5))
        joints = places + np.array([100 + 3 * t, 50]) + rng.normal(0, 1, (17, 2))
        joints += np.column_stack([swing, np.zeros(17)])
        whole = np.column_stack([joints, np.ones(17)])
        first = np.arange(17) < 9
        upper, lower = (whole * [1, 1, 0] + [0, 0, 1] * half[:, None] for half in (first, ~first))
        frames.append(np.stack([upper, lower]) if 25 <= t < 25 + n_halves else whole[None])
    assert sorted(map(len, link(frames, range(60)))) == [n_halves, 60]


def test_joints_that_are_guessed_on_the_person_in_front_do_not_exchange_the_two():
    # They meet at frame 20; the network takes the joints of the one behind from the one in front.
    frames = []
    for t in range(41):
        front, behind = person(100 + 4 * (t - 20)), person(100 - 4 * (t - 20), 90)
        is_hidden = np.abs(behind[:, 0] - front[:, 0].mean()) < 20
        behind[is_hidden, :2] = front[is_hidden, :2]
        behind[is_hidden, 2] = 0.3
        frames.append(np.stack([front, behind]))
    tracks = link(frames, range(41))
    assert [track[:, 1].tolist() for track in tracks] == [[0] * 41, [1] * 41]


def numbers(tracks):
    """The numbers in their frames of each track's detections."""
    return [sorted({int(p) for _, p in track}) for track in tracks]


@pytest.mark.parametrize("n_people", [1, 2, 3, 6])
@pytest.mark.parametrize("direction", [0, 0.25, 0.5, 0.9])  # of a turn
def test_people_keep_their_tracks_where_all_shift_at_once(n_people, direction):
    angle = 2 * np.pi * direction
    rng = np.random.default_rng(n_people)
    # the camera swings by up to 30 px a frame; people stand 60 px apart, and are 92 px long
    swings = 15 * np.sin(1.7 * np.arange(40)) + rng.normal(0, 2, 40)
    detections = []
    for swing in swings:
        moved = [swing * np.cos(angle), 100 + swing * np.sin(angle)]
        people = np.stack([person(300 + 60 * k + moved[0], moved[1]) for k in range(n_people)])
        detections.append(people)
    assert numbers(link(detections, range(40))) == [[k] for k in range(n_people)]


def hide(detections, number, frames):
    """Without a person's detections in these frames; the last number, so that others keep theirs."""
    return [f[:number] if t in frames else f for t, f in enumerate(detections)]


@pytest.mark.parametrize("direction", [-1, 1])
@pytest.mark.parametrize("is_known", [True, False])
def test_who_is_not_seen_while_the_camera_turns_is_found_where_it_has_turned_to(
    is_known, direction
):
    # 8 px a frame: 104 px while the last of them is not seen
    shift = 8 * direction * np.clip(np.arange(40) - 15, 0, 13)
    places = (100, 400, 700, 1000)
    detections = [np.stack([person(place + x) for place in places]) for x in shift]
    steps = np.diff(shift, prepend=0)
    camera = {t: np.array([[1, 0, x], [0, 1, 0], [0, 0, 1]]) for t, x in enumerate(steps)}
    tracks = link(hide(detections, 3, range(15, 28)), range(40), camera=camera if is_known else {})
    assert numbers(tracks) == [[0], [1], [2], [3]]


@pytest.mark.parametrize("n_still", [0, 1, 3])
def test_somebody_who_walks_is_not_the_camera(n_still):
    # The first walks 104 px while the last, who stands still, is not seen.
    detections = [
        np.stack([person(8 * t), *(person(1000 + 200 * k) for k in range(n_still + 1))])
        for t in range(60)
    ]
    tracks = link(hide(detections, n_still + 1, range(30, 43)), range(60))
    assert numbers(tracks) == [[k] for k in range(n_still + 2)]


@pytest.mark.parametrize("fps", [30, 60, 120])
@pytest.mark.parametrize(("away", "n_tracks"), [(0.2, 3), (0.6, 4)])
def test_frames_above_25_a_second_change_nobodys_person(fps, away, n_tracks):
    # After 0.2 s, somebody stands a share of a body away from where the last one stood.
    times = np.arange(2 * fps) / fps
    detections = [
        np.stack([person(100), person(400), person(700 + 92 * away * (t > 1))]) for t in times
    ]
    frames = np.flatnonzero((times > 0.999) & (times < 1.199))
    assert len(link(hide(detections, 2, frames), range(2 * fps), fps, fps=fps)) == n_tracks


@pytest.mark.parametrize("fps", [0.0, -1.0, np.nan, np.inf])
def test_a_rate_that_is_none_counts_as_unknown(fps):
    detections = [np.stack([person(100 + t), person(400 - t)]) for t in range(20)]
    assert chains(link(detections, range(20), fps=fps), detections) == chains(
        link(detections, range(20)), detections
    )


def test_a_camera_that_moves_somebody_to_infinity_loses_no_detection():
    """The homography's last row is 0 at the first person's place. Warnings are errors."""
    detections = [np.stack([person(100), person(400), person(700)]) for _ in range(10)]
    homography = np.array([[1, 0, 0], [0, 1, 0], [-1 / 100, 0, 1.0]])
    tracks = link(detections, range(10), camera={5: homography})
    assert sum(map(len, tracks)) == 30


def test_a_crowd_beyond_the_detections_that_are_tried_follows_the_camera():
    rng = np.random.default_rng(0)
    places = [(100 + 60 * i, 100 + 200 * j) for i in range(12) for j in range(4)]
    shift = np.cumsum(rng.normal(0, 12, (20, 2)), axis=0)
    detections = [np.stack([person(x + dx, y + dy) for x, y in places]) for dx, dy in shift]
    assert [len(track) for track in link(detections, range(20))] == [20] * len(places)
