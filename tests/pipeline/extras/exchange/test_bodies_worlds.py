"""One person under several numbers, each with a world that begins at its own origin: the rows of a
run have one world.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

import cache
from pipeline.people.cameras import angular_velocity
from tests.made_splits import track_of, write_split
from tests.pipeline.extras.exchange import planted_bodies as planted

NAME, N = planted.NAME, planted.N
EVERY = np.arange(N)


def other_world():
    """(N, 4, 4): the planted camera, from a world 7 m away and turned by 67 degrees."""
    between = np.eye(4)
    between[:3, :3] = Rotation.from_euler("y", 67, degrees=True).as_matrix()
    between[:3, 3] = 2, 0, 6.7
    return planted.extrinsics() @ between


def number(frames, to_camera, person=0):
    """WHAM's entry of a person in these frames, with a world that `to_camera` (N, 4, 4) leaves."""
    turns = np.swapaxes(to_camera[:, :3, :3], 1, 2)
    pose = planted.pose(person)
    root = Rotation.from_matrix(turns) * Rotation.from_rotvec(pose[:, :3])
    away = planted.hips(person) - to_camera[:, :3, 3]
    entry = {
        "pose": pose,
        "trans": planted.trans(person),
        "pose_world": np.hstack([root.as_rotvec(), pose[:, 3:]]),
        "trans_world": np.einsum("nij,nj->ni", turns, away),
        "betas": planted.betas(person),
    }
    return {key: values[frames] for key, values in entry.items()} | {"frame_ids": frames}


def import_numbers(tmp_path, *numbers, frames=EVERY):
    """Import WHAM's numbers of the one person of a clip, who is seen in `frames`. Returns the
    split, the extrinsics of its rows, and the notes of the clip.
    """
    rows = planted.clip_rows("walk.mp4/0", 0)
    track = track_of("walk.mp4/0", {name: column[frames] for name, column in rows.columns.items()})
    entry = cache.VideoEntry(
        name="walk.mp4", width=planted.SIZE[0], height=planted.SIZE[1], fingerprint="ab"
    )
    write_split(tmp_path / "clips", NAME, [(entry, [track])])
    planted.run(tmp_path, planted.write(tmp_path, "wham", dict(enumerate(numbers))))
    split = cache.open(tmp_path / "c")[NAME]
    assert split.rows("has_smpl", 0, len(frames)).all(), "each row has its body"
    notes = " ".join(split.videos[0].account["notes"])
    return split, split.rows("extrinsics", 0, len(frames)), notes


@pytest.mark.parametrize("border", [3, 5, 8])
def test_the_rows_of_a_run_have_the_world_of_most_of_them(tmp_path, border):
    first, second = planted.extrinsics(), other_world()
    jump = np.linalg.norm(first[border, :3, 3] - second[border, :3, 3])
    assert jump > 5
    split, to_camera, notes = import_numbers(
        tmp_path, number(EVERY[:border], first), number(EVERY[border:], second)
    )
    is_of_first = border > EVERY
    world, has_world = (first, is_of_first) if border > N / 2 else (second, ~is_of_first)
    assert_array_equal(np.isfinite(to_camera).all(axis=(1, 2)), has_world)
    assert_allclose(to_camera[has_world], world[has_world], atol=2e-5)
    assert f"{min(border, N - border)} frames without extrinsics" in notes
    assert_array_equal(split.tracks[0].extra["up"], [0, 1, 0])


def test_numbers_that_alternate_leave_one_world(tmp_path):
    first, second = planted.extrinsics(), other_world()
    is_of_second = (EVERY % 3) == 1
    _, to_camera, notes = import_numbers(
        tmp_path, number(EVERY[~is_of_second], first), number(EVERY[is_of_second], second)
    )
    assert np.isnan(to_camera[is_of_second]).all()
    assert_allclose(to_camera[~is_of_second], first[~is_of_second], atol=2e-5)
    assert "4 frames without extrinsics" in notes


def test_a_world_that_begins_with_a_run_stays(tmp_path):
    first, second = planted.extrinsics(), other_world()
    frames = np.delete(EVERY, 5)
    split, to_camera, notes = import_numbers(
        tmp_path, number(EVERY[:5], first), number(EVERY[6:], second), frames=frames
    )
    assert len(split.runs) == 2
    assert_allclose(to_camera, np.concatenate([first[:5], second[6:]]), atol=2e-5)
    assert "without extrinsics" not in notes


