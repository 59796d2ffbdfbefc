"""How fast is a step of HMMR's training?

    .venv/bin/python benchmarks/training_hmmr.py --out benchmarks/training_hmmr.md

The published sizes: 8 windows of 20 frames, 4 of them with 2D labels alone, and 960 real poses, from the cache of
`training.py`, without jittered copies. "Usual", below, and `HMMRTrainer.train_step` read by the same reader: the
ratio is of computing alone. First, with dropout off, both take the same steps from equal parameters: losses must agree
to 1e-4, each parameter's gradient in the first step to 1e-3, or the benchmark ends. Then they train in turns.

Usual: nn.Conv1d and nn.GroupNorm; feature and state side by side in each correction; six sets of bodies one after the
other, every vertex of them; the discriminator forwards three times, with gradients of all that takes part; Adam, one
parameter after the other. Losses and cameras, which are small, are ours.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

import cache
from pipeline.body import Body
from vibe_model.cameras import project_orthographic
from vibe_model.hmmr import losses
from vibe_model.hmmr.config import HMMRConfig
from vibe_model.hmmr.discriminator import PoseDiscriminator
from vibe_model.hmmr.generator import Sets
from vibe_model.hmmr.training import HMMRTrainer, real_poses
from vibe_model.rotations import axis_angle_to_matrix
from vibe_model.training.data import Batch
from vibe_model.training.parallel import Group
from vibe_model.training.video import VideoRun

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.training import AGREEMENT, FP32, SPLITS, USUAL, in_turns, make_cache, report, timed

GRADIENTS_AGREE: Final = 1e-3  # relative, of float32
STEPS_COMPARED: Final = 2


def main() -> None:
    """Compare, measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="of each way in each round")
    parser.add_argument("--small", action="store_true", help="short windows, 2 rounds of 1 step: to see that it works")
    parser.add_argument("--out", type=Path, help="write the report here, for example benchmarks/training_hmmr.md")
    args = parser.parse_args()
    sizes: Any = {part: (name,) for part, name in SPLITS.items()} | {"validation": ("body/train",), "evaluation": ()}
    if args.small:
        args.rounds, args.steps, sizes = 2, 1, sizes | {"batch_size": 2, "seqlen": 8}
    with tempfile.TemporaryDirectory() as folder:
        make_cache(Path(folder), 4 if args.small else 128)
        config = HMMRConfig(cache=folder, runs=Path(folder), device=args.device, iterations=10**6, **sizes)
        body, group, splits = Body.stand_in(), Group(device=torch.device(args.device)), cache.open(folder)
        ours = HMMRTrainer(config, body, group)
        usual = Usual(config, body, ours)
        run = VideoRun(config, ours, splits, stand_in=True, report=None, draw=None)
        with closing(run.batches(0)) as source:
            agreement = compared(usual, ours, source, config.dropout)
            ways: dict[str, Any] = {USUAL: usual, FP32: ours}
            turns = {way: partial(timed, source, trainer.train_step) for way, trainer in ways.items()}
            lines = [*in_turns(turns, args), "", agreement]
    about = "DEMO DATA: random labels and features, the procedural body; no result about HMMR."
    report(about, "How fast is a step of HMMR's training?", lines, args)


def compared(usual: Usual, ours: HMMRTrainer, source: Iterator[Batch], dropout: float) -> str:
    """Take steps without dropout, from equal parameters; a line on how their numbers differ. Ends if they do."""
    drops = [m for way in (usual, ours) for m in way.generator.modules() if isinstance(m, nn.Dropout)]
    for module in drops:
        module.p = 0.0
    worst: dict[str, float] = {}
    for step, batch in enumerate(itertools.islice(source, STEPS_COMPARED)):
        expected, found = usual.train_step(batch), ours.train_step(batch).terms
        worst = {name: max(worst.get(name, 0.0), abs(found[name] / expected[name] - 1)) for name in expected}
        if step == 0:
            gradient = max(differences(usual, ours))
    for module in drops:
        module.p = dropout
    text = "Relative difference from the usual way, fp32: of a parameter's gradient in the first step at most "
    text += f"{gradient:.1e}; of losses in {STEPS_COMPARED} steps at most "
    text += ", ".join(f"{name} {value:.1e}" for name, value in worst.items()) + "."
    if not (max(worst.values()) <= AGREEMENT and gradient <= GRADIENTS_AGREE):
        raise SystemExit(f"{text} Expected at most {AGREEMENT:g} of losses, {GRADIENTS_AGREE:g} of gradients.")
    return text


def differences(usual: Usual, ours: HMMRTrainer) -> Iterator[float]:
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


class Generator(nn.Module):
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


class Usual:
    """Both networks and their optimisers, from the parameters of ours."""

    def __init__(self, config: HMMRConfig, body: Body, like: HMMRTrainer) -> None:
        assert like.discriminator is not None
        self._weights, device = config.weights, like.group.device
        start = like.generator.state_dict()
        self.generator = Generator(config, body, start["regressor.mean"]).to(device)
        self.generator.load_state_dict(start)
        self.discriminator = PoseDiscriminator().to(device)
        self.discriminator.load_state_dict(like.discriminator.state_dict())
        plain: Any = {"foreach": False, "fused": False}
        self._optimisers = (
            torch.optim.Adam(self.generator.parameters(), config.lr_generator, **plain),
            torch.optim.Adam(self.discriminator.parameters(), config.lr_discriminator, **plain),
        )

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step. Returns the weighted terms."""
        sets = self.generator(batch.labels["features"].float())
        terms = losses.supervised(sets, batch.labels, optimal_camera="trace", weights=self._weights)
        fake = losses.rotations(sets)
        scores = [self.discriminator(poses) for poses in (fake, real_poses(batch), fake.detach())]
        terms["adversarial"] = self._weights["adversarial"] * losses.adversarial(scores[0])
        own = {"discriminator": self._weights["discriminator"] * losses.discriminator(*scores[1:])}
        for optimiser, of_it in zip(self._optimisers, (terms, own), strict=True):
            optimiser.zero_grad()
            sum(of_it.values(), torch.zeros((), device=fake.device)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return {name: float(value.detach()) for name, value in (terms | own).items()}


if __name__ == "__main__":
    main()
