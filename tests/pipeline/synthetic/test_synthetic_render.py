"""Pixels of the embedded data: the rasteriser against closed forms, and labels against the pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthetic import calibration_crops
from pipeline.synthetic.body import skinning
from pipeline.synthetic.body.body import VERTEX_IDS, procedural
from pipeline.synthetic.scene import outfit, raster, scene
from pipeline.synthetic.scene.backdrop import Backdrop
from pipeline.synthetic.scene.camera import Camera, look_at
from pipeline.synthetic.scene.render import Renderer

TOWARDS = [[2.0, 1.0], [2.0, 9.0], [12.0, 1.0]]  # counter-clockwise to a viewer whose y points down


def shot(name: str = "a", **options) -> scene.Shot:
    values = {"dataset": "test", "split": "", "number": 0, "seed": 0, "n_frames": 6, "fps": 30.0} | options
    return scene.Shot(name=name, **values)


def triangles(*corners, depth=1.0):
    return np.array(corners, float), np.full((len(corners), 3), 1 / depth)


def test_a_triangle_covers_exactly_the_samples_inside_it() -> None:
    seen = raster.rasterise(*triangles(TOWARDS), 16, 12)
    y, x = np.mgrid[:12, :16]
    inside = (x >= 2) & (y >= 1) & (8 * (x - 2) + 10 * (y - 1) <= 80)
    np.testing.assert_array_equal(seen.face >= 0, inside)


def test_a_triangle_turned_away_is_not_drawn() -> None:
    assert (raster.rasterise(*triangles(TOWARDS[::-1]), 16, 12).face == -1).all()


def test_a_triangle_that_reaches_behind_the_camera_is_not_drawn() -> None:
    corners, inverse = triangles(TOWARDS)
    inverse[0, 1] = -1.0
    assert (raster.rasterise(corners, inverse, 16, 12).face == -1).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_triangle_hides_the_other_whatever_the_order(order) -> None:
    corners, _ = triangles(TOWARDS, TOWARDS)
    inverse = np.array([[1 / 2.0] * 3, [1 / 3.0] * 3])[list(order)]
    seen = raster.rasterise(corners, inverse, 16, 12)
    assert set(np.unique(seen.face)) == {-1, order.index(0)}
    assert seen.inverse_depth.max() == pytest.approx(0.5)


def test_triangles_that_pierce_each_other_meet_where_their_depths_are_equal() -> None:
    corners, _ = triangles(TOWARDS, TOWARDS)
    inverse = np.array([[1.0, 1.0, 1.0], [0.5, 0.5, 1.5]])  # the second comes nearer to the right: equal half way
    seen = raster.rasterise(corners, inverse, 16, 12)
    assert (seen.face[1, 2:7] == 0).all()
    assert (seen.face[1, 8:13] == 1).all()


@given(st.integers(0, 10**6))
def test_weights_of_a_sample_give_its_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-5, 25, (12, 3, 2))
    seen = raster.rasterise(corners, rng.uniform(0.2, 1, (12, 3)), 20, 20)
    y, x = np.nonzero(seen.face >= 0)
    weights, faces = seen.barycentric[y, x], seen.face[y, x]
    place = np.einsum("nc,ncd->nd", weights, corners[faces])
    np.testing.assert_allclose(place, np.stack([x, y], axis=1), atol=2e-2)
    assert (weights >= 0).all()


def test_two_triangles_leave_no_gap_along_their_common_edge() -> None:
    a, b, c, d = [3.3, 2.1], [4.7, 17.2], [16.1, 3.9], [18.8, 15.5]
    seen = raster.rasterise(*triangles([a, b, c], [c, b, d]), 22, 20)
    for row in seen.face >= 0:
        covered = np.flatnonzero(row)
        assert covered.size == 0 or np.ptp(covered) + 1 == covered.size


def camera_at(distance: float = 3.0, height: int = 240) -> Camera:
    extrinsics = look_at(np.array([[0.2, 0.1, distance]]), np.array([[0.0, -0.2, 0.0]]), np.zeros(1))
    intrinsics = np.array([[300.0, 0, 118.3], [0, 300.0, 121.6], [0, 0, 1]])
    return Camera(240, height, intrinsics, extrinsics)


def test_a_camera_sees_up_as_up_and_its_target_in_the_middle() -> None:
    camera = camera_at()
    middle, above, right = camera.project(np.array([[[0, -0.2, 0], [0, 0.3, 0], [0.5, -0.2, 0]]]))[0]
    np.testing.assert_allclose(middle, [118.3, 121.6])
    assert above[1] < middle[1] - 30  # y points down
    assert right[0] > middle[0] + 30
    assert np.linalg.det(camera.extrinsics[0, :3, :3]) == pytest.approx(1)


def rest_pose() -> np.ndarray:
    return skinning.skin(procedural(), np.zeros(10), np.zeros((1, 72)), np.zeros((1, 3))).verts[0]


def test_a_silhouette_reaches_exactly_as_far_as_the_projected_vertices() -> None:
    body, camera, verts = procedural(), camera_at(), rest_pose()
    view = Renderer(body.faces).view(
        camera, 0, [(verts, np.ones((13776, 3), np.float32))], Backdrop(np.random.default_rng(0))
    )
    pixels = camera.project(verts[None])[0]
    y, x = np.nonzero(np.isfinite(view.depth))
    assert abs(x.min() - pixels[:, 0].min()) < 1
    assert abs(x.max() - pixels[:, 0].max()) < 1
    assert abs(y.min() - pixels[:, 1].min()) < 1
    assert abs(y.max() - pixels[:, 1].max()) < 1


@pytest.mark.parametrize("name", ["nose", "lbigtoe", "rbigtoe", "leye", "reye"])
def test_a_coloured_patch_of_skin_lies_where_its_joint_is_labelled(name: str) -> None:
    body, camera, verts = procedural(), camera_at(), rest_pose()
    patch = (body.faces == VERTEX_IDS[name]).any(axis=1)
    colours = np.zeros((2, len(body.faces), 3), np.float32)
    colours[1, patch] = 1
    renderer, backdrop = Renderer(body.faces), Backdrop(np.random.default_rng(0))
    black, white = (renderer.view(camera, 0, [(verts, c)], backdrop).image.astype(float) for c in colours)
    ink = (white - black).sum(axis=-1)
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    centroid = np.array([(x * ink).sum(), (y * ink).sum()]) / ink.sum()
    labelled = camera.project(verts[None, [VERTEX_IDS[name]]])[0, 0]
    assert np.linalg.norm(centroid - labelled) < 0.5


def test_moving_the_camera_by_a_fraction_of_a_pixel_moves_the_picture_by_it() -> None:
    body, verts, centroids = procedural(), rest_pose(), []
    for shift in (0.0, 0.37):
        camera = camera_at()
        camera.intrinsics[0, 2] += shift
        colours = np.ones((len(body.faces), 3), np.float32)
        flat = Backdrop(np.random.default_rng(0))
        flat.paint = lambda camera, frame: np.zeros((camera.height, camera.width, 3), np.float32)
        ink = Renderer(body.faces).view(camera, 0, [(verts, colours)], flat).image.astype(float).sum(axis=-1)
        centroids.append((np.arange(ink.shape[1]) * ink).sum() / ink.sum())
    assert centroids[1] - centroids[0] == pytest.approx(0.37, abs=0.05)


def test_a_body_outside_the_picture_leaves_the_backdrop_alone() -> None:
    body, camera = procedural(), camera_at()
    backdrop = Backdrop(np.random.default_rng(0))
    view = Renderer(body.faces).view(
        camera, 0, [(rest_pose() + np.array([50, 0, 0]), outfit.dress(body, np.random.default_rng(0)))], backdrop
    )
    assert np.isinf(view.depth).all()


def test_the_person_in_front_hides_joints_of_the_one_behind() -> None:
    body = procedural()
    take = scene.stage(body, shot(n_frames=1))
    front = take.actors[0]
    world_to_camera = take.camera.extrinsics[0]
    eye = -world_to_camera[:3, :3].T @ world_to_camera[:3, 3]
    away = (front.spin49[0, 39] - eye) / np.linalg.norm(front.spin49[0, 39] - eye)
    moved = front.trans + 0.5 * away  # straight behind the first, as the camera sees it
    skinned = skinning.skin(body, front.betas, front.pose, moved)
    points = skinning.spin49(body, skinned)
    hidden = scene.Actor(
        front.motion, "male", front.pose, front.betas, moved, skinned.joints, points, take.camera.project(points)
    )
    seen = next(scene.film(body, scene.Take(take.shot, take.camera, (front, hidden)))).visible
    assert seen[0].sum() > 45
    assert seen[1].sum() < 25


def test_what_leaves_the_picture_is_not_visible() -> None:
    take = scene.stage(procedural(), shot(n_frames=1))
    intrinsics = take.camera.intrinsics.copy()
    intrinsics[1, 2] += 150  # the legs leave at the bottom
    low = Camera(take.camera.width, take.camera.height, intrinsics, take.camera.extrinsics)
    actor = take.actors[0]
    values = {f: getattr(actor, f) for f in ("motion", "gender", "pose", "betas", "trans", "joints", "spin49")}
    cut = scene.Actor(**values, kp_2d=low.project(actor.spin49))
    seen = next(scene.film(procedural(), scene.Take(take.shot, low, (cut,)))).visible[0]
    below = cut.kp_2d[0, :, 1] > low.height - 0.5
    assert below.sum() > 5
    assert not seen[below].any()


def test_everyone_wears_the_same_hues_and_no_two_the_same_shades() -> None:
    body = procedural()
    part = body.weights[body.faces].sum(axis=1).argmax(axis=1)
    first, second = (outfit.dress(body, np.random.default_rng(seed)) for seed in (1, 2))
    for colours in (first, second):
        left, right = (colours[part == joint].mean(axis=0) for joint in (18, 19))
        assert left[2] > left[0] + 0.2  # blue
        assert right[0] > right[2] + 0.2  # orange
    assert not np.array_equal(first, second)


def test_calibration_crops_are_filled_by_people_and_always_the_same() -> None:
    few, more = calibration_crops(3), calibration_crops(10)
    assert few.shape == (3, 224, 224, 3)
    assert few.dtype == np.uint8
    np.testing.assert_array_equal(few, more[:3])
    assert np.abs(more[0].astype(int) - more[9]).mean() > 5


def test_the_backdrop_moves_with_the_camera_and_stands_still_without() -> None:
    backdrop = Backdrop(np.random.default_rng(3))
    still = look_at(np.array([[0, 1.4, 4.0]] * 2), np.array([[0, 0.9, 0]] * 2), np.zeros(2))
    moved = look_at(np.array([[0, 1.4, 4.0], [0.5, 1.4, 4.0]]), np.array([[0, 0.9, 0]] * 2), np.zeros(2))
    k = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    assert backdrop.paint(Camera(320, 240, k, still), 0) is backdrop.paint(Camera(320, 240, k, still), 1)
    a, b = (backdrop.paint(Camera(320, 240, k, moved), frame) for frame in (0, 1))
    assert np.abs(a - b).mean() > 0.005
    assert 0 < a.std() < 0.15  # low in contrast
