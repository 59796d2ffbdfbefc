"""Two people before a camera, and the files that estimators of bodies would write of them.

They are SMPL's stand-in. Its SMPL-X is the same body, higher in its own frame.
"""

import functools
import tempfile
from collections import defaultdict
from pathlib import Path

import joblib
import numpy as np
import torch
from scipy.spatial.transform import Rotation

import cache
from pipeline.extras.demo.body import procedural
from pipeline.extras.exchange.bodies.estimate import BodyModels, pinhole
from pipeline.extras.exchange.bodies.importing import import_bodies
from pipeline.extras.exchange.bodies.matching import SMPLX_PELVIS, Keypoints
from pipeline.extras.exchange.bodies.tools import FOCAL
from pipeline.people.body import Body
from pipeline.people.cameras import project
from pipeline.people.skeletons import JOINTS, PELVIS
from tests.made_splits import track_of, write_split

SIZE = (640, 480)
DIAGONAL = 800.0
N = 12
HEIGHT = 300.0  # px of the boxes
smpl = functools.cache(Body.stand_in)
HANDS = np.linspace(-0.3, 0.3, 90)  # mean pose, rad


def pose(person, n=N):
    """(n, 72) of a person who stands before the camera and swings all joints a little."""
    rng = np.random.default_rng(person)
    swing = rng.normal(size=72) * 0.15
    poses = np.sin(np.arange(n) / 3)[:, None] * swing
    poses[:, :3] = [np.pi, 0, 0]  # y down
    return poses


def betas(person, n=N):
    return np.tile(np.linspace(-0.5, 0.5, 10) * (person + 1), (n, 1))


def trans(person, n=N, away=5.0):
    """(n, 3) m: people who walk across the picture."""
    steps = np.arange(n) * 0.08
    side = 1 - 2 * person
    return np.column_stack([side * (0.9 - steps), np.full(n, 0.1), np.full(n, away)])


@functools.cache
def joints(person, n=N):
    """(n, 49, 3) m, without translation."""
    return smpl().posed_joints(pose(person, n), betas(person, n))[0]


def keypoints(person, n=N):
    """What a perfect detector has of them."""
    places = project(joints(person, n) + trans(person, n)[:, None], pinhole(DIAGONAL, SIZE))
    kp_2d = np.dstack([places, np.ones(places.shape[:2])])
    return Keypoints(np.arange(n), kp_2d, np.full(n, HEIGHT))


def extrinsics():
    """(N, 4, 4) from a world with y up to the camera, which turns and goes along."""
    over = np.diag([1.0, -1, -1])
    turns = Rotation.from_euler("y", np.arange(N)[:, None] * 0.05).as_matrix()
    matrices = np.tile(np.eye(4), (N, 1, 1))
    matrices[:, :3, :3] = over @ turns
    matrices[:, :3, 3] = np.column_stack([np.arange(N) * 0.1, np.full(N, 1.5), np.full(N, 4)])
    return matrices


def in_world(points):
    """(N, 3) m in the camera -> in the world."""
    to_camera = extrinsics()
    away = points - to_camera[:, :3, 3]
    return np.einsum("nji,nj->ni", to_camera[:, :3, :3], away)


def world_root(person):
    """(N, 3) rad."""
    to_camera = Rotation.from_matrix(extrinsics()[:, :3, :3])
    return (to_camera.inv() * Rotation.from_rotvec(pose(person)[:, :3])).as_rotvec()


def hips(person):
    """(N, 3) m, their middle in the camera."""
    sides = [JOINTS["spin49"].index(name) for name in ("lhip", "rhip")]
    return joints(person)[:, sides].mean(axis=1) + trans(person)


def wham(**changed):
    """As demo.py --save_pkl leaves it. `trans_world` is the mid-hip's place."""
    content = defaultdict(dict)
    for person in range(2):
        content[np.int64(person + 3)] = {
            "pose": pose(person).astype(np.float32),
            "trans": trans(person).astype(np.float32),
            "pose_world": np.hstack([world_root(person), pose(person)[:, 3:]]).astype(np.float32),
            "trans_world": in_world(hips(person)).astype(np.float32),
            "betas": betas(person).astype(np.float32),
            "verts": np.zeros((N, 6890, 3), np.float32),
            "frame_ids": np.arange(N),
        } | changed
    return content


