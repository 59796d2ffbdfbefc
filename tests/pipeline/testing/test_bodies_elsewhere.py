"""The contract names bodies that are not where their joints are: numbers of another unit, poses in
the world.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.datasets.shared import contradictions
from pipeline.datasets.threedpw import ThreeDPW
from pipeline.people.body import Body
from pipeline.people.track import Track
from pipeline.testing import datasets as contract
from pipeline.testing import labels


def turned(track, turns):
    pose = track.pose.copy()
    pose[:, :3] = (turns * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    return replace(track, pose=pose)


def stuck(track):
    """Left in a world that the camera turns in: 50 degrees from the camera's axes, frame by frame a
    little more.
    """
    degrees = np.linspace(45, 55, len(track.pose))[:, None]
    return turned(track, Rotation.from_rotvec(np.radians(degrees) * [0, 1, 0]))


def flipped(track):
    """As a renderer has it: y up, z back."""
    return turned(track, Rotation.from_rotvec([np.pi, 0, 0]))


IN_MM = np.float32([1000])
PLANTED = [
    (
        "kp_3d_eval in mm",
        "kp_3d_eval is in the wrong unit",
        lambda t: replace(t, kp_3d_eval=t.kp_3d_eval * IN_MM),
    ),
    (
        "kp_3d_eval in km",
        "kp_3d_eval is in the wrong unit",
        lambda t: replace(t, kp_3d_eval=t.kp_3d_eval / IN_MM),
    ),
    ("pose in degrees", "pose is in the wrong unit", lambda t: replace(t, pose=np.degrees(t.pose))),
    ("in the world", labels.TURNED, stuck),
    ("upside down", labels.TURNED, flipped),
    ("trans zero", "trans is 0 in every frame", lambda t: replace(t, trans=np.zeros_like(t.trans))),
    ("trans in mm", contradictions.MISPLACED.text, lambda t: replace(t, trans=t.trans * IN_MM)),
    (
        "against no parents",
        labels.MISPOSED,
        lambda t: replace(t, pose=t.pose[:, np.r_[:3, 71:2:-1]].copy()),
    ),
    (
        "no 3D joints",
        contradictions.ELSEWHERE.text,
        lambda t: replace(flipped(t), kp_3d_eval=None, has_3d=None),
    ),
]


@dataclass(frozen=True)
class Spoiled(ThreeDPW):
    """3DPW's tracks, each spoilt in one way."""

    spoil: Callable[[Track], Track] = lambda track: track
    read_before: tuple[Track, ...] = ()

    def columns(self, split, *, body):
        return tuple(self.spoil(self.read_before[0]).columns)

    def read(self, raw, split, video, account, body):
        tracks = [track for track in self.read_before if track.video == video.name]
        account.found = sum(len(track.frame_index) for track in tracks)
        for track in tracks:
            account.keep_track(len(track.frame_index))
        return [self.spoil(track) for track in tracks]


def test_a_body_that_is_not_where_its_joints_are_is_named(embedded):
    raw, body = embedded.raw("3dpw"), Body.load(embedded.body)
    sound = Spoiled(read_before=tuple(ThreeDPW().tracks(raw, "test", body)))
    assert contract.reader_problems(sound, raw, "test", body) == []
    for case, promise, spoil in PLANTED:
        problems = contract.reader_problems(replace(sound, spoil=spoil), raw, "test", body)
        assert any(promise in problem for problem in problems), (case, problems)
