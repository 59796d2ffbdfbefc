"""Do temporal models learn what their papers claim: are they better than one that sees single
frames?

    .venv/bin/python benchmarks/learning.py --out benchmarks/learning.md
    make data && .venv/bin/python benchmarks/learning.py --mixture

The features are planted: a fixed random network of the true pose and shape, with independent noise
in each frame, so that only neighbouring frames help. Motions are those of the demo data, not
rendered; validation and test have other motions than training. Networks are small; losses and
trainers are the usual ones. "And clips" also trains on motions with only noisy 2D keypoints, as a
detector finds them in unlabelled videos (with few labels: `--motions 100`). DEMO DATA, no result
about any model.

The streams of part dynamics are planted, too. Embeddings are those of the true 2D keypoints with
noise, by a network with random weights and fitted statistics of its batch norms: a fixed random
function, which knows neither views nor uncertainty. "Homographies" are a fixed random linear
function of the change of all rotations since the previous frame, with noise: eight numbers and a 0,
unknown in a motion's first frame. "Of other rows": the same stream with its rows in random order,
from which nothing can be learned.

--mixture: all datasets together and each alone, with each seed, on the data of `make data`, by the
`embedded` preset: errors on motions and cameras that training never saw, compared with the mean
body's.

Trained runs stay in the folder `--at`: a repeated command continues.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import cache
from pipeline.body import Body
from pipeline.demo.motion import perform, random_betas
from pipeline.skeletons import keypoints_13
from vibe_model import TrainConfig, runs, training
from vibe_model.hmmr import config as hmmr_config
from vibe_model.models import variant_of
from vibe_model.part_dynamics import config as part_dynamics_config
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE
from vibe_model.part_dynamics.pr_vipe.training import STATE
from vibe_model.settings import VideoConfig
from vibe_model.vibe import mposer
from vibe_model.vibe.config import MPoserConfig

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, parser, report, table, write_split, write_stream

Floats = NDArray[np.floating[Any]]
TRAIN, VALIDATION, TEST, MOCAP = "planted/train", "planted/val", "planted/test", "planted/mocap"
CLIPS: Final = "planted/clips"  # videos without labels, with noisy 2D keypoints as from a detector
MOTIONS: Final = {TRAIN: 1000, VALIDATION: 16, TEST: 32, MOCAP: 200, CLIPS: 900}
NOISE: Final = 1.0  # of features, beside a signal of 1
FRAMES: Final = 64  # of each motion, 25 a second
FEATURE: Final = 128  # numbers
FACING: Final = np.pi / 4  # rad to either side of the camera
Y_DOWN: Final = Rotation.from_rotvec([np.pi, 0, 0])  # as in images
FEATURES: Final = "planted"  # the stream
COMMON: Final[Mapping[str, Any]] = {
    "stream": FEATURES,
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
    "hold": "ram",
    "threads": 1,
}
VIBE: Final[Mapping[str, Any]] = {
    "n_layers": 1,
    "hidden_size": 128,
    "regressor_size": 128,
    "disc_size": 64,
    "lr_generator": 2e-3,
}
HMMR: Final[Mapping[str, Any]] = {
    "width": 0,
    "norm": "window",
    "regressor": "spin",
    "regressor_size": 128,
    "dropout": 0.0,
    "lr_generator": 1e-3,
}
NOISE_2D: Final = 5.0  # px, a tenth of a torso
NOISE_MOTION: Final = 0.3  # beside a signal of 1
HIDDEN: Final = 256  # of the embedding
EMBEDDED, MOVED = "planted_pose", "planted_motion"  # the streams
SHUFFLED: Final = "_of_others"
WHOLE: Final = "part dynamics"
PARTS: Final[Mapping[str, Any]] = {
    "width": 64,
    "hidden_size": 128,
    "regressor_size": 128,
    "lr_generator": 2e-3,  # as VIBE here
    "pr_vipe_stream": EMBEDDED,
    "homography_stream": MOVED,
}
DISCRIMINATOR: Final = "HMMR, pose discriminator, no past and future"
PER_FRAME, SINGLE_VIEW = "per frame", "HMMR, single view"
ERRORS: Final = {
    "pa_mpjpe": "PA-MPJPE",
    "mpjpe": "MPJPE",
    "accel_error": "acceleration error",
    "accel": "acceleration",
}
EVALUATED: Final = ("3dpw/validation", "3dpw/test", "h36m/val", "mpi_inf_3dhp/test")  # of --mixture
PAPER: Final = TrainConfig.paper()
Results = dict[str, list[Mapping[str, Any]]]  # by model, the metrics of each seed's run


def models(root: Path, folder: Path, **changes: Any) -> dict[str, VideoConfig]:
    """The compared configurations."""
    embedding = plant_beside(root)
    facts: Any = {"cache": root, "runs": folder / "runs", **COMMON, **changes}
    vibe = TrainConfig.embedded(**{**facts, **VIBE})
    hmmr = variant_of(hmmr_config.PRESETS["embedded"](**{**facts, **HMMR}), "no-prior")
    strip = variant_of(hmmr, "no-dynamics")
    return {
        PER_FRAME: variant_of(vibe, "per-frame"),
        "VIBE, no discriminator": variant_of(vibe, "generator-only"),
        "VIBE": vibe,
        "VIBE, MPoser": variant_of(vibe, "mposer"),
        SINGLE_VIEW: variant_of(hmmr, "single-view"),
        "HMMR, no past and future": strip,
        DISCRIMINATOR: (judged := replace(strip, prior="discriminator")),
        f"{DISCRIMINATOR}, and clips": replace(judged, datasets_2d=(CLIPS,)),
        "HMMR": hmmr,
        **part_dynamics({**facts, "embedding": embedding}),
    }


def main() -> None:
    """Train, print, write the report."""
    options = parser(__doc__, at="trained runs, which are not repeated")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument(
        "--steps", type=int, default=125, help="of an epoch, after which it is validated"
    )
    options.add_argument("--motions", type=int, default=MOTIONS[TRAIN], help="to train on")
    options.add_argument(
        "--only", nargs="+", metavar="MODEL", help="the names of the table; all by default"
    )
    options.add_argument(
        "--mixture",
        action="store_true",
        help="all datasets and each alone, on the data of `make data`",
    )
    options.add_argument("--cache", type=Path, default=ROOT / "data/cache", help="of --mixture")
    options.add_argument(
        "--body", type=Path, default=ROOT / "data/embedded/body", help="of --mixture"
    )
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.at or Path(temporary)
        if args.mixture:
            about = "DEMO DATA: rendered bodies; no result about VIBE."
            report(about, "All datasets together and each alone", mixture(folder, args), args)
            return
        root = folder / f"cache-{args.motions}"
        if not root.exists():
            plant(unfinished := folder / f"{root.name}-{os.getpid()}", args.motions)
            unfinished.rename(root)
        epochs: Any = {
            "epochs": args.epochs,
            "iterations": args.steps,
            "checkpoint_every": args.steps,
        }
        results: Results = {}
        for seed, (name, config) in itertools.product(
            args.seeds, models(root, folder, **epochs).items()
        ):
            if not args.only or name in args.only:
                results.setdefault(name, []).append(train(name, replace(config, seed=seed)))
    facts = (
        f"At most {args.epochs} epochs of {args.steps} steps of {COMMON['batch_size']} windows "
        f"of {COMMON['seqlen']} frames; features of {FEATURE} numbers, noise {NOISE:g} beside "
        f"a signal of 1; {args.motions} motions of {FRAMES} frames to train on. Means over "
        f"{len(args.seeds)} seeds, ± their standard deviation, on {MOTIONS[TEST]} other "
        "motions; mm, accelerations mm a frame²."
    )
    about = (
        "DEMO DATA: made-up motions, planted features, the procedural body; no result about "
        "the models."
    )
    lines = [facts, "", *errors(results), "", *past_and_future(results)]
    report(about, "Is a temporal model better than one of single frames?", lines, args)


def errors(results: Results) -> Iterator[str]:
    """Errors of each model on the test split, and of per-frame ones smoothed as is best in
    validation.
    """
    rows = dict(results)
    rows |= {
        f"{n}, smoothed": [run["smoothed"] for run in results[n]]
        for n in (PER_FRAME, SINGLE_VIEW)
        if n in results
    }
    bases = {name: SINGLE_VIEW if name.startswith("HMMR") else PER_FRAME for name in rows}
    rows["mean body"] = [next(iter(results.values()))[0]["baseline"]]
    lines = []
    for name, seeds in rows.items():
        cells = [mean_and_spread([run[error] for run in seeds]) for error in ERRORS]
        base = results.get(bases.get(name, ""), seeds)
        for error in ("pa_mpjpe", "accel_error"):
            mean, usual = (statistics.mean(run[error] for run in runs) for runs in (seeds, base))
            cells.append("" if base is seeds else f"{100 * (mean / usual - 1):+.0f} %")
        lines.append((name, *cells))
    yield from table(
        ("", *ERRORS.values(), "PA-MPJPE beside one frame", "acceleration error"), lines
    )


def past_and_future(results: Results) -> Iterator[str]:
    """PA-MPJPE 5 frames before and after, from one frame, compared with models that know no
    motion.
    """
    lines = [
        (f"{name}: {model}", *(f"{by_step[step]:.1f}" for step in ("-5", "0", "5")))
        for name, (run, *_) in results.items()
        for model, by_step in run["hmmr"].get("dynamics", {}).get("pa_mpjpe", {}).items()
    ]
    if lines:
        yield "Past and future from one frame, PA-MPJPE (the first seed):\n"
        yield from table(("", "5 frames before", "now", "5 frames after"), lines)


def train(name: str, config: VideoConfig) -> Mapping[str, Any]:
    """The metrics on the test split of one training."""
    if isinstance(config, TrainConfig) and config.missing_checkpoints:
        shared: Any = {
            key: getattr(config, key)
            for key in ("cache", "runs", "motion", "validation", "seed", "threads")
        }
        config = replace(config, mposer=mposer.run(MPoserConfig.embedded(**shared)) / runs.BEST)
    metrics: Mapping[str, Any] = json.loads((training.run(config) / runs.METRICS).read_text())[TEST]
    print(name, config.seed, *(f"{metrics[error]:.1f}" for error in ERRORS), flush=True)
    return metrics


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
        if name == CLIPS:
            for rows, _ in motions:
                rows["kp_2d"][..., :2] += rng.normal(0, NOISE_2D, rows["kp_2d"][..., :2].shape)
        write_split(root, name, columns(name), (rows for rows, _ in motions))
        if name == MOCAP:
            continue
        # (n, FRAMES, FEATURE)
        signal = np.maximum(np.stack([hidden for _, hidden in motions]) @ first, 0) @ second
        if name == TRAIN:
            mean, scale = signal.mean(axis=(0, 1)), signal.std(axis=(0, 1))
        features = (signal - mean) / scale + NOISE * rng.normal(size=signal.shape)
        write_stream(root, name, FEATURES, FEATURE, features.reshape(-1, FEATURE).__getitem__)


def columns(name: str) -> tuple[str, ...]:
    """The columns of a split."""
    if name == MOCAP:
        return ("frame_index", "pose", "betas", "has_smpl")
    if name == CLIPS:
        return ("frame_index", "bbox", "kp_2d", "valid")
    joints = "kp_3d" if name == TRAIN else "kp_3d_eval"
    return ("frame_index", "bbox", "kp_2d", joints, "has_3d", "pose", "betas", "has_smpl", "valid")


def random_motion(rng: np.random.Generator, body: Body) -> tuple[dict[str, NDArray[Any]], Floats]:
    """A motion's columns in camera axes, and its rotations and shape, (FRAMES, 226), from which
    features are made.
    """
    betas = random_betas(rng)
    # in a world with y up
    pose = perform(rng, betas, float(rng.uniform(-FACING, FACING)), FRAMES, 25.0).pose.copy()
    pose[:, :3] = (Y_DOWN * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    rotmat = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(FRAMES, 24, 3, 3)
    posed: Any = {
        "betas": torch.tensor(betas).float().expand(FRAMES, -1),
        "rotmat": torch.tensor(rotmat).float(),
    }
    with torch.no_grad():
        spin49, common14 = (
            body.joints(**posed, order=order).numpy() for order in ("spin49", "common14")
        )
    ones, shape = (
        np.ones((FRAMES, 49, 1), np.float32),
        np.tile(betas.astype(np.float32), (FRAMES, 1)),
    )
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


# ------------------------------------------------------------------------------------------ streams
# of part dynamics


def part_dynamics(facts: Mapping[str, Any]) -> dict[str, VideoConfig]:
    """Part dynamics, its variants without one thing, and with streams of other rows."""
    whole = part_dynamics_config.PRESETS["embedded"](**{**facts, **PARTS})
    without = {
        f"{WHOLE}, {name}": variant_of(whole, name)
        for name in ("no-u", "no-d", "no-dt", "no-unc", "no-u+no-d")
    }
    return {
        WHOLE: whole,
        **without,
        f"{WHOLE}, u of other rows": replace(whole, pr_vipe_stream=EMBEDDED + SHUFFLED),
        f"{WHOLE}, d of other rows": replace(whole, homography_stream=MOVED + SHUFFLED),
        f"{WHOLE}, one region": variant_of(whole, "one-region"),
        f"{WHOLE}, recombine-none": variant_of(whole, "recombine-none"),
    }


def plant_beside(root: Path) -> Path:
    """Write the missing streams of embeddings and homographies. Return the embedding's file."""
    torch.set_num_threads(1)
    file, splits, rng = root / "embedding.pt", cache.open(root), np.random.default_rng(2)
    directions = rng.normal(size=(216, 8))
    torch.manual_seed(0)
    embedding, scale = PrVIPE(hidden=HIDDEN, dropout=0.0), np.ones(8)
    for name in (TRAIN, VALIDATION, TEST):
        n = len(splits[name].tracks) * FRAMES
        kp_2d, pose = (splits[name].rows(column, 0, n) for column in ("kp_2d", "pose"))
        kp_2d = keypoints_13(kp_2d)
        kp_2d[..., :2] += rng.normal(0, NOISE_2D, kp_2d[..., :2].shape)
        normalised, complete = PrVIPE.normalise(torch.from_numpy(kp_2d))
        rotmat = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, FRAMES, 216)
        signal = np.zeros((*rotmat.shape[:2], 9))
        signal[:, 1:, :8] = np.diff(rotmat, axis=1) @ directions
        moved = np.ones(rotmat.shape[:2], bool)
        moved[:, 0] = False
        if name == TRAIN:
            scale = signal[moved].std(axis=0)[:8]
            fit_norms(embedding, normalised)
        signal[:, 1:, :8] = signal[:, 1:, :8] / scale + rng.normal(
            0, NOISE_MOTION, signal[:, 1:, :8].shape
        )
        with torch.no_grad():
            embedded = torch.cat(embedding.eval()(normalised), dim=1).numpy()
        order = rng.permutation(n)
        streams = {
            EMBEDDED: (embedded, complete.numpy()),
            MOVED: (signal.reshape(n, 9), moved.ravel()),
        }
        streams |= {
            stream + SHUFFLED: (values[order], flags[order])
            for stream, (values, flags) in streams.items()
        }
        for stream in streams.keys() - set(splits[name].streams):
            values, flags = streams[stream]
            write_stream(root, name, stream, values.shape[1], values.__getitem__, flags, "float32")
    if not file.exists():
        torch.save({STATE: embedding.state_dict(), "stand_in": True}, file)
    return file


