"""One contract for all readers, whatever is registered: on embedded data, against the truth that it
was made from.
"""

import functools
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cache
from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.datasets import RELEASES
from pipeline.datasets.shared.smpl import EXTRINSICS
from pipeline.datasets.threedpw import ThreeDPW
from pipeline.errors import PipelineError
from pipeline.extras.demo import body as procedural_body
from pipeline.extras.demo.scene import Actor, Take
from pipeline.files.pixels import sources
from pipeline.files.raw import MARKER
from pipeline.people import cameras
from pipeline.people.body import Body
from pipeline.people.skeletons import JOINTS, convert, opposite_joints
from pipeline.people.track import Track
from pipeline.testing import DatasetContract

pytestmark = pytest.mark.promise("plug-ins")

SPIN49 = JOINTS["spin49"]
SPLITS = [(name, split) for name in RELEASES for split in datasets.get(name).splits]
WITH_KEYPOINTS = [
    (name, split) for name, split in SPLITS if datasets.get(name).labels.keypoints_from != "none"
]
LATERAL = [i for i, j in enumerate(opposite_joints("spin49")) if i != j]
HAS_TWIN = np.isin(np.arange(len(SPIN49)), LATERAL)
EXACT_PX = 0.01
TOLERANCE_PX = {  # where labels are not the projected joints themselves
    "penn_action": 1.42,  # MATLAB counts from 1, in x and in y
    "kinetics": 2.5,  # the detector's noise, sigma 0.3 in x and y
}
every_split = pytest.mark.parametrize(("name", "split"), SPLITS)
every_split_with_keypoints = pytest.mark.parametrize(("name", "split"), WITH_KEYPOINTS)


class Played(NamedTuple):
    """A track, and the truth that it was made from."""

    track: Track
    take: Take
    actor: Actor


def distances(track, actor, order=slice(None)):
    """(visible joints,) px between the labels and an actor's projected joints, those in another
    order.
    """
    assert track.kp_2d is not None
    apart = np.linalg.norm(track.kp_2d[..., :2] - actor.kp_2d[track.frame_index][:, order], axis=-1)
    return np.asarray(apart[(track.kp_2d[..., 2] > 0) & HAS_TWIN])


@functools.cache
def tracks_of(name, split, embedded):
    raw, body = embedded.raw(name), embedded.model(name)
    return list(datasets.get(name).tracks(raw, split, body=body, report=Accounting()))


@functools.cache
def played(name, split, embedded):
    """Every track with the nearest of all people in videos of its split that have all of its
    frames.
    """
    takes = [take for take in embedded.takes(name) if split in take.shot.split.split()]
    found = []
    for track in tracks_of(name, split, embedded):
        long_enough = (take for take in takes if take.shot.n_frames > track.frame_index[-1])
        people = [Played(track, take, actor) for take in long_enough for actor in take.actors]
        found.append(min(people, key=error))
    return found


def error(one):
    """How far a track's joints are from those of an actor, by its 2D joints, or else by its 3D."""
    if one.track.kp_2d is not None:
        return distances(one.track, one.actor).mean()
    known = one.track.kp_3d[..., 3] > 0
    apart = one.track.kp_3d[..., :3] - joints_from_hip(one)
    return np.linalg.norm(apart, axis=-1)[known].mean()


def joints_from_hip(one):
    """(T, 49, 3) m, an actor's joints in the axes of the camera."""
    joints = one.take.view.to_camera(one.actor.spin49)[one.track.frame_index]
    return joints - joints[:, [SPIN49.index("hip")]]


@functools.cache
def decoded(name, split, embedded):
    """Every track, its source restored from what the cache keeps of it, and its frames."""
    found = []
    for track in tracks_of(name, split, embedded):
        assert track.frames is not None
        source = sources.parse(embedded.raw(name), track.frames.spec)
        frames = list(source.read(track.frame_index.tolist()))
        assert [frame.index for frame in frames] == track.frame_index.tolist()
        width, height = source.size()
        assert {frame.problem or frame.image.shape for frame in frames} == {(height, width, 3)}
        found.append((track, source, frames))
    return found


@pytest.fixture(scope="module")
def smpl(embedded):
    return Body.load(embedded.body)


class DemoContract(DatasetContract):
    @pytest.fixture
    def dataset(self, name):
        return datasets.get(name)

    @pytest.fixture
    def raw(self, name, embedded):
        return Path(embedded.raw(name))


@every_split
class TestReader(DemoContract):
    @pytest.fixture
    def body(self, name, embedded):
        return embedded.model(name)


@pytest.mark.parametrize(
    "name, split", [(n, s) for n, s in SPLITS if "pose" in datasets.get(n).columns(s, body=True)]
)
class TestReaderWithBody(DemoContract):
    @pytest.fixture
    def body(self, smpl):
        return smpl


@pytest.mark.parametrize(("name", "split"), [("3dpw", "train")])
class TestReaderOfGenderedBodies(DemoContract):
    @pytest.fixture
    def dataset(self, name):
        return ThreeDPW(model="gendered")

    @pytest.fixture
    def body(self, smpl):
        return smpl


