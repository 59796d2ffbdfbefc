"""Does a temporal model learn what its paper claims: is it better than one that sees single frames?

    .venv/bin/python benchmarks/learning.py --out benchmarks/learning.md

The features are planted: a fixed random network of the true pose and shape, with independent noise
in each frame, so that only neighbouring frames help. Motions are those of the demo data, not
rendered; validation and test have other motions than training. The discriminator sees the motions
of training. Networks are small; losses and trainers are the usual ones. `--small` trains one seed
for a few steps, for a trial run. DEMO DATA, no result about any model.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.extras.demo.motion import perform, random_betas
from pipeline.people.body import Body, rotations_of
from vibe_model import TrainConfig, models, runs, training

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, spread, table, write_split, write_stream

TRAIN, VALIDATION, TEST = "planted/train", "planted/val", "planted/test"
FRAMES: Final = 64  # of each motion, 25 a second
FEATURE: Final = 128  # numbers
NOISE: Final = 1.0  # of features, beside a signal of 1
FACING: Final = np.pi / 4  # rad to either side of the camera
Y_DOWN: Final = Rotation.from_rotvec([np.pi, 0, 0])  # as in images
ERRORS: Final = {
    "pa_mpjpe": "PA-MPJPE",
    "mpjpe": "MPJPE",
    "accel_error": "acceleration error",
}


def main() -> None:
    """Train, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--small", action="store_true", help="60 motions, one seed of 30 steps")
    args = options.parse_args()
    motions, seeds, epochs, steps = (60, 1, 1, 30) if args.small else (1000, 3, 8, 125)
    with tempfile.TemporaryDirectory() as folder:
        _plant(Path(folder), {TRAIN: motions, VALIDATION: 16, TEST: 32})
        results = train(Path(folder), seeds, epochs=epochs, iterations=steps)
        lines = [
            f"At most {epochs} epochs of {steps} steps; {motions} motions to train on. Errors on "
            f"32 other motions, {seeds} seeds: the median (lowest - highest); mm, accelerations mm "
            "a frame²; changes from single frames in %.\n",
            *_compared(results),
        ]
        about = "DEMO DATA, the procedural body; no result about the models."
        report(about, "Is a temporal model better than one of single frames?", lines, args)


def _compared(results: dict[str, list[Any]]) -> Iterator[str]:
    """Errors of each model, and their changes from single frames, seed by seed."""
    rows = []
    for name, seeds in results.items():
        cells = [spread([metrics[error] for metrics in seeds], ".1f") for error in ERRORS]
        for error in ("pa_mpjpe", "accel_error"):
            pairs = zip(seeds, results["per frame"], strict=True)
            cells.append(spread([100 * (m[error] / p[error] - 1) for m, p in pairs], "+.0f"))
        rows.append((name, *cells))
    return table(("", *ERRORS.values(), "PA-MPJPE beside one frame", "acceleration error"), rows)


def train(folder: Path, n_seeds: int, **lengths: int) -> dict[str, list[Any]]:
    """By model, the metrics of each seed's run on the test split."""
    vibe = TrainConfig.embedded(
        cache=folder / "cache",
        runs=folder / "runs",
        stream="planted",
        feature_size=FEATURE,
        datasets_2d=(),
        datasets_3d=(TRAIN,),
        motion=(TRAIN,),
        validation=(VALIDATION,),
        evaluation=(TEST,),
        seqlen=16,
        stride=4,
        plateau_patience=0,
        plateau_factor=0.3,
        regressor_size=128,
        n_layers=1,
        hidden_size=128,
        disc_size=64,
        lr_generator=2e-3,
        hold="ram",
        threads=1,
        **lengths,
    )
    results: dict[str, list[Any]] = {"per frame": [], "VIBE": [], "mean body": []}
    for seed in range(n_seeds):
        for name, config in (
            ("per frame", models.find("vibe").vary(vibe, "per-frame")),
            ("VIBE", vibe),
        ):
            run = training.run(replace(config, seed=seed))
            results[name].append(json.loads((run / runs.METRICS).read_text())[TEST])
        results["mean body"].append(results["VIBE"][seed]["baseline"])
    return results


def _plant(folder: Path, n_motions: dict[str, int]) -> None:
    """Write a cache of made-up motions and their features."""
    torch.set_num_threads(1)
    root, body, network = folder / "cache", Body.stand_in(), np.random.default_rng(0)
    first = network.normal(size=(226, 512)) / np.sqrt(24)
    second = network.normal(size=(512, FEATURE)) / np.sqrt(512)
    for number, (name, n) in enumerate(n_motions.items()):
        rng = np.random.default_rng([1, number])
        motions = [_random_motion(rng, body) for _ in range(n)]
        columns = motions[0].keys() - {"kp_3d_eval" if name == TRAIN else "kp_3d"}
        write_split(root, name, sorted(columns), ([rows] for rows in motions))
        pose, betas = (np.concatenate([rows[key] for rows in motions]) for key in ("pose", "betas"))
        inputs = np.concatenate([rotations_of(pose).reshape(-1, 216), betas], axis=1)
        signal = np.maximum(inputs @ first, 0) @ second
        if name == TRAIN:
            mean, scale = signal.mean(axis=0), signal.std(axis=0)
        features = (signal - mean) / scale + NOISE * rng.normal(size=signal.shape)
        write_stream(root, name, "planted", FEATURE, features.__getitem__)


def _random_motion(rng: np.random.Generator, body: Body) -> dict[str, NDArray[Any]]:
    """A motion's columns in camera axes."""
    betas = random_betas(rng)
    # in a world with y up
    pose = perform(rng, betas, float(rng.uniform(-FACING, FACING)), FRAMES, 25.0).pose.copy()
    pose[:, :3] = (Y_DOWN * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    shape = np.tile(betas, (FRAMES, 1))
    spin49, common14 = body.posed_joints(pose, shape)
    kp_3d = np.insert(spin49, 3, 1, axis=-1)  # all are known
    return {
        "frame_index": np.arange(FRAMES),
        "bbox": np.tile([250, 250, 200, 200], (FRAMES, 1)),
        "kp_2d": np.insert(250 + 90 * spin49[..., :2], 2, 1, axis=-1),
        "kp_3d": kp_3d,
        "kp_3d_eval": common14,
        "pose": pose,
        "betas": shape,
        **dict.fromkeys(("has_3d", "has_smpl", "valid"), np.ones(FRAMES, bool)),
    }


if __name__ == "__main__":
    main()
