"""Pixels of the demo data: the rasteriser against closed forms, and labels against the pixels."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.demo import appearance, scene
from pipeline.demo.body import VERTEX_IDS, procedural, skin, spin49
from pipeline.demo.camera import Camera, look_at
from pipeline.demo.scene import calibration_crops
from pipeline.show.rasterising import rasterise

TOWARDS = [[2.0, 1.0], [2.0, 9.0], [12.0, 1.0]]  # counter-clockwise to a viewer whose y points down
BODY = procedural()
REST = BODY.v_template
WHITE = np.ones((len(BODY.faces), 3), np.float32)


def shot(name: str = "a", **options) -> scene.Shot:
    return replace(scene.Shot("test", "", name, 0, seed=0, n_frames=1, fps=30.0), **options)


def test_a_triangle_covers_exactly_the_samples_inside_it() -> None:
    y, x = np.mgrid[:12, :16]
    inside = (x >= 2) & (y >= 1) & (8 * (x - 2) + 10 * (y - 1) <= 80)
    np.testing.assert_array_equal(
        rasterise(np.array([TOWARDS]), np.ones((1, 3)), 16, 12).face >= 0, inside
    )


CAMERA = Camera(
    240,
    240,
    np.array([[300.0, 0, 118.3], [0, 300.0, 121.6], [0, 0, 1]]),
    look_at(np.array([[0.2, 0.1, 3.0]]), np.array([[0.0, -0.2, 0.0]]), np.zeros(1)),
)
RENDERER, BACKDROP = appearance.Renderer(BODY.faces), appearance.Backdrop(np.random.default_rng(0))


def test_a_camera_sees_up_as_up_and_its_target_in_the_middle() -> None:
    middle, above, right = CAMERA.project(np.array([[[0, -0.2, 0], [0, 0.3, 0], [0.5, -0.2, 0]]]))[
        0
    ]
    np.testing.assert_allclose(middle, [118.3, 121.6])
    assert above[1] < middle[1] - 30  # y points down
    assert right[0] > middle[0] + 30
    assert np.linalg.det(CAMERA.extrinsics[0, :3, :3]) == pytest.approx(1)


def test_a_silhouette_reaches_exactly_as_far_as_the_projected_vertices() -> None:
    y, x = np.nonzero(np.isfinite(RENDERER.view(CAMERA, 0, [(REST, WHITE)], BACKDROP)[1]))
    pixels = CAMERA.project(REST[None])[0]
    for found, vertices in ((x, pixels[:, 0]), (y, pixels[:, 1])):
        assert abs(found.min() - vertices.min()) < 1
        assert abs(found.max() - vertices.max()) < 1
    _, depth = RENDERER.view(CAMERA, 0, [(REST + np.array([50, 0, 0]), WHITE)], BACKDROP)
    assert np.isinf(depth).all()


@pytest.mark.parametrize("name", ["nose", "lbigtoe", "reye"])
def test_a_coloured_patch_of_skin_is_where_its_joint_is_labelled(name: str) -> None:
    patch = np.where((BODY.faces == VERTEX_IDS[name]).any(axis=1)[:, None], WHITE, np.float32(0))
    shifted = replace(
        CAMERA, intrinsics=CAMERA.intrinsics + np.array([[0, 0, 0.37], [0, 0, 0], [0, 0, 0]])
    )
    for seen_by in (CAMERA, shifted):  # by a fraction of a pixel
        black, white = (
            RENDERER.view(seen_by, 0, [(REST, c)], BACKDROP)[0].astype(float)
            for c in (0 * WHITE, patch)
        )
        ink = (white - black).sum(axis=-1)
        y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
        centroid = np.array([(x * ink).sum(), (y * ink).sum()]) / ink.sum()
        assert (
            np.linalg.norm(centroid - seen_by.project(REST[None, [VERTEX_IDS[name]]])[0, 0]) < 0.5
        )


def test_the_person_in_front_hides_joints_of_the_one_behind() -> None:
    take = scene.stage(shot())
    (front,), extrinsics = take.actors, take.view.extrinsics[0]
    eye = -extrinsics[:3, :3].T @ extrinsics[:3, 3]
    away = (front.spin49[0, 39] - eye) / np.linalg.norm(front.spin49[0, 39] - eye)
    moved = front.trans + 0.5 * away  # straight behind the first, as the camera sees it
    points = spin49(BODY, skin(BODY, front.betas, front.pose, moved))
    hidden = replace(front, trans=moved, spin49=points, kp_2d=take.view.project(points))
    seen = next(scene.film(replace(take, actors=(front, hidden)))).visible
    assert seen[0].sum() > 45
    assert seen[1].sum() < 25


def test_what_leaves_the_picture_is_not_visible() -> None:
    take = scene.stage(shot())
    low = replace(
        take.view, intrinsics=take.view.intrinsics + np.array([[0, 0, 0], [0, 0, 150], [0, 0, 0]])
    )
    cut = take.switch_camera(low)
    below = cut.actors[0].kp_2d[0, :, 1] > low.height - 0.5  # the legs leave at the bottom
    assert below.sum() > 5
    assert not next(scene.film(cut)).visible[0][below].any()


def test_everyone_is_in_the_picture_and_keeps_a_distance() -> None:
    take = scene.stage(shot("2", n_frames=10, width=300, height=260, n_people=3))
    paths = [actor.trans[:, [0, 2]] for actor in take.actors]
    for i, actor in enumerate(take.actors):
        assert take.view.sees(actor.kp_2d).all()
        assert np.ptp(actor.kp_2d[..., 1], axis=1).min() > 40  # px
        assert all(
            np.linalg.norm(paths[i] - other, axis=1).min() >= scene.ELBOW_ROOM_M
            for other in paths[:i]
        )


def test_calibration_crops_are_filled_by_people_and_the_first_of_many_are_the_first_of_few() -> (
    None
):
    few, more = calibration_crops(1), calibration_crops(9)
    assert (few.shape, few.dtype) == ((1, 224, 224, 3), np.uint8)
    np.testing.assert_array_equal(few, more[:1])
    assert np.abs(more[0].astype(int) - more[8]).mean() > 5