def garble(raw, videos):
    """All that is inside files becomes garbage of the same length; names, and where records lie,
    stay.
    """
    spans = [(video.files[0], *video.span) for video in videos if video.span is not None]
    contained = {file for file, _, _ in spans}
    for path in raw.rglob("*"):
        if path.is_file() and path.name != MARKER and path.relative_to(raw) not in contained:
            path.write_bytes(b"\xa5" * path.stat().st_size)
    for file, start, stop in spans:
        with (raw / file).open("r+b") as stream:
            stream.seek(start + 12)  # behind length and checksum
            stream.write(b"\xa5" * (stop - start - 16))


def leave_litter(raw):
    """In each folder, folders of systems and file managers with its first name in them."""
    for folder in [raw, *filter(Path.is_dir, raw.rglob("*"))]:
        first = min(folder.iterdir())
        for name in ("@eaDir", "__MACOSX", "lost+found", "#recycle", ".Trash-1000"):
            litter = folder / name / first.name
            litter.parent.mkdir()
            litter.mkdir() if first.is_dir() else litter.touch()


@pytest.mark.parametrize("name", RELEASES)
def test_listing_reads_no_label_and_videos_that_cannot_be_read_are_rejected_one_by_one(
    name, embedded, tmp_path
):
    raw, dataset = embedded.copy(name, tmp_path / "raw"), datasets.get(name)
    listed = {split: list(dataset.videos(raw, split)) for split in dataset.splits}
    assert all(listed.values())
    leave_litter(raw)
    garble(raw, [video for videos in listed.values() for video in videos])
    assert {split: list(dataset.videos(raw, split)) for split in dataset.splits} == listed
    for split, videos in listed.items():
        report = Accounting()
        assert list(dataset.tracks(raw, split, embedded.model(name), report)) == []
        assert [account.name for account in report if account.set_aside] == [
            video.name for video in videos
        ]
        assert all(account.message for account in report)


@pytest.mark.parametrize("name", RELEASES)
def test_a_missing_raw_folder_is_told_by_name(name, tmp_path):
    with pytest.raises(PipelineError, match="nowhere"):
        list(datasets.get(name).tracks(tmp_path / "nowhere", datasets.get(name).splits[0]))


@pytest.mark.promise("problems of Penn Action")
@every_split_with_keypoints
def test_joints_are_where_their_names_say_and_not_where_the_other_sides_are(name, split, embedded):
    swapped = []
    for track, take, actor in played(name, split, embedded):
        assert distances(track, actor).max() < TOLERANCE_PX.get(name, EXACT_PX), take.shot.name
        swapped.append(distances(track, actor, opposite_joints("spin49")).mean())
    assert min(swapped) > 4 * TOLERANCE_PX.get(name, EXACT_PX)


@pytest.mark.parametrize(
    ("name", "split"),
    [(n, s) for n, s in SPLITS if "kp_3d" in datasets.get(n).columns(s, body=False)],
)
def test_3d_joints_are_where_their_names_say(name, split, embedded):
    for one in played(name, split, embedded):
        track = one.track
        joints = joints_from_hip(one)
        known = track.kp_3d[..., 3] > 0
        if not known[:, SPIN49.index("hip")].any():  # a joint of the reader's is at 0
            shift = np.where(known[..., None], track.kp_3d[..., :3] - joints, np.nan)
            joints = joints + np.nanmean(shift, axis=1, keepdims=True)
        told, truth = track.kp_3d[..., :3][known], joints[known]
        # not 1 where a release has a universal skeleton
        scale = (told * truth).sum() / (truth * truth).sum()
        universal = (name, split) == ("mpi_inf_3dhp", "test")  # all skeletons are as large
        assert abs(scale - 1) < (0.4 if universal else 1e-5)
        np.testing.assert_allclose(told, scale * truth, atol=1e-3)
        other_side = joints[:, opposite_joints("spin49")][known]
        assert np.abs(told - scale * other_side).max() > 0.1
        if track.kp_3d_eval is not None:
            common = convert(joints, source="spin49", target="common14")
            relative = track.kp_3d_eval - track.kp_3d_eval.mean(axis=1, keepdims=True)
            common -= common.mean(axis=1, keepdims=True)
            np.testing.assert_allclose(relative, scale * common, atol=1e-3)


def forearms():
    """(elbow, wrist, 1 for left and -1 for right) in both families of joints."""
    for elbow, wrist in (("{}elbow", "{}wrist"), ("OP {}Elbow", "OP {}Wrist")):
        for side, sign in (("l", 1), ("r", -1)):
            side = side.upper() if elbow.startswith("OP") else side
            yield SPIN49.index(elbow.format(side)), SPIN49.index(wrist.format(side)), sign


