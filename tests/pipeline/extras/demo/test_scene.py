"""Pixels of the demo data: the rasteriser against closed forms, and labels against the pixels."""

from dataclasses import replace

import numpy as np

from pipeline.extras.demo import appearance, scene
from pipeline.extras.demo.body import procedural, skin, spin49
from pipeline.extras.demo.camera import Camera
from pipeline.show.rasterising import rasterise

TOWARDS = [[2.0, 1.0], [2.0, 9.0], [12.0, 1.0]]  # counter-clockwise to a viewer whose y points down
BODY = procedural()
REST = BODY.v_template
WHITE = np.ones((len(BODY.faces), 3), np.float32)


def test_a_triangle_covers_exactly_the_samples_inside_it():
    y, x = np.mgrid[:12, :16]
    inside = (x >= 2) & (y >= 1) & (8 * (x - 2) + 10 * (y - 1) <= 80)
    np.testing.assert_array_equal(
        rasterise(np.array([TOWARDS]), np.ones((1, 3)), 16, 12).face >= 0, inside
    )


CAMERA = Camera.aim(
    (240, 240),
    np.array([[300.0, 0, 118.3], [0, 300.0, 121.6], [0, 0, 1]]),
    np.array([[0.2, 0.1, 3.0]]),
    np.array([[0.0, -0.2, 0.0]]),
    np.zeros(1),
)
RENDERER = appearance.Renderer(CAMERA, BODY.faces)


def test_a_silhouette_reaches_exactly_as_far_as_the_projected_vertices():
    y, x = np.nonzero(np.isfinite(RENDERER.view(0, [(REST, WHITE)])[1]))
    pixels = CAMERA.project(REST[None])[0]
    for found, vertices in ((x, pixels[:, 0]), (y, pixels[:, 1])):
        assert abs(found.min() - vertices.min()) < 1
        assert abs(found.max() - vertices.max()) < 1
    _, depth = RENDERER.view(0, [(REST + np.array([50, 0, 0]), WHITE)])
    assert np.isinf(depth).all()


def test_the_person_in_front_hides_joints_of_the_one_behind():
    take = scene.stage(scene.Shot("test", "", "a", 0, seed=0, n_frames=1, fps=30.0))
    (front,), extrinsics = take.actors, take.view.extrinsics[0]
    eye = -extrinsics[:3, :3].T @ extrinsics[:3, 3]
    away = (front.spin49[0, 39] - eye) / np.linalg.norm(front.spin49[0, 39] - eye)
    moved = front.trans + 0.5 * away  # straight behind the first, as the camera sees it
    points = spin49(BODY, skin(BODY, front.betas, front.pose, moved))
    hidden = replace(front, trans=moved, spin49=points, kp_2d=take.view.project(points))
    seen = next(scene.film(replace(take, actors=(front, hidden)))).visible
    assert seen[0].sum() > 45
    assert seen[1].sum() < 25


def test_shirts_tell_people_apart_and_sleeves_their_sides():
    part_of = BODY.weights[BODY.faces].sum(axis=1).argmax(axis=1)  # the joint of each face
    is_front = REST[BODY.faces].mean(axis=1)[:, 2] > 0.03  # m, before the spine
    kits = [appearance.dress(BODY, np.random.default_rng(n), n) for n in range(4)]
    fronts = np.array([kit[is_front & np.isin(part_of, [3, 6, 9])].mean(axis=0) for kit in kits])
    apart = np.linalg.norm(fronts[:, None] - fronts, axis=-1)[~np.eye(4, dtype=bool)]
    assert apart.min() > 0.3
    for kit in kits:
        left, right = (kit[part_of == sleeve].mean(axis=0) for sleeve in (16, 17))
        assert left[2] - left[0] > 0.3  # blue
        assert right[0] - right[2] > 0.3  # orange


def test_a_still_camera_stands_a_hand_held_one_moves_and_both_see_everybody():
    for hand_held in (False, True):
        shot = scene.Shot(
            "test", "", "a", 0, 0, n_frames=40, fps=30.0, n_people=3, hand_held=hand_held
        )
        take = scene.stage(shot)
        assert (np.ptp(take.view.extrinsics, axis=0).max() > 0.05) == hand_held
        assert all(take.view.sees(actor.kp_2d).all() for actor in take.actors)
        feet = np.array([actor.trans for actor in take.actors])[:, :, [0, 2]]
        apart = np.linalg.norm(feet[:, None] - feet, axis=-1)[~np.eye(3, dtype=bool)]
        assert apart.min() >= scene.ROOM_M[0]