def fit_norms(embedding: PrVIPE, normalised: torch.Tensor) -> None:
    """Set the batch norms' statistics to those of the poses."""
    for module in embedding.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = None  # the mean over all poses
    with torch.no_grad():
        embedding.train()(normalised)


# ----------------------------------------------------------------------------------------- all
# datasets, and each alone


def mixture(root: Path, args: argparse.Namespace) -> list[str]:
    """PA-MPJPE of all datasets together and of each alone, and the mean body's."""
    results: Results = {}
    base = TrainConfig.embedded(
        cache=args.cache, body=args.body, runs=root, evaluation=EVALUATED, hold="ram"
    )
    for seed in args.seeds:
        for name, config in configurations(replace(base, seed=seed)):
            metrics = json.loads((training.run(config) / runs.METRICS).read_text())
            results.setdefault(name, []).append(metrics)
            print(
                name,
                seed,
                *(f"{metrics[split]['pa_mpjpe']:.1f}" for split in EVALUATED),
                flush=True,
            )
    first = next(iter(results.values()))[0]
    results["(the mean body)"] = [{split: first[split]["baseline"] for split in EVALUATED}]
    rows = []
    for name, seeds in results.items():
        by_split = [[metrics[split]["pa_mpjpe"] for metrics in seeds] for split in EVALUATED]
        means = [statistics.mean(values) for values in zip(*by_split, strict=True)]
        rows.append((name, *map(mean_and_spread, (*by_split, means))))
    about = (
        "PA-MPJPE in mm on motions and cameras that training never saw: means over the "
        "seeds, ± their standard"
    )
    return [about, "deviation.", "", *table(("trained on", *EVALUATED, "mean"), rows)]


def configurations(base: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """All datasets together, then each alone."""
    yield (
        "all datasets",
        replace(base, datasets_2d=PAPER.datasets_2d, datasets_3d=PAPER.datasets_3d),
    )
    yield from (
        (name, replace(base, datasets_2d=(), datasets_3d=(name,))) for name in PAPER.datasets_3d
    )
    yield from (
        (name, replace(base, datasets_2d=(name,), datasets_3d=())) for name in PAPER.datasets_2d
    )


def mean_and_spread(values: Sequence[float]) -> str:
    """ "71.0 ± 1.4" for several seeds, "70.0" for one."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
