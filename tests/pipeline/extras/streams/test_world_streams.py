"""The streams `cam_angvel` and `stationary`: against closed forms, through an extraction, and
mirrored.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

import cache
from pipeline.datasets.shared.smpl import EXTRINSICS
from pipeline.errors import ConfigError, MissingAssets
from pipeline.extras.demo.writing import write_body
from pipeline.extras.streams.world import POINTS
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import ROW_RATE, Machine
from pipeline.people import cameras
from pipeline.processes.settings import Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from pipeline.testing.streams import stream_problems
from tests.bodies import the_body
from tests.made_splits import track_of, write_split
from tests.oracles.features import SAME, differences

CPU, N = Machine(device="cpu"), 9
SPEEDS = np.array([0, 0.005, 0.01, 0.02, 0.5])  # m a frame


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    folder = tmp_path_factory.mktemp("body")
    write_body(folder)
    return next(folder.glob("SMPL_NEUTRAL.*"))


def stationary(body, **options):
    return streams.get("stationary", body=body, **options)


@pytest.fixture(scope="module")
def contacts(body):
    """Computes `stationary`."""
    return stationary(body).load(CPU, None)


def turning(degrees, n=N):
    """A camera that turns about its y axis and moves. (n, 4, 4)."""
    matrices = np.tile(np.eye(4), (n, 1, 1))
    matrices[:, :3, :3] = Rotation.from_rotvec(
        np.radians(degrees) * np.arange(n)[:, None] * [0, 1, 0]
    ).as_matrix()
    matrices[:, :3, 3] = np.random.default_rng(0).normal(size=(n, 3))
    return matrices


def windows(columns, before, after, rate=30.0):
    """As the engine hands them over: one run of all rows."""
    n = len(next(iter(columns.values())))
    around = np.arange(n)[:, None] + np.arange(-before, after + 1)
    in_run = (around >= 0) & (around < n)
    made = {name: values[np.clip(around, 0, n - 1)] for name, values in columns.items()}
    made[ROW_RATE] = np.full(around.shape, rate)
    for values in made.values():
        values[~in_run] = np.nan if values.dtype.kind == "f" else 255
    return {**made, "in_run": in_run}


def seen(extrinsics, way, pose=None):
    """A body that is moved along `way` (n, 3) m in the world, as the labels of that camera."""
    n = len(way)
    pose = np.zeros((n, 72)) if pose is None else pose
    pelvis = the_body().joints(**REST, order="smpl")[:, 0].double().numpy()
    root, trans = cameras.to_camera(pose[:, :3], way, extrinsics, pelvis)
    labels = {
        "pose": np.concatenate([root, pose[:, 3:]], axis=1),
        "betas": np.zeros((n, 10)),
        "trans": trans,
    }
    labels["extrinsics"] = extrinsics
    return {name: values.astype(np.float32) for name, values in labels.items()} | {
        "has_smpl": np.ones(n, np.uint8)
    }


REST = {"betas": torch.zeros(1, 10), "rotmat": torch.eye(3).expand(1, 24, 3, 3)}


def soft(v):
    return np.asarray(1 / (1 + np.exp(5 / 0.01 * (v - 0.01))))


@pytest.mark.parametrize("convention", cameras.CONVENTIONS)
def test_turns_of_any_camera_are_the_formulas_and_a_row_alone_is_not_known(convention):
    stream, moving = streams.get("cam_angvel", convention=convention), turning(0)
    rotvec = np.random.default_rng(1).normal(0, 0.2, (N, 3))
    moving[:, :3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    values, known = stream.load(CPU, None)(windows({"extrinsics": moving}, 1, 1))
    assert_allclose(values, cameras.angular_velocity(moving, convention), atol=1e-6)
    # WHAM's is of the row before
    assert known.tolist() == [convention == "gvhmr", *[True] * (N - 1)]
    labels = windows({"extrinsics": np.concatenate([moving[:1], np.full((1, 4, 4), np.nan)])}, 1, 1)
    alone = {name: part[:1] for name, part in windows({"extrinsics": moving[:1]}, 1, 1).items()}
    at_rest = [0] * 6 if convention == "wham" else [1, 0, 0, 0, 1, 0]
    for not_known in (labels, alone):
        values, known = stream.load(CPU, None)(not_known)
        assert not known.any()
        assert_array_equal(values, np.tile(at_rest, (len(known), 1)))


@pytest.mark.parametrize("convention", cameras.CONVENTIONS)
def test_mirrored_numbers_are_those_of_the_mirrored_camera(convention):
    stream = streams.get("cam_angvel", convention=convention)
    rotvec = np.random.default_rng(2).normal(0, 0.4, (N, 3))
    moving = turning(0)
    moving[:, :3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    of = stream.load(CPU, None)
    values, mirrored = (
        of(windows({"extrinsics": e}, 1, 1))[0] for e in (moving, cameras.mirrored(moving))
    )
    assert_allclose(stream.mirrored(values), mirrored, atol=1e-5)
    assert np.abs(values - mirrored).max() > 0.1


@pytest.mark.parametrize("fps", [25.0, 30.0, 60.0])
@pytest.mark.parametrize("speed", SPEEDS)
def test_a_body_that_glides_under_a_turning_camera_has_the_sigmoid_of_its_speed(
    contacts, fps, speed
):
    way = np.arange(N)[:, None] * np.array([speed, 0, 0]) * 30 / fps
    labels = windows(seen(turning(5), way), 2, 2, fps)
    values, known = contacts(labels)
    assert known.all()
    assert_allclose(values, np.full((N, 4), soft(np.array(speed))), atol=2e-3)


def test_a_world_of_labels_needs_no_camera_and_the_ends_are_copied(body):
    steps = np.array([0, 3, 8, 2, 14, 1, 9, 6, 4]) / 1000
    columns = seen(np.tile(np.eye(4), (N, 1, 1)), steps.cumsum()[:, None] * np.array([0, 0.6, 0.8]))
    del columns["extrinsics"]
    stream = stationary(body, world="labels")
    assert "extrinsics" not in stream.needs
    values, known = stream.load(CPU, None)(windows(columns, 2, 2))
    v = (steps[1:-1] + steps[2:]) / 2
    assert_allclose(values, np.tile(soft(np.r_[v[0], v, v[-1]])[:, None], 4), atol=1e-3)
    assert known.all()


def test_a_leg_that_swings_leaves_the_ground_alone_and_is_the_other_one_in_the_mirror(body):
    pose = np.zeros((N, 72))
    pose[:, 3] = -0.05 * np.arange(N)  # SMPL's joint 1, the left hip
    columns = seen(np.tile(np.eye(4), (N, 1, 1)), np.zeros((N, 3)), pose)
    stream = stationary(body)
    values, _ = stream.load(CPU, None)(windows(columns, 2, 2))
    assert (values[:, :2] < 0.01).all()
    assert_allclose(values[:, 2:], soft(np.array(0)), atol=1e-3)
    columns["pose"] = columns["pose"][:, [0, 1, 2, 6, 7, 8, 3, 4, 5, *range(9, 72)]]
    mirrored, _ = stream.load(CPU, None)(windows(columns, 2, 2))
    assert_allclose(stream.mirrored(values), mirrored, atol=1e-2)


def test_the_points_are_vertices_of_toes_and_heels():
    out = the_body()(**REST)
    assert_allclose(out.joints[0, list(POINTS)], out.verts[0, [3216, 3387, 6617, 6787]], atol=1e-6)


UNKNOWN = {
    "no body in the row after it": ("has_smpl", 4, 0, {3, 5, 4}),
    "no finite place": ("trans", 4, np.nan, {3, 5}),
    "no camera": ("extrinsics", 4, np.nan, {3, 5}),
    "no rigid camera": ("extrinsics", 4, 2, {3, 5}),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_is_not_known_is_flagged_and_minus_one(contacts, what):
    name, row, value, rows = UNKNOWN[what]
    columns = seen(turning(1), np.zeros((N, 3)))
    columns[name][row] = value
    values, known = contacts(windows(columns, 2, 2))
    assert set(np.flatnonzero(~known)) == rows
    assert (values[~known] == -1).all()
    assert (values[known] > 0.9).all()


@pytest.mark.parametrize(("n", "rate"), [(2, 30.0), (1, 30.0), (N, 6.0), (N, np.nan)])
def test_short_runs_and_low_or_unknown_rates_are_not_known(contacts, n, rate):
    labels = windows(seen(turning(1, n), np.zeros((n, 3))), 2, 2, rate)
    assert not contacts(labels)[1].any()


def test_its_identity_has_the_bodys_content_and_options_that_mean_nothing_are_refused(
    body, tmp_path
):
    stream = stationary(body)
    assert stream.stand_in
    assert str(body.parent) not in str(stream.identity())
    assert stream.identity() != stationary(body, world="labels").identity()
    with pytest.raises(MissingAssets):
        stationary(tmp_path / body.name).identity()
    for kind, options in (
        ("stationary", {}),
        ("stationary", {"body": body, "world": "moon"}),
        ("stationary", {"body": body.parent}),
        ("cam_angvel", {"convention": "tram"}),
    ):
        with pytest.raises(ConfigError, match="expected"):
            streams.get(kind, **options)


def test_both_keep_what_every_stream_promises(body):
    rng = np.random.default_rng(0)
    columns = seen(turning(2), np.cumsum(rng.normal(0, 0.01, (N, 3)), axis=0))
    assert stream_problems(stationary(body), columns, another_process=False) == []
    assert stream_problems(streams.get("cam_angvel"), columns, another_process=False) == []


def test_an_extraction_reads_a_column_of_the_readers_and_rows_alone_are_the_same(tmp_path, body):
    speed, root = 0.01, tmp_path / "cache"
    columns = seen(turning(2), np.arange(N)[:, None] * np.array([speed, 0, 0]))
    extrinsics = columns.pop("extrinsics")
    columns["frame_index"] = np.arange(N)
    videos = []
    for name, fps in (("a", 30.0), ("b", 60.0)):
        about = {"fps": fps, "crop_scale": 1.0, "extra": {"extrinsics": extrinsics}}
        track = track_of(f"{name}/0", columns, **about)
        videos.append((cache.VideoEntry(name=name), [track]))
    write_split(root, "toy/train", videos, extra=[EXTRINSICS], rows_per_shard=8, rows_per_chunk=8)
    made = {"turns": streams.get("cam_angvel"), "contacts": stationary(body)}
    for name, stream in made.items():
        plan = plan_extraction(root, "toy/train", StreamSpec(name, stream))
        extract_together([plan], Resources())
    split = cache.open(root)["toy/train"]
    for track in split.tracks:
        contacts, turns = (
            split.rows(f"features/{name}", track.start, track.stop)
            for name in ("contacts", "turns")
        )
        contact = soft(np.array(speed * track.fps / 30))
        assert_allclose(contacts, np.full((N, 4), contact), atol=2e-3)
        assert_allclose(turns, cameras.angular_velocity(extrinsics), atol=1e-6)
    assert all((differences(split, name) < SAME).all() for name in made)
