"""How fast is a training step, beside the usual way?

    .venv/bin/python benchmarks/training.py --out benchmarks/training.md
    .venv/bin/python benchmarks/training.py --model hmmr
    .venv/bin/python benchmarks/training.py --model part_dynamics

Networks of the published sizes and the procedural body. First, with dropout off and from equal parameters, all ways
take the same steps with the same windows: the losses of float32 must agree to 1e-4 (of HMMR each parameter's gradient
in the first step to 1e-3, too), or the benchmark ends. Then they train in turns, A B C A B C; reported is the median
round with the lowest and the highest, and ratios within rounds. `--small` makes all of it tiny, to see that it works.

VIBE: batches of 32 windows of 16 frames, 19 of them with 2D labels alone, and 32 of real motion, from a cache of random
labels and features. Ours in fp32 and bf16, `VIBETrainer.train_step` on what `training.data.stream` gives, as
`training.run` does it. Usual: databases of whole datasets in memory; loaders of 2D, of 3D and of real motion, whose
items are one window of eight arrays each, converted when it is asked for; torch's own GRU; every vertex of the body;
the discriminator forwards three times, with gradients of all that takes part; Adam, one parameter after the other.

HMMR: 8 windows of 20 frames, 4 of them with 2D labels alone, and 960 real poses, from the same cache, without jittered
copies. Both ways read by the same reader: the ratio is of computing alone. Usual: nn.Conv1d and nn.GroupNorm; feature
and state side by side in each correction; six sets of bodies one after the other, every vertex of them; discriminator
and Adam as above. Losses and cameras, which are small, are ours.

Part dynamics: 32 windows of 16 frames with all labels, random numbers in memory. Usual: the gated convolutions by loops
over regions and taps (nn.functional.conv1d for what a region is given of the others); every vertex of every body; Adam
as above. "Loops" has the loops alone.
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
from types import MethodType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import cache
from pipeline.body import Body
from pipeline.crops import normalise_keypoints
from pipeline.skeletons import JOINTS, convert
from vibe_extensions.hmmr import losses as hmmr_losses
from vibe_extensions.hmmr.config import HMMRConfig
from vibe_extensions.hmmr.discriminator import PoseDiscriminator
from vibe_extensions.hmmr.generator import Sets
from vibe_extensions.hmmr.training import HMMRTrainer, real_poses
from vibe_extensions.part_dynamics import losses as part_losses
from vibe_extensions.part_dynamics.config import HISTORY, PartDynamicsConfig
from vibe_extensions.part_dynamics.decoder import RegionConvolution
from vibe_extensions.part_dynamics.generator import pose_neighbours
from vibe_extensions.part_dynamics.pr_vipe.network import PrVIPE
from vibe_extensions.part_dynamics.pr_vipe.training import STATE
from vibe_extensions.part_dynamics.training import SUPERVISED, PartDynamicsTrainer
from vibe_model import TrainConfig, losses
from vibe_model.cameras import project, project_orthographic
from vibe_model.rotations import axis_angle_to_matrix, matrix_to_axis_angle, rotation_6d_to_matrix
from vibe_model.training.data import TrainingBatch, TrainingBatches, on_device, stream
from vibe_model.training.parallel import ProcessGroup
from vibe_model.training.video import VideoRun
from vibe_model.vibe.training import VIBETrainer

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, spread, table

USUAL, FP32, BF16 = "usual", "ours, fp32", "ours, bf16"
LOOPS: Final = "loops over regions"
AGREEMENT: Final = 1e-4  # relative, of float32
GRADIENTS_AGREE: Final = 1e-3
PLAIN: Final[Mapping[str, Any]] = {"foreach": False, "fused": False}  # of Adam: one parameter after the other
TRACK: Final = 128  # frames
SKELETON: Final = "body_25"  # of the 2D labels in the files that the usual way reads
SPLITS: Final = {"datasets_2d": "flat/train", "datasets_3d": "body/train", "motion": "mocap/train"}
COLUMNS: Final = {
    "datasets_2d": ("frame_index", "bbox", "kp_2d"),
    "datasets_3d": ("frame_index", "bbox", "kp_2d", "kp_3d", "has_3d", "pose", "betas", "has_smpl", "valid"),
    "motion": ("frame_index", "pose", "betas", "has_smpl"),
}
Floats = dict[str, NDArray[Any]]
Terms = Mapping[str, Any]  # losses by name


def main() -> None:
    """Compare, measure, print, write the report."""
    options = parser(__doc__, at="the cache")
    options.add_argument("--model", choices=list(MODELS), default="vibe")
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, help="of each way in each round; 8 of VIBE, 1 of others")
    options.add_argument("--agree", type=int, help="steps whose losses are compared; 10 of VIBE, 2 of others")
    options.add_argument("--tracks", type=int, default=128, help="of 128 frames, in each of three splits")
    options.add_argument("--small", action="store_true", help="small networks or short windows, 2 rounds")
    args = options.parse_args()
    title, measure, steps, agree = MODELS[args.model]
    args.steps, args.agree = args.steps or steps, args.agree or agree
    if args.small:
        args.rounds, args.steps, args.agree, args.tracks = 2, min(2, steps), 2, 4
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        lines = measure(Path(folder), args)
    about = f"DEMO DATA: random labels and features, the procedural body; no result about {title}."
    report(about, f"How fast is a step of {title}'s training?", lines, args)


def agreement(
    ways: Mapping[str, Callable[[int], Terms]],
    networks: Sequence[nn.Module],
    n_steps: int,
    after_first: Callable[[], None] = lambda: None,
) -> list[str]:
    """A table of how losses differ over some steps without dropout. Ends the benchmark where float32's do.

    ways: what takes a step of this number and returns its losses, the usual way first.
    """
    dropouts = [module for net in networks for module in net.modules() if isinstance(module, nn.Dropout)]
    usual_p = [module.p for module in dropouts]
    for module in dropouts:
        module.p = 0.0
    worst: dict[str, dict[str, float]] = {way: {} for way in ways if way != USUAL}
    for step in range(n_steps):
        terms = {way: take(step) for way, take in ways.items()}
        for way, (name, value) in itertools.product(worst, terms[USUAL].items()):
            off = abs(float(terms[way][name]) / float(value) - 1)
            worst[way][name] = max(worst[way].get(name, 0.0), off)
        if step == 0:
            after_first()
    for module, p in zip(dropouts, usual_p, strict=True):
        module.p = p
    exact = {f"{way}, {name}": off for way, of in worst.items() if way != BF16 for name, off in of.items()}
    if wrong := {name: off for name, off in exact.items() if not off <= AGREEMENT}:
        raise SystemExit(f"other losses than the usual way's: {wrong}, relative; expected at most {AGREEMENT}")
    rows = ((name, *(f"{by_name[name]:.1e}" for by_name in worst.values())) for name in worst[FP32])
    about = f"The largest relative difference of a loss from the usual way's in {n_steps} steps:"
    return ["", about, "", *table(("", *worst), rows)]


def in_turns(turns: Mapping[str, Callable[[], float]], args: argparse.Namespace) -> list[str]:
    """A table of steps a second. turns: by way, a step that returns the seconds that it waited for data."""
    rates: dict[str, list[float]] = {way: [] for way in turns}
    waiting: dict[str, list[float]] = {way: [] for way in turns}  # share of the time
    synchronise: Callable[[], None] = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
    for _, (way, turn) in itertools.product(range(args.rounds), turns.items()):
        turn()  # warms up what others have pushed out of caches
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
        rows.append((way, spread(of_way), spread(ratios), f"{100 * statistics.median(waiting[way]):.2f}%"))
    return [*table(("", "steps/s", "times usual", "waits for data"), rows)]


def timed(source: Iterator[Any], train_step: Callable[[Any], object]) -> float:
    """One step. Returns the seconds that it waited for its batch."""
    began = time.perf_counter()
    batch = next(source)
    waited = time.perf_counter() - began
    train_step(batch)
    return waited


def make_cache(root: Path, n_tracks: int) -> None:
    """Three splits of random numbers of a sensible size: what is measured does not depend on them."""
    for seed, (part, split) in enumerate(SPLITS.items()):
        rng = np.random.default_rng(seed)
        with cache.SplitWriter(root, split, columns=COLUMNS[part], plan="random") as writer:
            writer.begin()
            for number in range(n_tracks):
                keypoints = np.concatenate([rng.uniform(100, 400, (TRACK, 25, 2)), rng.random((TRACK, 25, 1))], axis=-1)
                kp_3d = np.ones((TRACK, 49, 4), np.float32)
                kp_3d[..., :3] = rng.standard_normal((TRACK, 49, 3)) * 0.3
                moving = rng.standard_normal((TRACK, 82)).cumsum(0) * 0.01
                theta = (rng.standard_normal((1, 82)) * 0.2 + moving).astype(np.float32)
                labels: Floats = {
                    "frame_index": np.arange(TRACK),
                    "bbox": np.tile(np.array([250, 250, 300, 300], np.float32), (TRACK, 1)),
                    "kp_2d": convert(keypoints.astype(np.float32), source=SKELETON, target="spin49"),
                    "kp_3d": kp_3d,
                    "pose": theta[:, :72],
                    "betas": theta[:, 72:],
                    **dict.fromkeys(("has_3d", "has_smpl", "valid"), np.ones(TRACK, bool)),
                }
                video, rows = f"{number:06d}", {name: labels[name] for name in COLUMNS[part]}
                facts: Any = {"name": f"{video}/0", "video": video, "step": 1, "fps": 25.0, "crop_scale": 1.3}
                writer.append(cache.VideoEntry(name=video), [cache.TrackRows(**facts, columns=rows)])
            writer.commit({"stand_in": True})
        if part != "motion":
            with cache.StreamWriter(root, split, "resnet50", dim=2048, plan="random") as features:
                for shard in features.pending:
                    numbers = np.asarray(features.rows(shard))
                    # As of a ResNet after its ReLU and its pool: not negative, 0.4 in the mean.
                    values = np.abs(rng.standard_normal((len(numbers), 2048), np.float32)) * np.float32(0.5)
                    keys = np.stack([numbers, numbers], axis=1).astype(np.uint64)
                    features.write(shard, values.astype(np.float16), np.ones(len(numbers), bool), keys)
                features.commit({"stand_in": True})


# ---------------------------------------------------------------------------------------------------------------- VIBE


def vibe(root: Path, args: argparse.Namespace) -> list[str]:
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
            loaders.append(DataLoader(database, batch_sampler=rows, num_workers=int(part != "motion")))
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
    networks = [network for trainer in trainers for network in (trainer.generator, trainer.discriminator)]
    differences = agreement(steps, networks, args.agree)

    sources: dict[str, Any] = {way: stream(batches, 0, device=device) for way in ours}
    usual_source = usual_batches(args.rounds * (args.steps + 1))
    turns: dict[str, Callable[[], float]] = {USUAL: lambda: timed(usual_source, lambda b: usual.train_step(*b))}
    for way, trainer in ours.items():
        turns[way] = partial(timed, sources[way], trainer.train_step)
    with closing(sources[FP32]), closing(sources[BF16]):
        return [*in_turns(turns, args), *differences]


class Database(Dataset[Floats]):
    """All of a split in memory, float32, as its file had it; item `start` is the window that begins in that row."""

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
    """VIBE by the paper, with the names of its checkpoints."""

    def __init__(self, config: TrainConfig, body: Body) -> None:
        super().__init__()
        size, width = config.feature_size, config.regressor_size
        gru = nn.GRU(size, config.hidden_size, config.n_layers, batch_first=True)
        self.encoder = nn.ModuleDict({"gru": gru, "linear": nn.Linear(config.hidden_size, size)})
        layers: dict[str, nn.Module] = {"fc1": nn.Linear(size + 157, width), "drop1": nn.Dropout()}
        layers |= {"fc2": nn.Linear(width, width), "drop2": nn.Dropout()}
        layers |= {f"dec{name}": nn.Linear(width, n_out) for name, n_out in (("pose", 144), ("shape", 10), ("cam", 3))}
        self.regressor = nn.ModuleDict(layers)
        for name, mean in (("pose", body.mean_pose), ("shape", body.mean_shape), ("cam", body.mean_cam)):
            self.regressor.register_buffer(f"init_{name}", mean[None].clone())
        self.body = body

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        n_windows, n_frames = features.shape[:2]
        encoded = features + self.encoder["linear"](torch.relu(self.encoder["gru"](features)[0]))
        net, x = self.regressor, encoded.reshape(n_windows * n_frames, -1)
        pose, shape, camera = (getattr(net, f"init_{name}").expand(len(x), -1) for name in ("pose", "shape", "cam"))
        for _ in range(3):
            state = torch.cat([x, pose, shape, camera], dim=1)
            state = net["drop2"](net["fc2"](net["drop1"](net["fc1"](state))))
            pose, shape = pose + net["decpose"](state), shape + net["decshape"](state)
            camera = camera + net["deccam"](state)
        rotmat = rotation_6d_to_matrix(pose.reshape(-1, 24, 6))
        verts, joints = self.body(betas=shape, rotmat=rotmat)
        theta = torch.cat([camera, matrix_to_axis_angle(rotmat).flatten(1), shape], dim=1)
        out = {"theta": theta, "verts": verts, "kp_2d": project(joints, camera), "kp_3d": joints, "rotmat": rotmat}
        return {name: value.reshape(n_windows, n_frames, *value.shape[1:]) for name, value in out.items()}


class Discriminator(nn.Module):
    """The motion discriminator with self-attention."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        size, n_layers = config.disc_size, config.attention_layers
        self.gru = nn.GRU(69, size, config.disc_layers, batch_first=True)
        sizes = [size] * (n_layers - 1) + [1]
        layers = [[nn.Linear(size, n), nn.Tanh(), nn.Dropout(config.attention_dropout)] for n in sizes]
        self.attention = nn.ModuleDict({"attention": nn.Sequential(*itertools.chain(*layers))})
        self.fc = nn.Linear(size, 1)

    def forward(self, motion: Tensor) -> Tensor:
        states = self.gru(motion)[0]
        weights = torch.softmax(self.attention["attention"](states), dim=1)
        score: Tensor = self.fc((weights * states).sum(1))
        return score