def vibe(margin=1.1):
    """As demo.py leaves it: `pred_cam` is of a crop of `margin` times the box."""
    content = {}
    for person in range(2):
        places = trans(person)
        center = project(places[:, None], pinhole(DIAGONAL, SIZE))[:, 0]
        side = np.full(N, HEIGHT)
        scale = 2 * DIAGONAL / (places[:, 2] * side * margin)
        aside = (center - np.array(SIZE) / 2) * (places[:, 2:] / DIAGONAL)
        content[person + 1] = {
            "pred_cam": np.column_stack([scale, places[:, :2] - aside]),
            "orig_cam": np.zeros((N, 4)),
            "verts": np.zeros((N, 6890, 3), np.float32),
            "pose": pose(person),
            "betas": betas(person),
            "joints3d": np.zeros((N, 49, 3), np.float32),
            "joints2d": None,
            "bboxes": np.column_stack([center, side, side]),
            "frame_ids": np.arange(N),
        }
    return content


def phalp():
    """Pictures from 1, both people in each; the second one's last 3 frames repeat the body."""
    content = {}
    far = trans(0)[0, 2] * FOCAL / 256 * max(SIZE) / DIAGONAL
    for t in range(N):
        picture = {"time": t, "tracked_ids": [0], "frame_path": f"{t + 1:06d}.jpg"}
        for key in ("tid", "tracked_time", "smpl", "camera", "bbox", "size"):
            picture[key] = []
        for person in range(2):
            turns = Rotation.from_rotvec(pose(person)[t].reshape(24, 3)).as_matrix()
            is_ghost = person == 1 and t >= N - 3
            picture["tid"].append(person + 7)
            picture["tracked_time"].append(t - N + 4 if is_ghost else 0)
            body = {"global_orient": turns[:1], "body_pose": turns[1:], "betas": betas(person)[0]}
            picture["smpl"].append({key: array.astype(np.float32) for key, array in body.items()})
            picture["camera"].append(trans(person, away=far)[t])
            picture["bbox"].append(np.array([100.0, 50.0, 120.0, HEIGHT]))
            picture["size"].append([SIZE[1], SIZE[0]])
        content[f"outputs/_DEMO/walk/img/{t + 1:06d}.jpg"] = picture
    return content


def smplx_file(folder):
    """SMPLX_NEUTRAL.npz: SMPL's surface and joints to the wrists."""
    arrays = procedural("neutral")
    rows = np.minimum(np.arange(55), 21)
    file = folder / "SMPLX_NEUTRAL.npz"
    np.savez(
        file,
        v_template=arrays.v_template + SMPLX_PELVIS,
        shapedirs=arrays.shapedirs,
        J_regressor=arrays.J_regressor[rows],
        hands_meanl=HANDS[:45],
        hands_meanr=HANDS[45:],
    )
    return file


@functools.cache
def models():
    with tempfile.TemporaryDirectory() as folder:
        return BodyModels.load(smpl(), smplx_file(Path(folder)))


def gvhmr(**changed):
    body = {
        "global_orient": pose(0)[:, :3],
        "body_pose": pose(0)[:, 3:66],
        "betas": betas(0),
        "transl": trans(0) - SMPLX_PELVIS,
    } | changed
    incam = {key: torch.tensor(values).float() for key, values in body.items()}
    pelvis = joints(0)[:, PELVIS]
    rest = pelvis + SMPLX_PELVIS
    world = incam | {
        "global_orient": torch.tensor(world_root(0)).float(),
        "transl": torch.tensor(in_world(pelvis + trans(0)) - rest).float(),
    }
    cameras = torch.tensor(pinhole(DIAGONAL, SIZE)).float().repeat(N, 1, 1)
    return {"smpl_params_global": world, "smpl_params_incam": incam, "K_fullimg": cameras}


def tram(person, **changed):
    """As estimate_humans.py leaves it: tensors in a pickled dict."""
    turns = Rotation.from_rotvec(pose(person).reshape(-1, 3)).as_matrix()
    content = {
        "pred_cam": torch.zeros(N, 3),
        "pred_pose": torch.zeros(N, 144),
        "pred_shape": torch.tensor(betas(person)).float(),
        "pred_rotmat": torch.tensor(turns.reshape(N, 24, 3, 3)).float(),
        "pred_trans": torch.tensor(trans(person)[:, None]).float(),
        "frame": torch.arange(N),
    }
    return content | changed


