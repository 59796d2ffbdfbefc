"""HMMR: does it learn, and what is each part worth?

    .venv/bin/python benchmarks/learning_hmmr.py --out benchmarks/learning_hmmr.md

Planted: the features are a fixed random network of the true pose, with noise that is drawn for every frame by itself,
so that neighbours help and nothing else is in the way. Motions are those of the demo data, made up and not rendered;
training reads each window from one of several copies with other noise, as it reads jittered crops. Networks are small.
Validation and test have other motions than training. DEMO DATA, no result about HMMR.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import cache
from pipeline.body import Body
from pipeline.synthetic.motion import perform, random_betas
from vibe_model import runs, training
from vibe_model.hmmr.config import HMMRConfig
from vibe_model.models import variant_of

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.training import mean_and_spread, report

TRAIN, VALIDATION, TEST, MOCAP = "planted/train", "planted/val", "planted/test", "planted/mocap"
MOTIONS: Final = {TRAIN: 300, VALIDATION: 16, TEST: 32, MOCAP: 60}
FRAMES: Final = 64  # of each motion, 25 a second
FEATURE: Final = 128  # numbers
COPIES: Final = 16
FACING: Final = np.pi / 4  # rad to either side of the camera
Y_DOWN: Final = Rotation.from_rotvec([np.pi, 0, 0])  # as pictures have it
SMALL: Final[Mapping[str, Any]] = {
    "stream": "planted",
    "feature_size": FEATURE,
    "width": 0,
    "norm": "window",
    "regressor_size": 128,
    "dropout": 0.0,
    "seqlen": 16,
    "batch_size": 4,
    "stride": 4,
    "lr_generator": 3e-4,
    "datasets_2d": (),
    "datasets_3d": (TRAIN,),
    "copies_3d": COPIES,
    "motion": (MOCAP,),
    "validation": (VALIDATION,),
    "evaluation": (TEST,),
    "threads": 1,
}
VARIANTS: Final = ("temporal", "single-view", "dynamics", "discriminator")
ERRORS: Final = {"pa_mpjpe": "PA-MPJPE", "mpjpe": "MPJPE", "accel_error": "acceleration error", "accel": "acceleration"}
Found = dict[str, list[Mapping[str, Any]]]  # by variant, the metrics of each seed's run


def main() -> None:
    """Train, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=500, help="of an epoch, after which it is validated")
    parser.add_argument("--noise", type=float, default=1.0, help="beside a signal of 1")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--at", type=Path, help="where to train: what is there is not made again")
    parser.add_argument("--out", type=Path, help="write the report here, for example benchmarks/learning_hmmr.md")
    args = parser.parse_args()
    args.device = "cpu"
    began = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.at or Path(temporary)
        place = folder / f"cache-{args.noise:g}"
        if not place.exists():
            plant(unfinished := folder / f"{place.name}-{os.getpid()}", args.noise)
            unfinished.rename(place)
        epochs: Any = {"epochs": args.epochs, "iterations": args.steps, "checkpoint_every": args.steps}
        base = HMMRConfig.embedded(cache=place, runs=folder / "runs", **epochs, **SMALL)
        found: Found = {}
        for seed, (name, config) in itertools.product(args.seeds, variants(base).items()):
            if name in args.only:
                run = training.run(replace(config, seed=seed))
                metrics = json.loads((run / runs.METRICS).read_text())
                found.setdefault(name, []).append(metrics[TEST]["hmmr"] | {"best": metrics["best"]["epoch"]})
                print(name, seed, metrics["best"], *(f"{found[name][-1][e]:.1f}" for e in ERRORS), flush=True)
    shown = (
        f"{(time.process_time() - began) / 60:.0f} CPU minutes. Of each run {args.epochs} epochs of {args.steps} steps "
        f"of {base.batch_size} windows of {base.seqlen} frames; features of {FEATURE} numbers, noise {args.noise:g} "
        f"beside a signal of 1; {MOTIONS[TRAIN]} motions of {FRAMES} frames to train on. Means over {len(args.seeds)} "
        f"seeds, ± their standard deviation, on {MOTIONS[TEST]} other motions; protocol hmmr, mm, accelerations mm a "
        "frame²."
    )
    about = "DEMO DATA: made-up motions, planted features, the procedural body; no result about HMMR."
    lines = [shown, "", *table(found), "", *past_and_future(found)]
    report(about, "HMMR on planted features: what is each part worth?", lines, args)


def table(found: Found) -> Iterator[str]:
    """Errors of every variant, of the single view's smoothed as is best in validation, of the mean body."""
    yield f"| | {' | '.join(ERRORS.values())} | best epoch |"
    yield "|---" * (2 + len(ERRORS)) + "|"
    first = next(iter(found.values()))
    rows = dict(found)
    if "single-view" in found:
        rows["single-view, smoothed"] = [one["smoothed"] for one in found["single-view"]]
    rows["mean body"] = [first[0]["baseline"]]
    for name, of in rows.items():
        epochs = ", ".join(str(one["best"] + 1) for one in of if "best" in one)
        yield f"| {name} | {' | '.join(mean_and_spread([one[error] for one in of]) for error in ERRORS)} | {epochs} |"
    if {"temporal", "single-view"} <= found.keys():
        yield ""
        for error, name in (("accel_error", "acceleration error"), ("pa_mpjpe", "PA-MPJPE")):
            own, its = (statistics.mean(one[error] for one in found[way]) for way in ("temporal", "single-view"))
            yield f"{name[0].upper()}{name[1:]} of temporal beside single-view: {100 * (own / its - 1):+.0f}%."


