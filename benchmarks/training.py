"""How fast is a step of VIBE's training, compared with plain PyTorch?

    .venv/bin/python benchmarks/training.py --out benchmarks/training.md

Networks of the published sizes, the procedural body, and a cache of random labels and features:
batches of 32 windows of 16 frames, 19 of them with 2D labels only, and 32 windows of real motion.
First, without dropout and from equal parameters, all ways take the same steps on the same windows:
float32 losses must agree to 1e-4, or the benchmark ends. Then they train in turns, A B C A B C. The
report has the median round with the lowest and the highest, and ratios within rounds. `--small`
makes everything tiny, for a trial run.

- Ours, in fp32 and bf16: `VIBETrainer.train_step` on batches of `training.data.stream_batches`, as
`training.run` does it.
- Usual: databases of whole datasets in memory; one loader each for 2D, 3D and real motion, whose
  items are single windows of eight arrays, converted on access; torch's own GRU; all vertices of
  the body; three passes of the discriminator, with gradients of everything; Adam, one parameter
  after the other.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import cache
from pipeline.body import Body
from pipeline.crops import normalise_keypoints
from pipeline.rotations import matrix_to_axis_angle, rotation_6d_to_matrix
from pipeline.skeletons import JOINTS, convert
from vibe_model import TrainConfig, losses
from vibe_model.cameras import project
from vibe_model.training.data import TrainingBatches, on_device, stream_batches
from vibe_model.training.trainer import ProcessGroup
from vibe_model.vibe.training import VIBETrainer

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, spread, table, write_split, write_stream

USUAL, FP32, BF16 = "usual", "ours, fp32", "ours, bf16"
AGREEMENT: Final = 1e-4  # relative, of float32
# of Adam: one parameter after the other
PLAIN: Final[Mapping[str, Any]] = {"foreach": False, "fused": False}
TRACK: Final = 128  # frames
SKELETON: Final = "body_25"  # of the 2D labels in the files that the usual way reads
SPLITS: Final = {"datasets_2d": "flat/train", "datasets_3d": "body/train", "motion": "mocap/train"}
COLUMNS: Final = {
    "datasets_2d": ("frame_index", "bbox", "kp_2d"),
    "datasets_3d": (
        "frame_index",
        "bbox",
        "kp_2d",
        "kp_3d",
        "has_3d",
        "pose",
        "betas",
        "has_smpl",
        "valid",
    ),
    "motion": ("frame_index", "pose", "betas", "has_smpl"),
}
Floats = dict[str, NDArray[Any]]
Terms = Mapping[str, float]  # losses by name


def main() -> None:
    """Compare, measure, print, write the report."""
    options = parser(__doc__, at="the cache")
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=8, help="of each way in each round")
    options.add_argument("--agree", type=int, default=10, help="steps whose losses are compared")
    options.add_argument(
        "--tracks", type=int, default=128, help="of 128 frames, in each of three splits"
    )
    options.add_argument("--small", action="store_true", help="small networks, 2 rounds of 2 steps")
    args = options.parse_args()
    if args.small:
        args.rounds, args.steps, args.agree, args.tracks = 2, 2, 2, 4
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        lines = measure(Path(folder), args)
    about = "DEMO DATA: random labels and features, the procedural body; no result about VIBE."
    report(about, "How fast is a step of VIBE's training?", lines, args)


def measure(root: Path, args: argparse.Namespace) -> list[str]:
    """Steps a second of each way, in turns, after their losses were compared."""
    make_cache(root, args.tracks)
    sizes: Any = {"hidden_size": 16, "regressor_size": 16, "disc_size": 16} if args.small else {}
    parts: Any = {part: (name,) for part, name in SPLITS.items()}
    config = TrainConfig(cache=root, device=args.device, iterations=10**6, **parts, **sizes)
    opened, body, device = cache.open(root), Body.stand_in(), torch.device(args.device)
    batches = TrainingBatches(config, {name: opened[name] for name in SPLITS.values()})
    databases = {part: Database(opened[name], config.seqlen) for part, name in SPLITS.items()}

    def usual_batches(stop: int) -> Iterator[tuple[Any, ...]]:
        """The windows that `batches` would give in these steps, in three loaders."""
        picks = [batches.mixture.draw(step) for step in range(stop)]
        loaders: list[Any] = []
        for part, database in databases.items():
            rows: Any = [[int(row) for pick in step[part] for row in pick.starts] for step in picks]
            loaders.append(
                DataLoader(database, batch_sampler=rows, num_workers=int(part != "motion"))
            )
        return zip(*loaders, strict=True)

    ours = {
        FP32: VIBETrainer(replace(config, precision="fp32"), body, ProcessGroup(device=device)),
        BF16: VIBETrainer(replace(config, precision="bf16"), body, ProcessGroup(device=device)),
    }
    usual = UsualTrainer(config, body, device, ours[FP32])
    compared = list(usual_batches(args.agree))
    steps: dict[str, Callable[[int], Terms]] = {USUAL: lambda i: usual.train_step(*compared[i])}
    for way, trainer in ours.items():
        steps[way] = lambda i, t=trainer: t.train_step(on_device(batches[i], device)).terms  # type: ignore[misc]
    trainers: list[Any] = [usual, *ours.values()]
    networks = [
        network for trainer in trainers for network in (trainer.generator, trainer.discriminator)
    ]
    differences = agreement(steps, networks, args.agree)

    sources: dict[str, Any] = {way: stream_batches(batches, 0, device=device) for way in ours}
    usual_source = usual_batches(args.rounds * (args.steps + 1))
    turns: dict[str, Callable[[], float]] = {
        USUAL: lambda: timed(usual_source, lambda b: usual.train_step(*b))
    }
    for way, trainer in ours.items():
        turns[way] = partial(timed, sources[way], trainer.train_step)
    with closing(sources[FP32]), closing(sources[BF16]):
        return [*in_turns(turns, args), *differences]


def make_cache(root: Path, n_tracks: int) -> None:
    """Write three splits of random numbers in a plausible range: their values do not affect the
    measurement.
    """
    for seed, (part, split) in enumerate(SPLITS.items()):
        rng = np.random.default_rng(seed)
        write_split(root, split, COLUMNS[part], (random_labels(rng) for _ in range(n_tracks)))
        if part != "motion":
            features = rng.standard_normal((n_tracks * TRACK, 2048), np.float32)
            # Like a ResNet's after its ReLU and its pool: not negative, 0.4 on average.
            write_stream(root, split, "resnet50", 2048, np.abs(features / 2).__getitem__)


def random_labels(rng: np.random.Generator) -> Floats:
    """The columns of one track."""
    keypoints = np.concatenate(
        [rng.uniform(100, 400, (TRACK, 25, 2)), rng.random((TRACK, 25, 1))], axis=-1
    )
    kp_3d = np.ones((TRACK, 49, 4), np.float32)
    kp_3d[..., :3] = rng.standard_normal((TRACK, 49, 3)) * 0.3
    moving = rng.standard_normal((TRACK, 82)).cumsum(0) * 0.01
    theta = (rng.standard_normal((1, 82)) * 0.2 + moving).astype(np.float32)
    return {
        "frame_index": np.arange(TRACK),
        "bbox": np.tile(np.array([250, 250, 300, 300], np.float32), (TRACK, 1)),
        "kp_2d": convert(keypoints.astype(np.float32), source=SKELETON, target="spin49"),
        "kp_3d": kp_3d,
        "pose": theta[:, :72],
        "betas": theta[:, 72:],
        **dict.fromkeys(("has_3d", "has_smpl", "valid"), np.ones(TRACK, bool)),
    }


def agreement(
    ways: Mapping[str, Callable[[int], Terms]], networks: Sequence[nn.Module], n_steps: int
) -> list[str]:
    """Table of differences between losses without dropout. Ends the benchmark if those in float32
    differ.

    ways: functions from a step's number to its losses, the usual way first.
    """
    dropouts = [
        module for net in networks for module in net.modules() if isinstance(module, nn.Dropout)
    ]
    usual_p = [module.p for module in dropouts]
    for module in dropouts:
        module.p = 0.0
    worst: dict[str, dict[str, float]] = {way: {} for way in ways if way != USUAL}
    for step in range(n_steps):
        terms = {way: take(step) for way, take in ways.items()}
        for way, (name, value) in itertools.product(worst, terms[USUAL].items()):
            worst[way][name] = max(worst[way].get(name, 0.0), abs(terms[way][name] / value - 1))
    for module, p in zip(dropouts, usual_p, strict=True):
        module.p = p
    if wrong := {name: off for name, off in worst[FP32].items() if not off <= AGREEMENT}:
        raise SystemExit(
            f"losses differ from the usual way's: {wrong}, relative; expected at most {AGREEMENT}"
        )
    rows = ((name, *(f"{by_name[name]:.1e}" for by_name in worst.values())) for name in worst[FP32])
    about = f"The largest relative difference of a loss from the usual way's in {n_steps} steps:"
    return ["", about, "", *table(("", *worst), rows)]


def in_turns(turns: Mapping[str, Callable[[], float]], args: argparse.Namespace) -> list[str]:
    """Table of steps a second. turns: by way, a step that returns the seconds that it waited for
    data.
    """
    rates: dict[str, list[float]] = {way: [] for way in turns}
    waiting: dict[str, list[float]] = {way: [] for way in turns}  # share of the time
    synchronise: Callable[[], None] = (
        torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
    )
    for _, (way, turn) in itertools.product(range(args.rounds), turns.items()):
        turn()  # warms up what other ways have pushed out of caches
        synchronise()
        began = time.perf_counter()
        waited = sum(turn() for _ in range(args.steps))
        synchronise()
        elapsed = time.perf_counter() - began
        rates[way].append(args.steps / elapsed)
        waiting[way].append(waited / elapsed)
    rows = []
    for way, of_way in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(of_way, rates[USUAL], strict=True)]
        rows.append(
            (way, spread(of_way), spread(ratios), f"{100 * statistics.median(waiting[way]):.2f}%")
        )
    return [*table(("", "steps/s", "times usual", "waits for data"), rows)]


def timed(source: Iterator[Any], train_step: Callable[[Any], object]) -> float:
    """Take one step. Return the seconds that it waited for its batch."""
    began = time.perf_counter()
    batch = next(source)
    waited = time.perf_counter() - began
    train_step(batch)
    return waited


# --------------------------------------------------------------------------------------------------
# the usual way


class Database(Dataset[Floats]):
    """A split in memory, float32, as its file had it; item `start` is the window that begins in
    that row.
    """

    def __init__(self, split: cache.Split, seqlen: int) -> None:
        self._seqlen = seqlen
        stop = max(track.stop for track in split.tracks)
        self._rows = {name: split.rows(name, 0, stop) for name in split.columns}
        if "resnet50" in split.streams:
            self._rows["features"] = split.rows("features/resnet50", 0, stop).astype(np.float32)
            own = [JOINTS["spin49"].index(name) for name in JOINTS[SKELETON]]
            self._rows["joints2D"] = self._rows["kp_2d"][:, own]

    def __getitem__(self, start: int) -> Floats:
        rows = {name: array[start : start + self._seqlen] for name, array in self._rows.items()}
        item = {
            "features": rows.get("features", np.zeros((self._seqlen, 0), np.float32)),
            **{name: np.zeros((self._seqlen, 49, 3), np.float32) for name in ("kp_2d", "kp_3d")},
            "theta": np.zeros((self._seqlen, 85), np.float32),
            **{name: np.zeros(self._seqlen, np.float32) for name in ("w_3d", "w_smpl", "valid")},
            "frame_index": rows["frame_index"].astype(np.int64),
        }
        item["theta"][:, 0] = 1
        for t in range(self._seqlen):
            if "joints2D" in rows:
                joints = convert(rows["joints2D"][t], source=SKELETON, target="spin49")
                item["kp_2d"][t] = normalise_keypoints(joints, rows["bbox"][t])
            if "pose" in rows:
                item["theta"][t, 3:75], item["theta"][t, 75:] = rows["pose"][t], rows["betas"][t]
                item["w_smpl"][t] = rows["has_smpl"][t]
            if "kp_3d" in rows:
                item["kp_3d"][t], item["w_3d"][t] = rows["kp_3d"][t, :, :3], rows["has_3d"][t]
                item["valid"][t] = rows["valid"][t]
        return item


class Generator(nn.Module):
    """VIBE as in the paper, with the parameter names of its checkpoints."""

    def __init__(self, config: TrainConfig, body: Body) -> None:
        super().__init__()
        size, width = config.feature_size, config.regressor_size
        gru = nn.GRU(size, config.hidden_size, config.n_layers, batch_first=True)
        self.encoder = nn.ModuleDict({"gru": gru, "linear": nn.Linear(config.hidden_size, size)})
        layers: dict[str, nn.Module] = {"fc1": nn.Linear(size + 157, width), "drop1": nn.Dropout()}
        layers |= {"fc2": nn.Linear(width, width), "drop2": nn.Dropout()}
        layers |= {
            f"dec{name}": nn.Linear(width, n_out)
            for name, n_out in (("pose", 144), ("shape", 10), ("cam", 3))
        }
        self.regressor = nn.ModuleDict(layers)
        for name, mean in (
            ("pose", body.mean_pose),
            ("shape", body.mean_shape),
            ("cam", body.mean_cam),
        ):
            self.regressor.register_buffer(f"init_{name}", mean[None].clone())
        self.body = body

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        n_windows, n_frames = features.shape[:2]
        encoded = features + self.encoder["linear"](torch.relu(self.encoder["gru"](features)[0]))
        net, x = self.regressor, encoded.reshape(n_windows * n_frames, -1)
        pose, shape, camera = (
            getattr(net, f"init_{name}").expand(len(x), -1) for name in ("pose", "shape", "cam")
        )
        for _ in range(3):
            state = torch.cat([x, pose, shape, camera], dim=1)
            state = net["drop2"](net["fc2"](net["drop1"](net["fc1"](state))))
            pose, shape = pose + net["decpose"](state), shape + net["decshape"](state)
            camera = camera + net["deccam"](state)
        rotmat = rotation_6d_to_matrix(pose.reshape(-1, 24, 6))
        verts, joints = self.body(betas=shape, rotmat=rotmat)
        theta = torch.cat([camera, matrix_to_axis_angle(rotmat).flatten(1), shape], dim=1)
        out = {
            "theta": theta,
            "verts": verts,
            "kp_2d": project(joints, camera),
            "kp_3d": joints,
            "rotmat": rotmat,
        }
        return {
            name: value.reshape(n_windows, n_frames, *value.shape[1:])
            for name, value in out.items()
        }


class Discriminator(nn.Module):
    """The motion discriminator with self-attention."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        size, n_layers = config.disc_size, config.attention_layers
        self.gru = nn.GRU(69, size, config.disc_layers, batch_first=True)
        sizes = [size] * (n_layers - 1) + [1]
        layers = [
            [nn.Linear(size, n), nn.Tanh(), nn.Dropout(config.attention_dropout)] for n in sizes
        ]
        self.attention = nn.ModuleDict({"attention": nn.Sequential(*itertools.chain(*layers))})
        self.fc = nn.Linear(size, 1)

    def forward(self, motion: Tensor) -> Tensor:
        states = self.gru(motion)[0]
        weights = torch.softmax(self.attention["attention"](states), dim=1)
        score: Tensor = self.fc((weights * states).sum(1))
        return score