def tram_camera(focal=DIAGONAL):
    to_world = np.linalg.inv(extrinsics())
    return {
        "img_focal": focal,
        "img_center": np.array(SIZE) / 2,
        "world_cam_R": torch.tensor(to_world[:, :3, :3]).float(),
        "world_cam_T": torch.tensor(to_world[:, :3, 3]).float(),
    }


def prompthmr(every=1):
    """As pipeline.py leaves it: pictures of half the size; every k-th of the clip's."""
    frames = np.arange(every - 1, N, every)
    people = {}
    for person in range(2):
        turns = np.tile(np.eye(3), (len(frames), 55, 1, 1))
        turned = Rotation.from_rotvec(pose(person)[frames, :66].reshape(-1, 3)).as_matrix()
        turns[:, :22] = turned.reshape(len(frames), 22, 3, 3)
        body = {
            "rotmat": turns.astype(np.float32),
            "pose": np.zeros((len(frames), 75), np.float32),
            "shape": betas(person)[frames].astype(np.float32),
            "trans": (trans(person)[frames] - SMPLX_PELVIS).astype(np.float32),
        }
        people[person + 1] = {
            "smplx_cam": {key: torch.tensor(values) for key, values in body.items()},
            "frames": np.arange(len(frames)),
            "detected": np.arange(len(frames)) != 3,
            "bboxes": np.zeros((len(frames), 4)),
        }
    camera = {"img_focal": DIAGONAL / 2, "img_center": np.array(SIZE) / 4}
    to_camera = extrinsics()[frames]
    world = {"Rcw": to_camera[:, :3, :3], "Tcw": to_camera[:, :3, 3], "Twc": np.zeros((N, 3))}
    return {"people": people, "camera": camera, "camera_world": world}


def write(folder, tool, content=None, clip="walk"):
    """The tool's file, in its container and under its name, of the clip."""
    below = folder / clip
    below.mkdir(exist_ok=True, parents=True)
    if tool == "gvhmr":
        file = below / "hmr4d_results.pt"
        torch.save(content or gvhmr(), file)
    elif tool == "phalp":
        file = folder / f"demo_{clip}.pkl"
        joblib.dump(content or phalp(), file, compress=3)
    elif tool == "prompthmr":
        file = below / "results.pkl"
        joblib.dump(content or prompthmr(), file)
    else:
        file = below / f"{tool}_output.pkl"
        joblib.dump(content or {"wham": wham, "vibe": vibe}[tool](), file)
    return file


def write_tram(folder, people=None, camera=None):
    """TRAM's files of the clip `walk`, one for a person."""
    hps = folder / "walk" / "hps"
    hps.mkdir(exist_ok=True, parents=True)
    np.save(hps.parent / "camera.npy", camera or tram_camera())
    files = []
    for k, person in enumerate(people or [tram(0), tram(1)]):
        files.append(hps / f"hps_track_{k}.npy")
        np.save(files[-1], person)
    return files


def files_of(folder, tool):
    """A tool's files of the clip `walk`."""
    return write_tram(folder) if tool == "tram" else [write(folder, tool)]


NAME = "videos/train"


def clip_rows(name, person, n=N, confidence=1):
    seen = keypoints(person, n)
    box = np.column_stack([seen.kp_2d[:, 39, :2], seen.height, seen.height])
    columns = {
        "frame_index": seen.frame_index,
        "bbox": box.astype(np.float32),
        "kp_2d": (seen.kp_2d * [1, 1, confidence]).astype(np.float32),
    }
    return track_of(name, columns)


def write_clips(root, size=SIZE, *, confidence=1, name="walk.mp4", n=N, people=(0, 1)):
    """People in walk.mp4, and one in other.mp4."""
    videos = []
    for video, persons in ((name, people), ("other.mp4", (0,))):
        entry = cache.VideoEntry(name=video, width=size[0], height=size[1], fingerprint="ab")
        rows = [
            clip_rows(f"{video}/{k}", person, n, confidence) for k, person in enumerate(persons)
        ]
        videos.append((entry, rows))
    write_split(root, NAME, videos)


def run(tmp_path, *files):
    return import_bodies(files, tmp_path / "clips", tmp_path / "c", NAME, models())
