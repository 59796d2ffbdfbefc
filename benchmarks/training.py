"""Training: how fast is a step, and what is a mixture of datasets worth?

    .venv/bin/python benchmarks/training.py --out benchmarks/training.md
    make data && .venv/bin/python benchmarks/training.py --learn --out benchmarks/learning_mixture.md

Speed: networks of the published sizes, batches of 32 windows of 16 frames, 19 of them with 2D labels alone, and 32 of
real motion, from a cache of random labels and features with the procedural body. Three ways: "usual", below; ours in
fp32 and bf16, `VIBETrainer.train_step` on what `training.data.stream` gives, as `training.run` does it. First, with
dropout off and from equal parameters, all ways take the same steps with the same windows: the losses of float32 must
agree to 1e-4, or the benchmark ends. Then they train in turns, A B C A B C; reported is the median round with the
lowest and the highest, and ratios within rounds. `--small` makes all of it tiny, to see that it works.

Usual: databases of whole datasets in memory; loaders of 2D, of 3D and of real motion, whose items are one window of
eight arrays each, converted when it is asked for; torch's own GRU; every vertex of the body; the discriminator forwards
three times, with gradients of all that takes part; Adam, one parameter after the other.

Learning: all datasets together and each alone, once a seed, on what `make data` has made, by the `embedded` preset:
errors on motions and cameras that training never saw, beside the mean body's. All on demo data: no result
about VIBE.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
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
from pipeline.skeletons import JOINTS, convert
from vibe_model import TrainConfig, losses, runs, training
from vibe_model.cameras import project
from vibe_model.rotations import matrix_to_axis_angle, rotation_6d_to_matrix
from vibe_model.training.data import Batches, on_device, stream
from vibe_model.training.parallel import Group
from vibe_model.vibe.training import VIBETrainer

ROOT: Final = Path(__file__).parents[1]
USUAL, FP32, BF16 = WAYS = ("usual", "ours, fp32", "ours, bf16")
AGREEMENT: Final = 1e-4  # relative, of float32
TRACK: Final = 128  # frames
SKELETON: Final = "body_25"  # of the 2D labels in the files that the usual way reads
SPLITS: Final = {"datasets_2d": "flat/train", "datasets_3d": "body/train", "motion": "mocap/train"}
COLUMNS: Final = {
    "datasets_2d": ("frame_index", "bbox", "kp_2d"),
    "datasets_3d": ("frame_index", "bbox", "kp_2d", "kp_3d", "has_3d", "pose", "betas", "has_smpl", "valid"),
    "motion": ("frame_index", "pose", "betas", "has_smpl"),
}
EVALUATED: Final = ("3dpw/validation", "3dpw/test", "h36m/val", "mpi_inf_3dhp/test")
PAPER: Final = TrainConfig.paper()
Floats = dict[str, NDArray[Any]]


def main() -> None:
    """Measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="of each way in each round")
    parser.add_argument("--agree", type=int, default=10, help="steps whose losses are compared")
    parser.add_argument("--tracks", type=int, default=128, help="of 128 frames, in each of three splits")
    parser.add_argument("--small", action="store_true", help="networks of 16 numbers, 2 rounds of 2 steps")
    parser.add_argument("--at", type=Path, help="where to make the cache; a temporary folder by default")
    parser.add_argument("--learn", action="store_true", help="all datasets and each alone, instead of speed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=ROOT / "data/cache")
    parser.add_argument("--body", type=Path, default=ROOT / "data/embedded/body")
    parser.add_argument("--out", type=Path, help="write the report here, for example benchmarks/training.md")
    args = parser.parse_args()
    if args.small:
        args.rounds, args.steps, args.agree, args.tracks = 2, 2, 2, 4
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        title, table = (learning if args.learn else speed)(Path(folder), args)
    report("DEMO DATA, no result about VIBE.", title, table, args)


def report(about: str, title: str, table: list[str], args: argparse.Namespace) -> None:
    """Print a table with its command, date and machine, and write it to `args.out`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else "no GPU used"
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory:.0f} GiB, {gpu}"
    software = f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    command = " ".join((f".venv/bin/python benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]))
    lines = [f"# {title}", "", f"{about} Made by `{command}`.", ""]
    lines += [f"{datetime.date.today()}, {machine}, {software}.", "", *table, ""]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines))


def speed(root: Path, args: argparse.Namespace) -> tuple[str, list[str]]:
    """Steps a second of each way, in turns, after their losses were compared."""
    make_cache(root, args.tracks)
    sizes: Any = {"hidden_size": 16, "regressor_size": 16, "disc_size": 16} if args.small else {}
    parts: Any = {part: (name,) for part, name in SPLITS.items()}
    config = TrainConfig(cache=root, device=args.device, iterations=10**6, **parts, **sizes)
    opened, body, device = cache.open(root), Body.stand_in(), torch.device(args.device)
    batches = Batches(config, {name: opened[name] for name in SPLITS.values()})
    databases = {part: Database(opened[name], config.seqlen) for part, name in SPLITS.items()}

    def usual_batches(stop: int) -> Iterator[tuple[Any, ...]]:
        """The windows that `batches` would give in these steps, in three loaders."""
        picks = [batches.mixture.draw(step) for step in range(stop)]
        loaders: list[Any] = []
        for part, database in databases.items():
            rows: Any = [[int(row) for pick in step[part] for row in pick.starts] for step in picks]
            loaders.append(DataLoader(database, batch_sampler=rows, num_workers=int(part != "motion")))
        return zip(*loaders, strict=True)

    def trainers() -> tuple[UsualTrainer, dict[str, VIBETrainer]]:
        ours = {
            way: VIBETrainer(replace(config, precision=way.rpartition(" ")[2]), body, Group(device=device))
            for way in (FP32, BF16)
        }
        return UsualTrainer(config, body, device, ours[FP32]), ours

    usual, ours = trainers()
    networks: list[Any] = [usual.generator, usual.discriminator]
    networks += [network for trainer in ours.values() for network in (trainer.generator, trainer.discriminator)]
    for module in itertools.chain.from_iterable(network.modules() for network in networks):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    worst: dict[str, dict[str, float]] = {way: {} for way in ours}
    for step, batch in enumerate(usual_batches(args.agree)):
        expected = usual.train_step(*batch)
        for way, trainer in ours.items():
            found = trainer.train_step(on_device(batches.at(step), device)).terms
            for name, value in expected.items():
                worst[way][name] = max(worst[way].get(name, 0.0), abs(found[name] - value) / abs(value))
    if wrong := {name: value for name, value in worst[FP32].items() if not value <= AGREEMENT}:
        raise SystemExit(f"other losses than the usual way's: {wrong}, relative; expected at most {AGREEMENT}")

    usual, ours = trainers()
    sources: dict[str, Any] = {way: stream(batches, 0, device=device) for way in ours}
    usual_source = usual_batches(args.rounds * (args.steps + 1))
    turns: dict[str, Callable[[], float]] = {USUAL: lambda: timed(usual_source, lambda b: usual.train_step(*b))}
    for way, trainer in ours.items():
        turns[way] = lambda way=way, trainer=trainer: timed(sources[way], trainer.train_step)  # type: ignore[misc]
    with closing(sources[FP32]), closing(sources[BF16]):
        lines = in_turns(turns, args)
    lines += ["", f"The largest relative difference of a loss from the usual way's in {args.agree} steps:", ""]
    lines += ["| | " + " | ".join(worst) + " |", "|---" * (1 + len(worst)) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{t[name]:.1e}" for t in worst.values()) + " |" for name in worst[FP32]]
    return "How fast is a training step?", lines


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
    lines = ["| | steps/s | lowest - highest | times usual | lowest - highest | waits for data |", "|---" * 6 + "|"]
    for way, found_rates in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(found_rates, rates[USUAL], strict=True)]
        cells = [f"{statistics.median(r):.2f} | {min(r):.2f} - {max(r):.2f}" for r in (found_rates, ratios)]
        lines.append(f"| {way} | {' | '.join(cells)} | {100 * statistics.median(waiting[way]):.2f}% |")
    return lines


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
        plain: Any = {"foreach": False, "fused": False}
        decay = config.weight_decay_discriminator
        self._optimisers = (
            torch.optim.Adam(self.generator.parameters(), config.lr_generator, **plain),
            torch.optim.Adam(self.discriminator.parameters(), config.lr_discriminator, weight_decay=decay, **plain),
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


def learning(root: Path, args: argparse.Namespace) -> tuple[str, list[str]]:
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
    lines = ["PA-MPJPE in mm on motions and cameras that training never saw: means over the seeds, ± their standard"]
    lines += ["deviation.", "", f"| trained on | {' | '.join(EVALUATED)} | mean |", "|---" * (2 + len(EVALUATED)) + "|"]
    for name, rows in found.items():
        by_split = [[row[split]["pa_mpjpe"] for row in rows] for split in EVALUATED]
        cells = [
            mean_and_spread(values) for values in (*by_split, [statistics.mean(v) for v in zip(*by_split, strict=True)])
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "All datasets together against each alone", lines


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