class UsualTrainer:
    """Both networks and their optimisers, from the parameters of ours."""

    def __init__(self, config: TrainConfig, body: Body, device: torch.device, like: VIBETrainer) -> None:
        self._weights, self._device = config.weights, device
        self.generator, self.discriminator = Generator(config, body).to(device), Discriminator(config).to(device)
        assert like.discriminator is not None
        self.generator.load_state_dict(like.generator.state_dict())
        self.discriminator.load_state_dict(like.discriminator.state_dict())
        decay = config.weight_decay_discriminator
        self._optimisers = (
            torch.optim.Adam(self.generator.parameters(), config.lr_generator, **PLAIN),
            torch.optim.Adam(self.discriminator.parameters(), config.lr_discriminator, weight_decay=decay, **PLAIN),
        )

    def train_step(
        self, batch_2d: Mapping[str, Tensor], batch_3d: Mapping[str, Tensor], real: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """One step. Returns the weighted terms."""
        batch = {name: torch.cat([batch_2d[name], batch_3d[name]]).to(self._device) for name in batch_2d}
        batch["w_3d"][: len(batch_2d["w_3d"])] = batch["w_smpl"][: len(batch_2d["w_smpl"])] = 0
        pred = self.generator(batch["features"])
        fake, genuine = pred["theta"][..., 6:75], real["theta"].to(self._device)[..., 6:75]
        terms = losses.generator_losses(pred, batch, self._weights)
        scores = self.discriminator(fake), self.discriminator(genuine), self.discriminator(fake.detach())
        sides = losses.adversarial_terms(*scores, self._weights)
        terms["adversarial"] = sides.pop("adversarial")
        for optimiser, of_it in zip(self._optimisers, (terms, sides), strict=True):
            optimiser.zero_grad()
            sum(of_it.values(), torch.zeros((), device=self._device)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return {name: float(term.detach()) for name, term in (terms | sides).items()}


# ---------------------------------------------------------------------------------------------------------------- HMMR


def hmmr(root: Path, args: argparse.Namespace) -> list[str]:
    """Steps a second of both ways, and how they differ."""
    sizes: Any = {part: (name,) for part, name in SPLITS.items()} | {"validation": ("body/train",), "evaluation": ()}
    sizes |= {"batch_size": 2, "seqlen": 8} if args.small else {}
    make_cache(root, args.tracks)
    config = HMMRConfig(cache=root, runs=root, device=args.device, iterations=10**6, **sizes)
    body, group, gradient = Body.stand_in(), ProcessGroup(device=torch.device(args.device)), list[float]()
    ours = HMMRTrainer(config, body, group)
    usual = UsualHMMR(config, body, ours)
    run = VideoRun(config, ours, cache.open(root), stand_in=True, report=None)
    with closing(run.batches(0)) as source:
        batches = list(itertools.islice(source, args.agree))
        steps: dict[str, Callable[[int], Terms]] = {
            USUAL: lambda i: usual.train_step(batches[i]),
            FP32: lambda i: ours.train_step(batches[i]).terms,
        }
        networks = [usual.generator, ours.generator]
        lines = agreement(steps, networks, args.agree, lambda: gradient.extend(gradients_off(usual, ours)))
        if not max(gradient) <= GRADIENTS_AGREE:
            raise SystemExit(f"gradients differ by {max(gradient):.1e}; expected at most {GRADIENTS_AGREE:g}")
        lines += ["", f"Of a parameter's gradient in the first step: {max(gradient):.1e}."]
        trainers: dict[str, Any] = {USUAL: usual, FP32: ours}
        turns = {way: partial(timed, source, trainer.train_step) for way, trainer in trainers.items()}
        return [*in_turns(turns, args), *lines]


def gradients_off(usual: UsualHMMR, ours: HMMRTrainer) -> Iterator[float]:
    """Of each parameter's gradients, relative to the usual one's norm."""
    for network, own in ((usual.generator, ours.generator), (usual.discriminator, ours.discriminator)):
        assert own is not None
        for name, parameter in network.named_parameters():
            expected, found = parameter.grad, own.get_parameter(name).grad
            assert expected is not None and found is not None
            yield float((found - expected).norm() / expected.norm())


class Block(nn.Module):
    """One of the encoder's, (B, F, T)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, size, eps=1e-6), nn.GroupNorm(32, size, eps=1e-6)
        self.conv1, self.conv2 = nn.Conv1d(size, size, 3, padding=1), nn.Conv1d(size, size, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))
        return out


class Layers(nn.Module):
    """A regressor's three corrections of a state."""

    mean: nn.Parameter

    def __init__(self, config: HMMRConfig, n_state: int) -> None:
        super().__init__()
        width = config.regressor_size
        self.fc1, self.fc2 = nn.Linear(config.feature_size + n_state, width), nn.Linear(width, width)
        self.out, self.dropout = nn.Linear(width, n_state), nn.Dropout(config.dropout)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        for _ in range(3):
            hidden = self.dropout(torch.relu(self.fc1(torch.cat([x, state], dim=1))))
            state = state + self.out(self.dropout(torch.relu(self.fc2(hidden))))
        return state


class HMMRGenerator(nn.Module):
    """HMMR by the paper, with the names of our parameters."""

    def __init__(self, config: HMMRConfig, body: Body, mean: Tensor) -> None:
        super().__init__()
        size = config.feature_size
        self.temporal = nn.ModuleDict({"blocks": nn.Sequential(*(Block(size) for _ in range(3)))})
        self.regressor = Layers(config, 85)
        self.regressor.mean = nn.Parameter(mean.clone())
        self.deltas = nn.ModuleDict({"minus5": Layers(config, 72), "plus5": Layers(config, 72)})
        self.hallucinator = nn.ModuleDict({f"fc{i}": nn.Linear(size, size) for i in (1, 2, 3)})
        self.body = body

    def forward(self, features: Tensor) -> Sets:
        strip = self.temporal["blocks"](features.mT).mT
        h = self.hallucinator
        hallucination = features + h["fc3"](torch.relu(h["fc2"](torch.relu(h["fc1"](features)))))
        return Sets(strip, hallucination, self.bodies(strip), self.bodies(hallucination))

    def bodies(self, strip: Tensor) -> dict[Any, Any]:
        """Of each frame, and 5 frames before and after it."""
        x = strip.flatten(0, 1)
        camera, pose, shape = self.regressor(x, self.regressor.mean.expand(len(x), -1)).split([3, 72, 10], dim=1)
        still = torch.tensor([1.0, 0.0, 0.0], device=x.device).expand(len(x), 3)
        deltas = {
            dt: self.posed(still, self.deltas[name](x, pose), shape, strip)
            for dt, name in ((-5, "minus5"), (5, "plus5"))
        }
        return {**self.posed(camera, pose, shape, strip), "deltas": deltas}

    def posed(self, camera: Tensor, pose: Tensor, shape: Tensor, strip: Tensor) -> dict[str, Tensor]:
        rotmat = axis_angle_to_matrix(pose.reshape(-1, 24, 3))
        joints = self.body(betas=shape, rotmat=rotmat).joints
        out = {"theta": torch.cat([camera, pose, shape], dim=1), "kp_3d": joints, "rotmat": rotmat}
        out["kp_2d"] = project_orthographic(joints, camera)
        return {name: value.reshape(*strip.shape[:2], *value.shape[1:]) for name, value in out.items()}


class UsualHMMR:
    """Both networks and their optimisers, from the parameters of ours."""

    def __init__(self, config: HMMRConfig, body: Body, like: HMMRTrainer) -> None:
        assert like.discriminator is not None
        self._weights, device = config.weights, like.group.device
        start = like.generator.state_dict()
        self.generator = HMMRGenerator(config, body, start["regressor.mean"]).to(device)
        self.generator.load_state_dict(start)
        self.discriminator = PoseDiscriminator().to(device)
        self.discriminator.load_state_dict(like.discriminator.state_dict())
        self._optimisers = (
            torch.optim.Adam(self.generator.parameters(), config.lr_generator, **PLAIN),
            torch.optim.Adam(self.discriminator.parameters(), config.lr_discriminator, **PLAIN),
        )

    def train_step(self, batch: TrainingBatch) -> dict[str, float]:
        """One step. Returns the weighted terms."""
        sets = self.generator(batch.labels["features"].float())
        terms = hmmr_losses.supervised(sets, batch.labels, optimal_camera="trace", weights=self._weights)
        fake = hmmr_losses.rotations(sets)
        scores = [self.discriminator(poses) for poses in (fake, real_poses(batch), fake.detach())]
        terms["adversarial"] = self._weights["adversarial"] * hmmr_losses.adversarial(scores[0])
        own = {"discriminator": self._weights["discriminator"] * hmmr_losses.discriminator(*scores[1:])}
        for optimiser, of_it in zip(self._optimisers, (terms, own), strict=True):
            optimiser.zero_grad()
            sum(of_it.values(), torch.zeros((), device=fake.device)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return {name: float(value.detach()) for name, value in (terms | own).items()}


# ------------------------------------------------------------------------------------------------------- part dynamics


def part_dynamics(root: Path, args: argparse.Namespace) -> list[str]:
    """Steps a second of the three ways, and how they differ."""
    sizes: Any = {"batch_size": 2, "seqlen": 8, "width": 16} if args.small else {}
    torch.manual_seed(0)
    torch.save({STATE: PrVIPE().state_dict(), "stand_in": True}, root / "embedding.pt")
    config = PartDynamicsConfig(embedding=root / "embedding.pt", runs=root, device=args.device, **sizes)
    body, batch = Body.stand_in(), random_batch(config)
    ways = {USUAL: UsualParts(config, body), LOOPS: Loops(config, body), FP32: PartDynamicsTrainer(config, body)}
    for trainer in ways.values():
        trainer.generator.load_state_dict(ways[USUAL].generator.state_dict())
    steps: dict[str, Any] = {way: lambda _, t=trainer: t.train_step(batch).terms for way, trainer in ways.items()}
    lines = agreement(steps, [trainer.generator for trainer in ways.values()], args.agree)
    turns = {way: partial(timed, itertools.repeat(batch), trainer.train_step) for way, trainer in ways.items()}
    return [*in_turns(turns, args), *lines]


class Loops(PartDynamicsTrainer):
    """Ours, with the convolutions written out."""

    def __init__(self, config: PartDynamicsConfig, body: Body) -> None:
        super().__init__(config, body)
        for module in self.generator.modules():
            if isinstance(module, RegionConvolution):
                module.forward = MethodType(by_loops, module)  # type: ignore[method-assign]


class UsualParts(Loops):
    """And with every vertex, and with an optimiser that takes one parameter after the other."""

    def __init__(self, config: PartDynamicsConfig, body: Body) -> None:
        super().__init__(config, body)
        self.learners["generator"].optimiser = torch.optim.Adam(
            self.generator.parameters(), config.lr_generator, **PLAIN
        )

    def gradients(self, batch: TrainingBatch) -> dict[str, Tensor]:
        weights, labels, embedding = self.config.weights, batch.labels, self.embedding
        assert embedding is not None
        every = self.generator.regress_around(
            **{name: labels[name] for name in ("features", *self.config.extra_streams)}
        )
        current = self.generator.pose(every.pop(0))
        supervised = {name: weights[name] for name in SUPERVISED}
        terms = losses.generator_losses(current, labels, supervised)
        neighbours = pose_neighbours(self.generator.body, every)
        terms["neighbours"] = weights["neighbours"] * part_losses.neighbours(neighbours, labels, supervised)
        kp_2d = labels["kp_2d"]
        with torch.no_grad():
            normalised, known = PrVIPE.normalise(part_losses.keypoints_13(kp_2d[..., :2], kp_2d))
            labelled = torch.cat(embedding(normalised.flatten(0, 1)), dim=-1).view(*known.shape, -1)
        unsure = part_losses.uncertainty(embedding, part_losses.keypoints_13(current["kp_2d"], kp_2d), labelled, known)
        terms["uncertainty"] = weights["uncertainty"] * unsure
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}


def by_loops(convolution: RegionConvolution, states: Tensor) -> Tensor:
    """`RegionConvolution.forward`, recombination "multiply": (B, T, R, W) -> (B, T, R, W)."""
    n_frames, n_regions, width = states.shape[1:]
    kernel, dilation = convolution.kernel, convolution.dilation
    margin = (kernel - 1) // 2 * dilation
    padded = states[:, torch.arange(-margin, n_frames + margin, device=states.device).clamp(0, n_frames - 1)]
    context = []
    for region in range(n_regions):
        others = torch.cat([padded[:, :, other] for other in range(n_regions) if other != region], dim=-1).mT
        weight = convolution.context[region].transpose(2, 3).reshape(kernel, (n_regions - 1) * width, kernel)
        context.append(functional.conv1d(others, weight, convolution.context_bias[region], dilation=dilation))
    gates = convolution.context_norm(torch.cat(context, dim=1)).sigmoid()  # (B, R K, T)
    found = []
    for region, weights in enumerate(convolution.weight):
        out = torch.zeros_like(states[:, :, region])
        for tap, weight in enumerate(weights):
            at = padded[:, tap * dilation : tap * dilation + n_frames, region]
            out = out + (at * gates[:, region * kernel + tap, :, None]) @ weight
        found.append(out)
    return torch.stack(found, dim=2)


def random_batch(config: PartDynamicsConfig) -> TrainingBatch:
    """Windows of random numbers of a sensible size: what is measured does not depend on them."""
    size, random = (config.batch_size, config.seqlen), torch.randn
    ones = torch.ones(size)
    embedded = torch.cat([random(*size, 32), torch.rand(*size, 32) + 0.1], dim=-1)
    labels = {
        "features": random(*size, config.feature_size).abs() / 2,
        "pr_vipe": embedded,
        "homography": random(*size, 9 * (HISTORY + 1)) / 100,
        "kp_2d": torch.cat([random(*size, 49, 2) * 0.3, torch.ones(*size, 49, 1)], dim=-1),
        "kp_3d": random(*size, 49, 3) * 0.3,
        "theta": random(*size, 85) * 0.2,
        **dict.fromkeys(("pr_vipe_ok", "homography_ok", "w_3d", "w_smpl", "valid"), ones),
    }
    return TrainingBatch({name: value.to(config.device) for name, value in labels.items()}, None)


MODELS: Final = {  # title, what measures it, steps a round, steps that are compared
    "vibe": ("VIBE", vibe, 8, 10),
    "hmmr": ("HMMR", hmmr, 1, 2),
    "part_dynamics": ("part dynamics", part_dynamics, 1, 2),
}

if __name__ == "__main__":
    main()