class UsualTrainer:
    """Both networks and their optimisers, with our parameters."""

    def __init__(
        self, config: TrainConfig, body: Body, device: torch.device, like: VIBETrainer
    ) -> None:
        self._weights, self._device = config.weights, device
        self.generator, self.discriminator = (
            Generator(config, body).to(device),
            Discriminator(config).to(device),
        )
        assert like.discriminator is not None
        self.generator.load_state_dict(like.generator.state_dict())
        self.discriminator.load_state_dict(like.discriminator.state_dict())
        decay = config.weight_decay_discriminator
        self._optimisers = (
            torch.optim.Adam(self.generator.parameters(), config.lr_generator, **PLAIN),
            torch.optim.Adam(
                self.discriminator.parameters(),
                config.lr_discriminator,
                weight_decay=decay,
                **PLAIN,
            ),
        )

    def train_step(
        self,
        batch_2d: Mapping[str, Tensor],
        batch_3d: Mapping[str, Tensor],
        real: Mapping[str, Tensor],
    ) -> dict[str, float]:
        """Take one step. Return the weighted terms."""
        batch = {
            name: torch.cat([batch_2d[name], batch_3d[name]]).to(self._device) for name in batch_2d
        }
        batch["w_3d"][: len(batch_2d["w_3d"])] = batch["w_smpl"][: len(batch_2d["w_smpl"])] = 0
        pred = self.generator(batch["features"])
        fake, genuine = pred["theta"][..., 6:75], real["theta"].to(self._device)[..., 6:75]
        terms = losses.generator_losses(pred, batch, self._weights)
        scores = (
            self.discriminator(fake),
            self.discriminator(genuine),
            self.discriminator(fake.detach()),
        )
        sides = losses.adversarial_terms(*scores, self._weights)
        terms["adversarial"] = sides.pop("adversarial")
        for optimiser, of_it in zip(self._optimisers, (terms, sides), strict=True):
            optimiser.zero_grad()
            sum(of_it.values(), torch.zeros((), device=self._device)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return {name: float(term.detach()) for name, term in (terms | sides).items()}


if __name__ == "__main__":
    main()
