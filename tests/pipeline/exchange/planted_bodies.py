"""Two people before a camera, and the files that estimators of bodies would write of them."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pipeline.body import Body
from pipeline.cameras import project
from pipeline.exchange.bodies.projection import Keypoints
from pipeline.exchange.bodies.tools import FOCAL, pinhole

SIZE = (640, 480)
DIAGONAL = 800.0
N = 12
HEIGHT = 300.0  # px of the boxes
BODY = Body.stand_in()


def pose(person: int, n: int = N) -> np.ndarray:
    """(n, 72) of a person who stands before the camera and swings all joints a little."""
    rng = np.random.default_rng(person)
    swing = rng.normal(size=72) * 0.15
    poses = np.sin(np.arange(n) / 3)[:, None] * swing
    poses[:, :3] = [np.pi, 0, 0]  # y down
    return poses


def betas(person: int, n: int = N) -> np.ndarray:
    return np.tile(np.linspace(-0.5, 0.5, 10) * (person + 1), (n, 1))


def trans(person: int, n: int = N, away: float = 5.0) -> np.ndarray:
    """(n, 3) m: people who walk across the picture."""
    steps = np.arange(n) * 0.08
    side = 1 - 2 * person
    return np.column_stack([side * (0.9 - steps), np.full(n, 0.1), np.full(n, away)])


def keypoints(person: int, focal: float = DIAGONAL, away: float = 5.0) -> Keypoints:
    """What a perfect detector has of them."""
    joints = BODY.posed_joints(pose(person), betas(person))[0] + trans(person, away=away)[:, None]
    places = project(joints, pinhole(focal, SIZE))
    kp_2d = np.dstack([places, np.ones(places.shape[:2])])
    return Keypoints(np.arange(N), kp_2d, np.full(N, HEIGHT))


def wham(**changed: Any) -> dict[Any, Any]:
    """As demo.py --save_pkl leaves it. `trans_world` is the mid-hip's place."""
    content: dict[Any, Any] = defaultdict(dict)
    for person in range(2):
        content[np.int64(person + 3)] = {
            "pose": pose(person).astype(np.float32),
            "trans": trans(person).astype(np.float32),
            "pose_world": pose(person).astype(np.float32),
            "trans_world": trans(person).astype(np.float32) + 9,
            "betas": betas(person).astype(np.float32),
            "verts": np.zeros((N, 6890, 3), np.float32),
            "frame_ids": np.arange(N),
        } | changed
    return content


def vibe(margin: float = 1.1) -> dict[Any, Any]:
    """As demo.py leaves it: `pred_cam` is of a crop of `margin` times the box."""
    content: dict[Any, Any] = {}
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


def phalp(ghosts: int = 3) -> dict[str, Any]:
    """Pictures from 1, both people in each; the second one's last frames repeat the body."""
    content: dict[str, Any] = {}
    far = trans(0)[0, 2] * FOCAL / 256 * max(SIZE) / DIAGONAL
    for t in range(N):
        picture: dict[str, Any] = {"time": t, "tracked_ids": [0], "frame_path": f"{t + 1:06d}.jpg"}
        for key in ("tid", "tracked_time", "smpl", "camera", "bbox", "size"):
            picture[key] = []
        for person in range(2):
            turns = Rotation.from_rotvec(pose(person)[t].reshape(24, 3)).as_matrix()
            is_ghost = person == 1 and t >= N - ghosts
            picture["tid"].append(person + 7)
            picture["tracked_time"].append(t - N + ghosts + 1 if is_ghost else 0)
            body = {"global_orient": turns[:1], "body_pose": turns[1:], "betas": betas(person)[0]}
            picture["smpl"].append({key: array.astype(np.float32) for key, array in body.items()})
            picture["camera"].append(trans(person, away=far)[t])
            picture["bbox"].append(np.array([100.0, 50.0, 120.0, HEIGHT]))
            picture["size"].append([SIZE[1], SIZE[0]])
        content[f"outputs/_DEMO/walk/img/{t + 1:06d}.jpg"] = picture
    return content


def gvhmr() -> dict[str, Any]:
    body = {
        "global_orient": torch.tensor(pose(0)[:, :3]).float(),
        "body_pose": torch.tensor(pose(0)[:, 3:66]).float(),
        "betas": torch.tensor(betas(0)).float(),
        "transl": torch.tensor(trans(0)).float(),
    }
    cameras = torch.tensor(pinhole(DIAGONAL, SIZE)).float().repeat(N, 1, 1)
    return {"smpl_params_global": body, "smpl_params_incam": body, "K_fullimg": cameras}


def write(folder: Path, tool: str, content: object | None = None) -> Path:
    """The tool's file, in its container and under its name, of the clip `walk`."""
    clip = folder / "walk"
    clip.mkdir(exist_ok=True, parents=True)
    if tool == "gvhmr":
        file = clip / "hmr4d_results.pt"
        torch.save(content or gvhmr(), file)
    elif tool == "phalp":
        file = folder / "demo_walk.pkl"
        joblib.dump(content or phalp(), file, compress=3)
    else:
        file = clip / f"{tool}_output.pkl"
        joblib.dump(content or {"wham": wham, "vibe": vibe}[tool](), file)
    return file
