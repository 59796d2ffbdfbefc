"""Do the models learn what their papers claim: is a temporal model better than one that looks at single frames?

    .venv/bin/python benchmarks/learning.py --out benchmarks/learning.md
    make data && .venv/bin/python benchmarks/learning.py --mixture

Planted: the features are a fixed random network of the true pose and shape, with noise that is drawn for every frame by
itself, so that neighbours help and nothing else is in the way. Motions are those of the demo data, made up and not
rendered. Networks are small, losses and trainers are those of every training. Validation and test have other motions
than training. "And clips" trains on further motions, too, of which only noisy 2D keypoints are known, as a detector
finds them in videos without labels: look at few labels for that (`--motions 100`). DEMO DATA, no result about any of
the models.

The optimal linear smoother is the least squares estimate of a frame's noiseless features from the noisy ones of all
frames at most REACH away, computed from the covariances of the noiseless ones and the noise; then the per-frame
regressor, trained on that.

What part dynamics reads beside the features is planted, too. Embeddings are those of the true 2D keypoints with noise,
by an untrained network of which only the batch norms' statistics are fitted: a fixed random function, which neither
knows views nor how sure it is. "Homographies" are a fixed random linear function of the change of all rotations since
the frame before, with noise, eight numbers and a 0; none of a motion's first frame. Both exist once more with the rows
of a split in random order, of which nothing can be learned.

--mixture: all datasets together and each alone, once a seed, on what `make data` has made, by the `embedded` preset:
errors on motions and cameras that training never saw, beside the mean body's.

What was trained is kept in the folder `--at`: killed, the same command continues.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
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
from pipeline.skeletons import keypoints_13
from vibe_extensions.demo.motion import perform, random_betas
from vibe_extensions.hmmr.config import HMMRConfig
from vibe_extensions.part_dynamics.config import PartDynamicsConfig
from vibe_extensions.part_dynamics.pr_vipe.network import PrVIPE
from vibe_extensions.part_dynamics.pr_vipe.training import STATE
from vibe_model import TrainConfig, runs, training
from vibe_model.checkpoints import read_checkpoint
from vibe_model.models import variant_of
from vibe_model.settings import VideoConfig
from vibe_model.vibe import mposer_training as mposer
from vibe_model.vibe.config import MPoserConfig

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, parser, report, table

Floats = NDArray[np.floating[Any]]
TRAIN, VALIDATION, TEST, MOCAP = "planted/train", "planted/val", "planted/test", "planted/mocap"
CLIPS: Final = "planted/clips"  # videos without labels, of which a detector found noisy 2D keypoints
MOTIONS: Final = {TRAIN: 1000, VALIDATION: 16, TEST: 32, MOCAP: 200, CLIPS: 900}
FRAMES: Final = 64  # of each motion, 25 a second
FEATURE: Final = 128  # numbers
REACH: Final = 5  # frames
FACING: Final = np.pi / 4  # rad to either side of the camera
Y_DOWN: Final = Rotation.from_rotvec([np.pi, 0, 0])  # as pictures have it
FEATURES, SMOOTHED = "planted", "smoothed"  # the streams
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
SUPERVISED: Final = ("kp_2d", "kp_3d", "pose", "shape")  # VIBE's terms, of the frames themselves
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
PER_FRAME, SINGLE_VIEW, OPTIMAL, MPOSER = "per frame", "HMMR, single view", "optimal linear smoother", "VIBE, MPoser"
ERRORS: Final = {"pa_mpjpe": "PA-MPJPE", "mpjpe": "MPJPE", "accel_error": "acceleration error", "accel": "acceleration"}
EVALUATED: Final = ("3dpw/validation", "3dpw/test", "h36m/val", "mpi_inf_3dhp/test")  # of --mixture
PAPER: Final = TrainConfig.paper()
Found = dict[str, list[Mapping[str, Any]]]  # by model, the metrics of each seed's run


def models(place: Path, at: Path, **changes: Any) -> dict[str, VideoConfig]:
    """The configurations that are compared."""
    embedding = plant_beside(place, TRAIN, (VALIDATION, TEST), FRAMES)
    facts: Any = {"cache": place, "runs": at / "runs", **COMMON, **changes}
    vibe = TrainConfig.embedded(**{**facts, **VIBE})
    hmmr = variant_of(HMMRConfig.embedded(**{**facts, **HMMR}), "no-prior")
    strip = variant_of(hmmr, "no-dynamics")
    return {
        PER_FRAME: (per_frame := variant_of(vibe, "per-frame")),
        OPTIMAL: replace(per_frame, stream=SMOOTHED),
        "VIBE, no discriminator": variant_of(vibe, "generator-only"),
        "VIBE": vibe,
        MPOSER: variant_of(vibe, "mposer"),
        SINGLE_VIEW: variant_of(hmmr, "single-view"),
        "HMMR, no past and future": strip,
        DISCRIMINATOR: (judged := replace(strip, prior="discriminator")),
        f"{DISCRIMINATOR}, and clips": replace(judged, datasets_2d=(CLIPS,)),
        "HMMR": hmmr,
        **part_dynamics({**facts, "embedding": embedding}),
    }


def main() -> None:
    """Train, print, write the report."""
    options = parser(__doc__, at="what is trained, which is not trained again")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--steps", type=int, default=125, help="of an epoch, after which it is validated")
    options.add_argument("--noise", type=float, default=1.0, help="beside a signal of 1")
    options.add_argument("--motions", type=int, default=MOTIONS[TRAIN], help="to train on")
    options.add_argument("--only", nargs="+", metavar="MODEL", help="the names of the table; all by default")
    options.add_argument("--mixture", action="store_true", help="all datasets and each alone, of what `make data` made")
    options.add_argument("--cache", type=Path, default=ROOT / "data/cache", help="of --mixture")
    options.add_argument("--body", type=Path, default=ROOT / "data/embedded/body", help="of --mixture")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.at or Path(temporary)
        if args.mixture:
            about = "DEMO DATA: rendered bodies; no result about VIBE."
            report(about, "All datasets together against each alone", mixture(folder, args), args)
            return
        place = folder / (f"cache-{args.noise:g}" + ("" if args.motions == MOTIONS[TRAIN] else f"-{args.motions}"))
        if not place.exists():
            plant(unfinished := folder / f"{place.name}-{os.getpid()}", args.noise, args.motions)
            unfinished.rename(place)
        epochs: Any = {"epochs": args.epochs, "iterations": args.steps, "checkpoint_every": args.steps}
        found: Found = {}
        for seed, (name, config) in itertools.product(args.seeds, models(place, folder, **epochs).items()):
            if not args.only or name in args.only:
                found.setdefault(name, []).append(trained(name, replace(config, seed=seed)))
    facts = (
        f"At most {args.epochs} epochs of {args.steps} steps of {COMMON['batch_size']} windows of {COMMON['seqlen']} "
        f"frames; features of {FEATURE} numbers, noise {args.noise:g} beside a signal of 1; {args.motions} motions of "
        f"{FRAMES} frames to train on. Means over {len(args.seeds)} seeds, ± their standard deviation, on "
        f"{MOTIONS[TEST]} other motions; mm, accelerations mm a frame²."
    )
    about = "DEMO DATA: made-up motions, planted features, the procedural body; no result about the models."
    lines = [facts, "", *errors(found), "", *curves(found), "", *past_and_future(found)]
    report(about, "Is a temporal model better than one of single frames?", lines, args)


def errors(found: Found) -> Iterator[str]:
    """Errors of every model on the test split, of the per-frame ones smoothed as is best in validation, too."""
    rows = dict(found)
    rows |= {f"{n}, smoothed": [run["smoothed"] for run in found[n]] for n in (PER_FRAME, SINGLE_VIEW) if n in found}
    bases = {name: SINGLE_VIEW if name.startswith("HMMR") else PER_FRAME for name in rows}
    rows["mean body"] = [next(iter(found.values()))[0]["baseline"]]
    lines = []
    for name, seeds in rows.items():
        cells = [mean_and_spread([run[error] for run in seeds]) for error in ERRORS]
        base = found.get(bases.get(name, ""), seeds)
        for error in ("pa_mpjpe", "accel_error"):
            mean, usual = (statistics.mean(run[error] for run in runs) for runs in (seeds, base))
            cells.append("" if base is seeds else f"{100 * (mean / usual - 1):+.0f} %")
        lines.append((name, *cells))
    yield from table(("", *ERRORS.values(), "PA-MPJPE beside one frame", "acceleration error"), lines)


def curves(found: Found) -> Iterator[str]:
    """PA-MPJPE on the validation split after every epoch, the mean over seeds."""
    n_epochs = max(len(run["curve"]) for seeds in found.values() for run in seeds)
    yield "Validation, PA-MPJPE after each epoch, and training's loss in the last one, of the frames themselves as VIBE"
    yield "weighs it; means over seeds:\n"
    lines = []
    for name, seeds in found.items():
        means = np.mean([[*run["curve"], run["loss"]] for run in seeds], axis=0)
        lines.append((name, *("" if np.isnan(mean) else f"{mean:.1f}" for mean in means)))
    yield from table(("", *(str(epoch + 1) for epoch in range(n_epochs)), "loss"), lines)


def past_and_future(found: Found) -> Iterator[str]:
    """PA-MPJPE 5 frames before and after, from one frame, beside models that know no motion."""
    lines = [
        (f"{name}: {model}", *(f"{by_step[step]:.1f}" for step in ("-5", "0", "5")))
        for name, (run, *_) in found.items()
        for model, by_step in run["hmmr"].get("dynamics", {}).get("pa_mpjpe", {}).items()
    ]
    if lines:
        yield "Past and future from one frame, PA-MPJPE (the first seed):\n"
        yield from table(("", "5 frames before", "now", "5 frames after"), lines)


def trained(name: str, config: VideoConfig) -> Mapping[str, Any]:
    """The metrics on the test split and the validation curve (mm, by epoch) of one training."""
    if isinstance(config, TrainConfig) and config.lacks:
        alike: Any = {key: getattr(config, key) for key in ("cache", "runs", "motion", "validation", "seed", "threads")}
        alike = {"mposer": mposer.run(MPoserConfig.embedded(**alike)) / runs.BEST}
        config = replace(config, **alike)
    run = training.run(config)
    history = read_checkpoint(run / runs.LAST)["training"]["history"]
    loss = sum(history[-1]["losses"].get(term, math.nan) for term in SUPERVISED)
    curve = [epoch["validation"][VALIDATION]["pa_mpjpe"] for epoch in history]
    metrics = json.loads((run / runs.METRICS).read_text())[TEST]
    print(name, config.seed, *(f"{metrics[error]:.1f}" for error in ERRORS), f"{min(curve):.1f}", flush=True)
    return {**metrics, "curve": curve, "loss": loss}


def plant(root: Path, noise: float, n_to_train_on: int) -> None:
    """A cache of made-up motions, whose streams hold their poses and shapes, hidden, and the best guess of these."""
    torch.set_num_threads(1)
    body, network = Body.stand_in(), np.random.default_rng(0)
    first = network.normal(size=(226, 512)) / np.sqrt(24)
    second = network.normal(size=(512, FEATURE)) / np.sqrt(512)
    mean, scale, filters = np.zeros(FEATURE), np.ones(FEATURE), {}
    for number, (name, n_motions) in enumerate((MOTIONS | {TRAIN: n_to_train_on}).items()):
        rng, hidden = np.random.default_rng([1, number]), []
        with cache.SplitWriter(root, name, columns=columns(name), plan="planted") as writer:
            writer.begin()
            for k in range(n_motions):
                betas = random_betas(rng)
                motion = perform(rng, betas, float(rng.uniform(-FACING, FACING)), FRAMES, 25.0)
                labels, rotmat = labelled(body, motion.pose, betas)
                hidden.append(np.concatenate([rotmat.reshape(FRAMES, 216), labels["betas"]], axis=1))
                facts: Any = {"name": f"{k:04d}/0", "video": f"{k:04d}", "step": 1, "fps": 25.0, "crop_scale": 1.0}
                if name == CLIPS:
                    labels["kp_2d"][..., :2] += rng.normal(0, NOISE_2D, labels["kp_2d"][..., :2].shape)
                rows = {column: labels[column] for column in columns(name)}
                writer.append(cache.VideoEntry(name=f"{k:04d}"), [cache.TrackRows(**facts, columns=rows)])
            writer.commit({"stand_in": True})
        if name == MOCAP:
            continue
        signal = np.maximum(np.stack(hidden) @ first, 0) @ second  # (n_motions, FRAMES, FEATURE)
        if name == TRAIN:
            mean, scale = signal.mean(axis=(0, 1)), signal.std(axis=(0, 1))
            filters = smoother((signal - mean) / scale, noise)
        features = (signal - mean) / scale + noise * rng.normal(size=signal.shape)
        for stream, values in ((FEATURES, features), (SMOOTHED, smooth(features, filters))):
            write(root, name, stream, values.reshape(-1, FEATURE), np.ones(n_motions * FRAMES, bool), "float16")


def smoother(signal: Floats, noise: float) -> dict[tuple[int, int], Floats]:
    """Noiseless features of mean 0, (n, FRAMES, F) -> the optimal filter where `before` frames precede and `after`
    follow: ((before + 1 + after) F, F), for noise of covariance `noise`^2 I (Wiener, 1949; Kay 1993, section 12.5).
    """
    signal = signal - signal.mean(axis=(0, 1))
    lags = [
        np.tensordot(signal[:, : FRAMES - lag], signal[:, lag:], axes=((0, 1), (0, 1))) / (len(signal) * (FRAMES - lag))
        for lag in range(2 * REACH + 1)
    ]  # E[s_t s_(t + lag)'], (F, F) each
    filters = {}
    for before, after in {(min(t, REACH), min(FRAMES - 1 - t, REACH)) for t in range(FRAMES)}:
        places = range(before + 1 + after)
        blocks = [[lags[j - i] if j >= i else lags[i - j].T for j in places] for i in places]
        of_noise = noise**2 * np.eye(len(places) * signal.shape[-1])
        filters[before, after] = np.linalg.solve(
            np.block(blocks) + of_noise, np.concatenate([row[before] for row in blocks])
        )
    return filters


def smooth(features: Floats, filters: Mapping[tuple[int, int], Floats]) -> Floats:
    """(n, FRAMES, F) -> the same, each frame from those at most REACH away."""
    out = np.empty_like(features)
    for t in range(FRAMES):
        before, after = min(t, REACH), min(FRAMES - 1 - t, REACH)
        out[:, t] = features[:, t - before : t + after + 1].reshape(len(features), -1) @ filters[before, after]
    return out


def columns(name: str) -> tuple[str, ...]:
    """What a split has."""
    if name == MOCAP:
        return ("frame_index", "pose", "betas", "has_smpl")
    if name == CLIPS:
        return ("frame_index", "bbox", "kp_2d", "valid")
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


# ------------------------------------------------------------------------------- what part dynamics reads, planted


def part_dynamics(facts: Mapping[str, Any]) -> dict[str, VideoConfig]:
    """Part dynamics, what it is without one thing, and with what it reads in random order."""
    whole = PartDynamicsConfig.embedded(**{**facts, **PARTS})
    without = {f"{WHOLE}, {name}": variant_of(whole, name) for name in ("no-u", "no-d", "no-dt", "no-unc", "no-u+no-d")}
    return {
        WHOLE: whole,
        **without,
        f"{WHOLE}, u of other rows": replace(whole, pr_vipe_stream=EMBEDDED + SHUFFLED),
        f"{WHOLE}, d of other rows": replace(whole, homography_stream=MOVED + SHUFFLED),
        f"{WHOLE}, one region": variant_of(whole, "one-region"),
        f"{WHOLE}, recombine-none": variant_of(whole, "recombine-none"),
    }


def plant_beside(root: Path, train: str, others: tuple[str, ...], n_frames: int) -> Path:
    """Add what is missing of the streams to splits of motions of `n_frames` rows. Returns the embedding's file."""
    torch.set_num_threads(1)
    file, splits, rng = root / "embedding.pt", cache.open(root), np.random.default_rng(2)
    directions = rng.normal(size=(216, 8))
    torch.manual_seed(0)
    embedding, scale = PrVIPE(hidden=HIDDEN, dropout=0.0), np.ones(8)
    for name in (train, *others):
        n = len(splits[name].tracks) * n_frames
        kp_2d, pose = (splits[name].rows(column, 0, n) for column in ("kp_2d", "pose"))
        kp_2d = keypoints_13(kp_2d)
        kp_2d[..., :2] += rng.normal(0, NOISE_2D, kp_2d[..., :2].shape)
        normalised, known = PrVIPE.normalise(torch.from_numpy(kp_2d))
        rotmat = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, n_frames, 216)
        signal = np.zeros((*rotmat.shape[:2], 9))
        signal[:, 1:, :8] = np.diff(rotmat, axis=1) @ directions
        moved = np.ones(rotmat.shape[:2], bool)
        moved[:, 0] = False
        if name == train:
            scale = signal[moved].std(axis=0)[:8]
            fit_norms(embedding, normalised)
        signal[:, 1:, :8] = signal[:, 1:, :8] / scale + rng.normal(0, NOISE_MOTION, signal[:, 1:, :8].shape)
        with torch.no_grad():
            embedded = torch.cat(embedding.eval()(normalised), dim=1).numpy()
        order = rng.permutation(n)
        found = {EMBEDDED: (embedded, known.numpy()), MOVED: (signal.reshape(n, 9), moved.ravel())}
        found |= {stream + SHUFFLED: (values[order], flags[order]) for stream, (values, flags) in found.items()}
        for stream in found.keys() - set(splits[name].streams):
            write(root, name, stream, *found[stream])
    if not file.exists():
        torch.save({STATE: embedding.state_dict(), "stand_in": True}, file)
    return file


