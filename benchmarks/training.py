"""How fast is a step of VIBE's training, compared with plain PyTorch?

    .venv/bin/python benchmarks/training.py --out benchmarks/training.md

Networks of the published sizes, the procedural body, and a cache of random labels and features:
batches of 32 windows of 16 frames, 19 of them with 2D labels only, and 32 windows of real motion.
The ways train in turns, A B C A B C, each from equal parameters. The report has the median round
with the lowest and the highest, and ratios within rounds.

- Ours, in fp32 and bf16: `VIBETrainer.train_step` on batches of `TrainingBatches.stream`, as
`training.run` does it.
- Usual: the same batches and networks, but all vertices of the body and three passes of the
  discriminator, with gradients of everything; Adam, one parameter after the other.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import cache
from pipeline.people.body import Body
from vibe_model import TrainConfig, losses
from vibe_model.training.data import TrainingBatch, TrainingBatches
from vibe_model.training.process_group import ProcessGroup
from vibe_model.vibe.networks import MOTION
from vibe_model.vibe.training import VIBETrainer

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, spread, table, write_split, write_stream

USUAL, FP32, BF16 = "usual", "ours, fp32", "ours, bf16"
TRACK: Final = 128  # frames
SPLITS: Final = {"datasets_2d": "flat/train", "datasets_3d": "body/train", "motion": "mocap/train"}
LABELS_2D: Final = ("frame_index", "bbox", "kp_2d")


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--small", action="store_true", help="small networks, 2 rounds of 2 steps")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = _measure(Path(folder), small=args.small)
    about = "DEMO DATA: random labels and features, the procedural body; no result about VIBE."
    report(about, "How fast is a step of VIBE's training?", lines, args)


def _measure(root: Path, *, small: bool) -> Iterator[str]:
    """Table of steps a second of each way, in turns."""
    make_cache(root, 4 if small else 128)
    sizes: Any = {"hidden_size": 16, "regressor_size": 16, "disc_size": 16} if small else {}
    n_rounds, n_steps = (2, 2) if small else (5, 8)
    parts: Any = {part: (name,) for part, name in SPLITS.items()}
    config = TrainConfig(cache=root, device="cpu", iterations=10**6, **parts, **sizes)
    splits = cache.open(root)
    batches = TrainingBatches(config, {name: splits[name] for name in SPLITS.values()})
    group = ProcessGroup(device=torch.device("cpu"))
    trainers: dict[str, Any] = {
        FP32: VIBETrainer(config, Body.stand_in(), group),
        BF16: VIBETrainer(replace(config, precision="bf16"), Body.stand_in(), group),
        USUAL: _UsualTrainer(config, VIBETrainer(config, Body.stand_in(), group)),
    }
    coming = {name: batches.stream(0, device=group.device) for name in trainers}
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(n_rounds):
        for name, trainer in trainers.items():
            trainer.train_step(next(coming[name]))  # warms up what other ways pushed out of caches
            began = time.perf_counter()
            for _ in range(n_steps):
                trainer.train_step(next(coming[name]))
            rates[name].append(n_steps / (time.perf_counter() - began))
    rows = []
    for name, of_way in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(of_way, rates[USUAL], strict=True)]
        rows.append((name, spread(of_way), spread(ratios)))
    return table(("", "steps/s", "times usual"), rows)


def make_cache(root: Path, n_tracks: int) -> None:
    """Write three splits of random numbers in a plausible range: their values do not affect the
    measurement.
    """
    for seed, (part, split) in enumerate(SPLITS.items()):
        rng = np.random.default_rng(seed)
        tracks = [_random_labels(rng) for _ in range(n_tracks)]
        columns = LABELS_2D if part == "datasets_2d" else [*tracks[0]]
        write_split(root, split, columns, ([rows] for rows in tracks))
        if part != "motion":
            features = rng.standard_normal((n_tracks * TRACK, 2048), np.float32)
            # Like a ResNet's after its ReLU and its pool: not negative, 0.4 on average.
            write_stream(root, split, "resnet50", 2048, np.abs(features / 2).__getitem__)


def _random_labels(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """The columns of one track."""
    moving = rng.standard_normal((TRACK, 82)).cumsum(0) * 0.01
    theta = rng.standard_normal((1, 82)) * 0.2 + moving
    joints = rng.standard_normal((TRACK, 49, 3)) * 0.3
    return {
        "frame_index": np.arange(TRACK),
        "bbox": np.tile([250, 250, 300, 300], (TRACK, 1)),
        "kp_2d": np.insert(rng.uniform(100, 400, (TRACK, 49, 2)), 2, 1, axis=-1),
        "kp_3d": np.insert(joints, 3, 1, axis=-1),
        "pose": theta[:, :72],
        "betas": theta[:, 72:],
        **dict.fromkeys(("has_3d", "has_smpl", "valid"), np.ones(TRACK, bool)),
    }


# --------------------------------------------------------------------------------------------------
# the usual way


class _UsualTrainer:
    """Copies of our networks, and optimisers that take one parameter after the other."""

    def __init__(self, config: TrainConfig, ours: VIBETrainer) -> None:
        self._weights = config.weights
        self._generator = copy.deepcopy(ours.generator)
        self._discriminator = copy.deepcopy(ours.discriminator or nn.Module())
        plain: Any = {"foreach": False, "fused": False}
        decay = config.weight_decay_discriminator
        self._optimisers = (
            torch.optim.Adam(self._generator.parameters(), config.lr_generator, **plain),
            torch.optim.Adam(
                self._discriminator.parameters(),
                config.lr_discriminator,
                weight_decay=decay,
                **plain,
            ),
        )

    def train_step(self, batch: TrainingBatch) -> None:
        """Take one step."""
        predicted = self._generator(batch.labels["features"].float())
        fake, genuine = predicted["theta"][..., MOTION], batch.real_theta[..., MOTION]
        terms = losses.generator_losses(predicted, batch.labels, self._weights)
        judge = self._discriminator
        scores = judge(fake), judge(genuine), judge(fake.detach())
        sides = losses.adversarial_terms(*scores, self._weights)
        terms["adversarial"] = sides.pop("adversarial")
        for optimiser, of_it in zip(self._optimisers, (terms, sides), strict=True):
            optimiser.zero_grad()
            sum(of_it.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
            optimiser.step()


if __name__ == "__main__":
    main()
