"""Does a temporal model learn what its paper claims: is it better than one that sees single frames?

    .venv/bin/python benchmarks/learning.py --out benchmarks/learning.md

The features are planted: a fixed random network of the true pose and shape, with independent noise
in each frame, so that only neighbouring frames help. Motions are those of the demo data, not
rendered; validation and test have other motions than training. Networks are small; losses and
trainers are the usual ones. DEMO DATA, no result about any model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.body import Body
from pipeline.demo.motion import perform, random_betas
from vibe_model import TrainConfig, runs, training
from vibe_model.models import variant_of

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table, write_split, write_stream

Floats = NDArray[np.floating[Any]]
TRAIN, VALIDATION, TEST, MOCAP = "planted/train", "planted/val", "planted/test", "planted/mocap"
MOTIONS: Final = {TRAIN: 1000, VALIDATION: 16, TEST: 32, MOCAP: 200}
NOISE: Final = 1.0  # of features, beside a signal of 1
FRAMES: Final = 64  # of each motion, 25 a second
FEATURE: Final = 128  # numbers
FACING: Final = np.pi / 4  # rad to either side of the camera
Y_DOWN: Final = Rotation.from_rotvec([np.pi, 0, 0])  # as in images
COMMON: Final[Mapping[str, Any]] = {
    "stream": "planted",
    "feature_size": FEATURE,
    "datasets_2d": (),
    "datasets_3d": (TRAIN,),
    "motion": (MOCAP,),
    "validation": (VALIDATION,),
    "evaluation": (TEST,),
    "seqlen": 16,
    "stride": 4,
    "batch_size": 16,
    "plateau_patience": 0,
    "plateau_factor": 0.3,
    "regressor_size": 128,
    "hold": "ram",
    "threads": 1,
}
VIBE: Final = {"n_layers": 1, "hidden_size": 128, "disc_size": 64, "lr_generator": 2e-3}
ERRORS: Final = {
    "pa_mpjpe": "PA-MPJPE",
    "mpjpe": "MPJPE",
    "accel_error": "acceleration error",
}
Results = dict[str, list[Mapping[str, Any]]]  # by model, the metrics of each seed's run


def main() -> None:
    """Train, print, write the report."""
    options = parser(__doc__, at="the cache and trained runs")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--steps", type=int, default=125, help="of an epoch")
    options.add_argument("--motions", type=int, default=MOTIONS[TRAIN], help="to train on")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        lines = planted(Path(folder), args)
    about = "DEMO DATA, the procedural body; no result about the models."
    report(about, "Is a temporal model better than one of single frames?", lines, args)


def planted(folder: Path, args: argparse.Namespace) -> list[str]:
    """Errors of each model on the test split, compared with single frames."""
    root = folder / "cache"
    plant(root, args.motions)
    facts: Any = {
        **COMMON,
        "cache": root,
        "runs": folder / "runs",
        "epochs": args.epochs,
        "iterations": args.steps,
        "checkpoint_every": args.steps,
    }
    vibe = TrainConfig.embedded(**facts, **VIBE)
    errors = train({"per frame": variant_of(vibe, "per-frame"), "VIBE": vibe}, args.seeds)
    errors["mean body"] = [errors["VIBE"][0]["baseline"]]
    rows = []
    for name, seeds in errors.items():
        cells = [mean_and_spread([metrics[error] for metrics in seeds]) for error in ERRORS]
        for error in ("pa_mpjpe", "accel_error"):
            mean = statistics.mean(metrics[error] for metrics in seeds)
            single = statistics.mean(metrics[error] for metrics in errors["per frame"])
            cells.append(f"{100 * (mean / single - 1):+.0f} %")
        rows.append((name, *cells))
    about = (
        f"At most {args.epochs} epochs of {args.steps} steps; {args.motions} motions to train on. "
        f"Means over {len(args.seeds)} seeds, ± their standard deviation, on {MOTIONS[TEST]} other "
        "motions; mm, accelerations mm a frame²."
    )
    header = ("", *ERRORS.values(), "PA-MPJPE beside one frame", "acceleration error")
    return [about, "", *table(header, rows)]


def train(models: Mapping[str, TrainConfig], seeds: Sequence[int]) -> Results:
    """The metrics of each model and seed on the test split."""
    results: Results = {}
    for seed in seeds:
        for name, config in models.items():
            folder = training.run(replace(config, seed=seed))
            metrics = json.loads((folder / runs.METRICS).read_text())[TEST]
            results.setdefault(name, []).append(metrics)
            print(name, seed, f"{metrics['pa_mpjpe']:.1f}", flush=True)
    return results


def plant(root: Path, n_to_train_on: int) -> None:
    """Write a cache of made-up motions and their features."""
    torch.set_num_threads(1)
    body, network = Body.stand_in(), np.random.default_rng(0)
    first = network.normal(size=(226, 512)) / np.sqrt(24)
    second = network.normal(size=(512, FEATURE)) / np.sqrt(512)
    mean, scale = np.zeros(FEATURE), np.ones(FEATURE)
    for number, (name, n_motions) in enumerate((MOTIONS | {TRAIN: n_to_train_on}).items()):
        rng = np.random.default_rng([1, number])
        motions = [random_motion(rng, body) for _ in range(n_motions)]
        columns = [column for column in motions[0][0] if column != "kp_3d_eval"]
        if name == MOCAP:
            columns = ["frame_index", "pose", "betas", "has_smpl"]
        elif name != TRAIN:
            columns = [column for column in motions[0][0] if column != "kp_3d"]
        write_split(root, name, columns, ([rows] for rows, _ in motions))
        if name == MOCAP:
            continue
        # (n, FRAMES, FEATURE)
        signal = np.maximum(np.stack([hidden for _, hidden in motions]) @ first, 0) @ second
        if name == TRAIN:
            mean, scale = signal.mean(axis=(0, 1)), signal.std(axis=(0, 1))
        features = (signal - mean) / scale + NOISE * rng.normal(size=signal.shape)
        write_stream(root, name, "planted", FEATURE, features.reshape(-1, FEATURE).__getitem__)


def random_motion(rng: np.random.Generator, body: Body) -> tuple[dict[str, NDArray[Any]], Floats]:
    """A motion's columns in camera axes, and its rotations and shape, (FRAMES, 226), from which
    features are made.
    """
    betas = random_betas(rng)
    # in a world with y up
    pose = perform(rng, betas, float(rng.uniform(-FACING, FACING)), FRAMES, 25.0).pose.copy()
    pose[:, :3] = (Y_DOWN * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    rotmat = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(FRAMES, 24, 3, 3)
    shape = np.tile(betas.astype(np.float32), (FRAMES, 1))
    posed: Any = {"betas": torch.from_numpy(shape), "rotmat": torch.from_numpy(rotmat).float()}
    with torch.no_grad():
        spin49 = body.joints(**posed, order="spin49").numpy()
        common14 = body.joints(**posed, order="common14").numpy()
    ones = np.ones((FRAMES, 49, 1), np.float32)
    rows: dict[str, NDArray[Any]] = {
        "frame_index": np.arange(FRAMES),
        "bbox": np.tile(np.array([250, 250, 200, 200], np.float32), (FRAMES, 1)),
        "kp_2d": np.concatenate([250 + 90 * spin49[..., :2], ones], axis=-1).astype(np.float32),
        "kp_3d": np.concatenate([spin49, ones], axis=-1),
        "kp_3d_eval": common14,
        "pose": pose.astype(np.float32),
        "betas": shape,
        **dict.fromkeys(("has_3d", "has_smpl", "valid"), np.ones(FRAMES, bool)),
    }
    return rows, np.concatenate([rotmat.reshape(FRAMES, 216), shape], axis=1)


def mean_and_spread(values: Sequence[float]) -> str:
    """ "71.0 ± 1.4" for several seeds, "70.0" for one."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