def fit_norms(embedding: PrVIPE, normalised: torch.Tensor) -> None:
    """Set the batch norms' statistics to those of some poses."""
    for module in embedding.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = None  # the mean over all that is seen
    with torch.no_grad():
        embedding.train()(normalised)


def write(
    root: Path, split: str, stream: str, values: Floats, flags: NDArray[np.bool_], dtype: str = "float32"
) -> None:
    """Rows (N, F), and which of them are known, as a stream."""
    with cache.StreamWriter(root, split, stream, dim=values.shape[1], dtype=dtype, plan="planted") as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            keys = np.stack([rows, rows], axis=1).astype(np.uint64)
            writer.write(shard, values[rows].astype(dtype), flags[rows], keys)
        writer.commit({"stand_in": True})


# ----------------------------------------------------------------------------------------- all datasets, and each alone


def mixture(root: Path, args: argparse.Namespace) -> list[str]:
    """PA-MPJPE of all datasets together and of each alone, and the mean body's."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    base = TrainConfig.embedded(cache=args.cache, body=args.body, runs=root, evaluation=EVALUATED, hold="ram")
    for seed in args.seeds:
        for name, config in configurations(replace(base, seed=seed)):
            metrics = json.loads((training.run(config) / runs.METRICS).read_text())
            found.setdefault(name, []).append(metrics)
            print(name, seed, *(f"{metrics[split]['pa_mpjpe']:.1f}" for split in EVALUATED), flush=True)
    first = next(iter(found.values()))[0]
    found["(the mean body)"] = [{split: first[split]["baseline"] for split in EVALUATED}]
    rows = []
    for name, seeds in found.items():
        by_split = [[metrics[split]["pa_mpjpe"] for metrics in seeds] for split in EVALUATED]
        means = [statistics.mean(values) for values in zip(*by_split, strict=True)]
        rows.append((name, *map(mean_and_spread, (*by_split, means))))
    about = "PA-MPJPE in mm on motions and cameras that training never saw: means over the seeds, ± their standard"
    return [about, "deviation.", "", *table(("trained on", *EVALUATED, "mean"), rows)]


def configurations(base: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """All datasets together, then each alone."""
    yield "all datasets", replace(base, datasets_2d=PAPER.datasets_2d, datasets_3d=PAPER.datasets_3d)
    yield from ((name, replace(base, datasets_2d=(), datasets_3d=(name,))) for name in PAPER.datasets_3d)
    yield from ((name, replace(base, datasets_2d=(name,), datasets_3d=())) for name in PAPER.datasets_2d)


def mean_and_spread(values: Sequence[float]) -> str:
    """Of several seeds "71.0 ± 1.4", of one "70.0"."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
