"""Each row of estimated bodies is judged by itself: a wrong one is no label, whatever the others
are.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cache
from tests.made_splits import write_split
from tests.pipeline.extras.exchange import planted_bodies as planted
from tests.raising import raw_refuses

NAME = planted.NAME
N = 60
ALMOST_THERE_M = 0.3  # 15 % of the box, at 5 m


def wham():
    """Entries of both people, whose world is the camera's."""
    content = {}
    for person in range(2):
        pose, trans = planted.pose(person, N), planted.trans(person, N)
        content[person] = {"pose": pose, "pose_world": pose, "trans": trans, "trans_world": trans}
        content[person] |= {"betas": planted.betas(person, N), "frame_ids": np.arange(N)}
    return content


def run(tmp_path, content):
    """Import; track -> whether each row has a body. Raises AssertionError if a body is another
    person's, or elsewhere.
    """
    planted.write_clips(tmp_path / "clips", n=N)
    planted.run(tmp_path, planted.write(tmp_path, "wham", content))
    split = cache.open(tmp_path / "c")[NAME]
    has_body = {}
    for person, track in enumerate(list(split.tracks)[:2]):
        is_body, betas, trans = (
            split.rows(name, track.start, track.stop) for name in ("has_smpl", "betas", "trans")
        )
        rows = np.flatnonzero(is_body)
        assert_allclose(betas[rows], planted.betas(person, N)[rows], atol=1e-5)
        away = np.linalg.norm(trans - planted.trans(person, N), axis=1)[rows]
        assert away.max(initial=0) < ALMOST_THERE_M
        has_body[track.name] = is_body.astype(bool)
    return has_body


def exchange_identities(content, frame):
    for key in ("pose", "betas", "trans"):
        first, second = content[0][key].copy(), content[1][key].copy()
        content[0][key][frame:] = second[frame:]
        content[1][key][frame:] = first[frame:]


@pytest.mark.parametrize("frame", [11, 29, 45])
def test_people_who_change_their_identities_get_no_other_person_s_body(tmp_path, frame):
    content = wham()
    exchange_identities(content, frame)
    for has_body in run(tmp_path, content).values():
        assert abs(int(has_body.sum()) - max(frame, N - frame)) <= 2  # some are on both people


def place(*position):
    def change(entry):
        entry["trans"][40:] = position

    return change


WRONG = {
    "frozen": lambda entry: place(*entry["trans"][39])(entry),
    "far away": place(1e30, 1e30, 1e30),
    "straight on, and far away": place(0, 0, 1e30),
    "at depth 0": place(0, 0, 0),
    "behind the camera": place(0, 0, -5),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_body_that_is_not_on_the_person_is_no_label_and_counted(tmp_path, what):
    content = wham()
    WRONG[what](content[1])
    right, wrong = run(tmp_path, content).values()
    assert right.all()
    assert wrong[:40].all()
    n_lost = int((~wrong).sum())
    assert 16 <= n_lost <= 20
    notes = cache.open(tmp_path / "c")[NAME].videos[0].account["notes"]
    assert any(f"person 1: {n_lost} frames in which the body lies on no" in note for note in notes)


def reverse(entry):
    for key in ("pose", "betas", "trans"):
        entry[key] = entry[key][::-1]


@pytest.mark.parametrize("change", [reverse, lambda entry: entry.update(trans=-entry["trans"])])
def test_a_file_of_which_most_rows_are_wrong_is_refused(tmp_path, change):
    content = wham()
    for entry in content.values():
        change(entry)
        entry["trans"] = entry["trans"] * [0.2, 1, 1]  # near the people, but not on them
    with raw_refuses("projection"):
        run(tmp_path, content)


def test_a_body_is_used_once_a_frame(tmp_path):
    """Two tracks of one person share her bodies."""
    planted.write_clips(tmp_path / "clips", n=N, people=(0, 0))
    content = wham()
    del content[1]
    done = planted.run(tmp_path, planted.write(tmp_path, "wham", content))
    assert done.with_body == N


def test_pictures_of_several_cameras_or_sizes_are_refused(tmp_path):
    write_split(tmp_path / "clips", NAME, [])
    gvhmr = planted.gvhmr()
    gvhmr["K_fullimg"][5] *= 2
    phalp = planted.phalp()
    [*phalp.values()][5]["size"][1] = [planted.SIZE[0], planted.SIZE[1]]
    for tool, content, key in (("gvhmr", gvhmr, "K_fullimg"), ("phalp", phalp, "size")):
        file = planted.write(tmp_path, tool, content)
        with raw_refuses(f"{key}.: expected"):
            planted.run(tmp_path, file)