@pytest.mark.promise("problems of Penn Action")
@pytest.mark.promise("label sides")
@pytest.mark.parametrize("name", dict(WITH_KEYPOINTS))
def test_what_is_called_left_is_on_the_left_of_the_body_in_the_pixels(name, embedded):
    """Left sleeves are blue and right ones red: pixels know no order of joints, and cannot make the
    same mistake.
    """
    agree, total = 0, 0
    everything = (
        one for split in datasets.get(name).splits for one in decoded(name, split, embedded)
    )
    for track, _, frames in everything:
        for kp_2d, frame in zip(track.kp_2d, frames, strict=True):
            for elbow, wrist, sign in forearms():
                if (kp_2d[[elbow, wrist], 2] > 0.5).all():
                    x, y = np.round(kp_2d[[elbow, wrist], :2].mean(axis=0)).astype(int)
                    red, _, blue = frame.image[y, x].astype(int)
                    agree += sign * (blue - red) > 30
                    total += 1
    assert total > 20
    assert agree / total > 0.9


WITH_CAMERAS = [
    (n, s) for n, s in SPLITS if EXTRINSICS in datasets.get(n).extra_columns(s, body=True)
]


Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def in_view(extrinsics, points):
    """(F, J, 3) m of the world, in the cameras (F, 4, 4)."""
    return np.asarray(
        points @ extrinsics[:, :3, :3].transpose(0, 2, 1) + extrinsics[:, None, :3, 3]
    )


@pytest.mark.parametrize(("name", "split"), WITH_CAMERAS)
def test_what_is_in_the_world_is_seen_where_its_keypoints_are(name, split, embedded):
    """The actors' joints in the world, which readers of some never see, by the columns alone.

    A track's world is the scene's, turned and moved in one way in all frames: for all people the
    same, but of BEDLAM.
    """
    moving, worlds = [], []
    for track, take, actor in played(name, split, embedded):
        frames, camera = track.frame_index, take.camera.extrinsics
        if name == "bedlam" and take.shot.hand_held:
            assert track.extra == {}, "its labels' world turns with the camera"
            continue
        extrinsics = track.extra["extrinsics"]
        assert (extrinsics.dtype, track.intrinsics is not None) == (np.float32, True), (
            take.shot.name
        )
        from_scene = (np.linalg.inv(extrinsics.astype(np.float64)) @ camera[frames])[0]
        if name != "bedlam":
            z_up = "up" in track.extra and track.extra["up"][2] == 1
            np.testing.assert_allclose(from_scene, Z_UP if z_up else np.eye(4), atol=1e-5)
        worlds.append((track.video, from_scene))
        if "up" in track.extra:
            # the scene's y axis is up
            np.testing.assert_allclose(track.extra["up"], from_scene[:3, 1], atol=1e-6)
            # also in the picture
            assert ((extrinsics[:, :3, :3] @ track.extra["up"])[:, 1] < -0.9).all()
        joints = in_view(from_scene[None], actor.spin49[frames])
        seen = cameras.project(in_view(extrinsics, joints), track.intrinsics)
        np.testing.assert_allclose(
            seen, actor.kp_2d[frames], atol=1e-4 if name != "bedlam" else 1e-3
        )
        moved = np.ptp(extrinsics, axis=0).max()
        moving.append(moved > 0.01 if take.shot.hand_held else moved == 0)
    assert all(moving), "a camera moves where it is hand-held, and not at all where it stands"
    pairs = [
        np.abs(a - b).max()
        for (v, a), (w, b) in itertools.combinations(worlds, 2)
        if v == w and name == "bedlam"
    ]
    assert min(pairs, default=1) > 0.1, "a world for each person"


@pytest.mark.parametrize("name", sorted({name for name, _ in WITH_CAMERAS}))
def test_a_mirrored_pictures_camera_is_found_in_the_reader(name):
    stored = cache.ExtraColumn(
        name="extrinsics", about="world to camera", shape=(4, 4), mirror="function"
    )
    extrinsics = np.arange(32.0).reshape(2, 4, 4)
    np.testing.assert_array_equal(
        stored.mirrored(extrinsics, f"{name}/train"), cameras.mirrored(extrinsics)
    )
    declared = datasets.get(name).extra_columns(datasets.get(name).splits[0], body=True)
    unmirrored = {column.name for column in declared if column.mirror is None}
    assert unmirrored <= {*datasets.get(name).labels.unmirrored}


@pytest.mark.promise("problems of 3DPW")
@pytest.mark.parametrize(
    ("name", "split"), [("3dpw", "train"), ("3dpw", "validation"), ("emdb", "emdb1")]
)
def test_bodies_in_the_camera_are_where_they_were_in_the_world(name, split, embedded, smpl):
    takes = {take.shot.name: take for take in embedded.takes(name)}
    for track in datasets.get(name).tracks(embedded.raw(name), split, body=smpl):
        actor = takes[track.video].actors[int(track.name.rpartition("/")[2])]
        # the body that the labels are of
        own = procedural_body.procedural(track.gender if name == "emdb" else "neutral")
        pelvis = procedural_body.rest_joints(own, actor.betas)[0]
        root, trans = cameras.to_world(
            track.pose[:, :3], track.trans, track.extra["extrinsics"], pelvis
        )
        np.testing.assert_allclose(trans, actor.trans[track.frame_index], atol=1e-6)  # 1e-3 mm
        turns = (
            Rotation.from_rotvec(root).inv()
            * Rotation.from_rotvec(actor.pose[track.frame_index, :3])
        ).magnitude()
        assert turns.max() < 1e-5
