"""Human3.6M as images and JSON files, by hand and of a demo scene."""

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.extras.demo.layouts import h36m as demo
from pipeline.people.skeletons import JOINTS
from tests.pipeline.datasets import by_hand
from tests.pipeline.datasets.by_hand import write_json

ORDER = (  # as 3DMPPE names them: Pelvis, R_Hip, ..., Torso, Neck, Nose, Head, L_Shoulder, ...
    "hip", "rhip", "rknee", "rankle", "lhip", "lknee", "lankle", "Spine (H36M)", "neck",
    "Head (H36M)", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip


FOLDER, NAME = "s_01_act_02_subact_01_ca_01", "S1/Directions 1.54138969"


EVERY = range(40)


def annotation(raw, kind, subject=1):
    return raw / f"annotations/Human36M_subject{subject}_{kind}.json"


def write_images(raw, frames=EVERY, folder=FOLDER, size=(1000, 1002)):
    for frame in frames:
        by_hand.touch(raw / "images" / folder, f"{folder}_{frame + 1:06d}.jpg")
    for frame in list(frames)[:1]:
        (raw / "images" / folder / f"{folder}_{frame + 1:06d}.jpg").write_bytes(by_hand.jpeg(*size))


def ring(is_place=False):
    """Four cameras 5 m about the origin, 1.5 m above the ground, which look at a point 1 m above
    it; z is up.
    """
    cameras = {}
    for number, angle in enumerate((70, -70, 110, -110), start=1):
        place = np.array([5 * np.cos(np.radians(angle)), 5 * np.sin(np.radians(angle)), 1.5])
        ahead = ([0, 0, 1] - place) / np.linalg.norm([0, 0, 1] - place)
        right = np.cross(ahead, [0, 0, 1]) / np.linalg.norm(np.cross(ahead, [0, 0, 1]))
        turn = np.array([right, np.cross(ahead, right), ahead])
        t = 1000 * (place if is_place else -turn @ place)
        cameras[str(number)] = {
            "R": turn.tolist(),
            "t": t.tolist(),
            "f": [1145.0, 1144.0],
            "c": [512.5, 515.5],
        }
    return cameras


def joints(n_frames=40, seed=0):
    """Frame -> 17 joints in mm: a person of 1.8 m at the origin."""
    rng = np.random.default_rng(seed)
    around = rng.uniform([-400, -400, 0], [400, 400, 1800], (n_frames, 17, 3))
    return {str(frame): pose.round(6).tolist() for frame, pose in enumerate(around)}


def write_subject(raw, subject=1, n_actions=1, **cameras):
    poses = {
        str(a): {str(s): joints(seed=2 * a + s) for s in (1, 2)} for a in range(2, 2 + n_actions)
    }
    write_json(annotation(raw, "joint_3d", subject), poses)
    write_json(annotation(raw, "camera", subject), cameras or ring())


def write_scene(take, raw, *, is_place, fits):
    """A demo take, whose world has y up, in this layout, whose world has z up."""
    subject = int(take.shot.name.partition("/")[0][1:])
    action = (14, 1) if subject == 1 else (7, 1)  # Walking 1, Posing 1
    camera = demo.CAMERAS.index(take.shot.name.rpartition(".")[2])
    cameras = demo._cameras()
    for numbers in cameras.values():
        world = numbers["R"] @ demo.Z_UP.T
        numbers["R"] = world.tolist()
        if is_place:
            numbers["t"] = (-world.T @ numbers["t"]).tolist()
    write_json(annotation(raw, "camera", subject), cameras)
    (actor,) = take.actors
    world = 1000 * actor.spin49[:, [JOINTS["spin49"].index(name) for name in ORDER]] @ demo.Z_UP.T
    nested = {
        str(action[0]): {
            str(action[1]): {str(frame): pose.tolist() for frame, pose in enumerate(world)}
        }
    }
    write_json(annotation(raw, "joint_3d", subject), nested)
    roots = Rotation.from_matrix(demo.Z_UP) * Rotation.from_rotvec(actor.pose[:, :3])
    poses = np.concatenate([roots.as_rotvec(), actor.pose[:, 3:]], axis=1)
    body = {"shape": actor.betas.tolist(), "trans": [0] * 3}
    stored = {str(t): {"pose": poses[t].tolist(), **body} for t in range(len(world))}
    write_json(annotation(raw, fits, subject), {str(action[0]): {str(action[1]): stored}})
    size = (take.view.width, take.view.height)
    folder = f"s_{subject:02d}_act_{action[0]:02d}_subact_{action[1]:02d}_ca_{camera + 1:02d}"
    write_images(raw, range(len(world)), folder, size)