def test_one_world_for_all_people_stays_under_every_number(tmp_path):
    """TRAM's."""
    people = []
    for frames in (EVERY[:5], EVERY[5:]):
        entry = planted.tram(0)
        people.append({key: entry[key][frames] for key in entry})
    planted.write_clips(tmp_path / "clips", people=(0,))
    planted.run(tmp_path, *planted.write_tram(tmp_path, people))
    to_camera = cache.open(tmp_path / "c")[NAME].rows("extrinsics", 0, N)
    assert_allclose(to_camera, planted.extrinsics(), atol=2e-5)


@pytest.mark.parametrize("convention", ["gvhmr", "wham"])
def test_streams_of_the_world_see_no_jump(tmp_path, embedded, ran, convention):
    border = 8
    first = planted.extrinsics()
    split, _, _ = import_numbers(
        tmp_path, number(EVERY[:border], first), number(EVERY[border:], other_world())
    )
    body = embedded.body / "SMPL_NEUTRAL.pkl"
    ran(
        *(
            "extract",
            NAME,
            "--cache",
            split.root,
            "--set",
            "features.streams=cam_angvel stationary",
        ),
        *("--set", f"cam_angvel.convention={convention}", "--set", f"stationary.body={body}"),
    )
    split = cache.open(split.root)[NAME]
    turns = split.rows("features/cam_angvel", 0, N)
    is_known = split.rows("features/cam_angvel_ok", 0, N) == 1
    expected = angular_velocity(first, convention)
    with_neighbour = EVERY[1:border] if convention == "wham" else EVERY[: border - 1]
    assert_array_equal(np.flatnonzero(is_known), with_neighbour)
    assert_allclose(turns[is_known], expected[is_known], atol=2e-3)
    contacts = split.rows("features/stationary_ok", 0, N) == 1
    assert contacts[1 : border - 1].all()
    assert not contacts[border - 1 :].any()


def leaving_world(seed):
    """(N, 4, 4): the planted camera, from a world of its own; both have y up."""
    between = np.eye(4)
    between[:3, :3] = Rotation.from_euler("y", 71 * seed, degrees=True).as_matrix()
    between[:3, 3] = np.random.default_rng(seed).normal(size=3) * 3
    return planted.extrinsics() @ between


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, EVERY), (1, EVERY)],
        [(0, EVERY[:5]), (1, EVERY), (0, EVERY[5:])],  # one person under two numbers
        [(0, EVERY[:8]), (1, EVERY[3:])],  # neither is seen in all frames
        [(0, EVERY[:5]), (1, EVERY[3:9]), (0, EVERY[7:])],  # a chain
    ],
)
def test_all_people_of_a_clip_are_in_one_world(tmp_path, pieces):
    """WHAM gives each person a world of its own: the people's places relative to each other, in
    all frames, and the camera's steps are those of one world.
    """
    planted.write_clips(tmp_path / "clips")
    numbers = {
        seed: number(frames, leaving_world(seed), person)
        for seed, (person, frames) in enumerate(pieces)
    }
    planted.run(tmp_path, planted.write(tmp_path, "wham", numbers))
    split = cache.open(tmp_path / "c")[NAME]
    assert "without extrinsics" not in " ".join(split.videos[0].account["notes"])
    to_truth = []  # (4, 4) from the imported world to the planted one, by each row
    for person, track in enumerate(list(split.tracks)[:2]):
        frames = np.sort(np.concatenate([seen for who, seen in pieces if who == person]))
        to_camera = split.rows("extrinsics", track.start, track.stop)
        assert_array_equal(np.flatnonzero(np.isfinite(to_camera).all(axis=(1, 2))), frames)
        to_truth += [*(np.linalg.inv(planted.extrinsics()[frames]) @ to_camera[frames])]
    place = np.array([1.0, 2, 3, 1])
    moved = np.array(to_truth) @ place
    assert np.linalg.norm(moved - moved[0], axis=1).max() < 1e-3  # m