def past_and_future(found: Found) -> Iterator[str]:
    """PA-MPJPE 5 frames before and after, from one frame, beside models that know no motion."""
    dynamic = {name: [one["dynamics"]["pa_mpjpe"] for one in of] for name, of in found.items() if "dynamics" in of[0]}
    if dynamic:
        yield "| PA-MPJPE from one frame | 5 frames before | now | 5 frames after |"
        yield "|---|---|---|---|"
    for name, of in dynamic.items():
        for model in of[0]:
            cells = [mean_and_spread([one[model][step] for one in of]) for step in ("-5", "0", "5")]
            yield f"| {name}: {model} | {' | '.join(cells)} |"


def variants(base: HMMRConfig) -> dict[str, HMMRConfig]:
    """Encoder and regressor; the regressor alone; with past, future and hallucinator; with the pose prior, too."""
    plain = variant_of(base, "no-prior")
    every = variant_of(plain, "no-dynamics"), variant_of(plain, "single-view"), plain, base
    return dict(zip(VARIANTS, every, strict=True))


def plant(root: Path, noise: float) -> None:
    """A cache of made-up motions, whose stream `planted` and copies of it hold their poses, hidden."""
    torch.set_num_threads(1)
    body, network = Body.stand_in(), np.random.default_rng(0)
    first = network.normal(size=(216, 512)) / np.sqrt(24)
    second = network.normal(size=(512, FEATURE)) / np.sqrt(512)
    centre = spread = np.ones(FEATURE)
    for number, (name, n_motions) in enumerate(MOTIONS.items()):
        rng, signals = np.random.default_rng([1, number]), []
        with cache.SplitWriter(root, name, columns=columns(name), plan="planted") as writer:
            writer.begin()
            for k in range(n_motions):
                betas = random_betas(rng)
                motion = perform(rng, betas, float(rng.uniform(-FACING, FACING)), FRAMES, 25.0)
                labels, rotmat = labelled(body, motion.pose, betas)
                signals.append(np.maximum(rotmat.reshape(FRAMES, 216) @ first, 0) @ second)
                facts: Any = {"name": f"{k:04d}/0", "video": f"{k:04d}", "step": 1, "fps": 25.0, "crop_scale": 1.0}
                rows = {column: labels[column] for column in columns(name)}
                writer.append(cache.VideoEntry(name=f"{k:04d}"), [cache.TrackRows(**facts, columns=rows)])
            writer.commit({"stand_in": True})
        if name == MOCAP:
            continue
        signal = np.concatenate(signals)
        if name == TRAIN:
            centre, spread = signal.mean(axis=0), signal.std(axis=0)
        for stream in ("planted", *(f"planted.j{k + 1}" for k in range(COPIES if name == TRAIN else 0))):
            with cache.StreamWriter(root, name, stream, dim=FEATURE, plan="planted") as features:
                for shard in features.pending:
                    rows_of = np.asarray(features.rows(shard))
                    values = (signal[rows_of] - centre) / spread + noise * rng.normal(size=(len(rows_of), FEATURE))
                    keys = np.stack([rows_of, rows_of], axis=1).astype(np.uint64)
                    features.write(shard, values.astype(np.float16), np.ones(len(rows_of), bool), keys)
                features.commit({"stand_in": True})


def columns(name: str) -> tuple[str, ...]:
    """What a split has."""
    if name == MOCAP:
        return ("frame_index", "pose", "betas", "has_smpl")
    joints = "kp_3d" if name == TRAIN else "kp_3d_eval"
    return ("frame_index", "bbox", "kp_2d", joints, "has_3d", "pose", "betas", "has_smpl", "valid")


def labelled(
    body: Body, pose: NDArray[np.float64], betas: NDArray[np.float64]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """pose (T, 72) in a world whose y is up -> columns in the camera's axes, rotations (T, 24, 3, 3) in them."""
    n = len(pose)
    turned = pose.copy()
    turned[:, :3] = (Y_DOWN * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    rotmat = Rotation.from_rotvec(turned.reshape(-1, 3)).as_matrix().reshape(n, 24, 3, 3)
    given: Any = {"betas": torch.tensor(betas).float().expand(n, -1), "rotmat": torch.tensor(rotmat).float()}
    with torch.no_grad():
        spin49, common14 = (body.joints(**given, order=order).numpy() for order in ("spin49", "common14"))
    ones = np.ones((n, 49, 1), np.float32)
    known: dict[str, NDArray[Any]] = {
        "frame_index": np.arange(n),
        "bbox": np.tile(np.array([250, 250, 200, 200], np.float32), (n, 1)),
        "kp_2d": np.concatenate([250 + 90 * spin49[..., :2], ones], axis=-1).astype(np.float32),
        "kp_3d": np.concatenate([spin49, ones], axis=-1),
        "kp_3d_eval": common14,
        "pose": turned.astype(np.float32),
        "betas": np.tile(betas.astype(np.float32), (n, 1)),
    }
    return known | dict.fromkeys(("has_3d", "has_smpl", "valid"), np.ones(n, bool)), rotmat


if __name__ == "__main__":
    main()
