"""Training of Pr-VIPE on the poses of a cache; it can be killed at any time.  windows -> [training]
-> features

best.pt has the averaged weights of the best epoch, for the stream `pr_vipe`.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adagrad, Adam, Optimizer

from pipeline.errors import CheckpointError, DataError
from vibe_model.part_dynamics.pr_vipe import losses
from vibe_model.part_dynamics.pr_vipe.config import STATE, PrVIPEConfig
from vibe_model.part_dynamics.pr_vipe.losses import pose_distances
from vibe_model.part_dynamics.pr_vipe.network import N_POINTS, TORSO, PrVIPE, point_numbers
from vibe_model.part_dynamics.pr_vipe.poses import PoseSet
from vibe_model.part_dynamics.pr_vipe.retrieval import evaluate, render_views
from vibe_model.stand_in import require_one_kind
from vibe_model.trained import load_body
from vibe_model.training.data import TrainingBatch
from vibe_model.training.loop import TrainingLoop, TrainingObserver, run_once
from vibe_model.training.process_group import ProcessGroup
from vibe_model.training.trainer import Learner, StepResult, Trainer, weights_of

if TYPE_CHECKING:
    from cache import Split
    from pipeline.people.body import Body

AVERAGE: Final = "average"
_ARMS: Final = point_numbers("elbow", "wrist")  # left, then right
_LEGS: Final = point_numbers("knee", "ankle")
DROPPED_TOGETHER: Final = (_ARMS[:2], _ARMS[2:], _LEGS[:2], _LEGS[2:], _LEGS)


def run(config: PrVIPEConfig, progress: TrainingObserver | None = None) -> Path:
    """Train or resume, unless the run is finished. Returns its folder.

    Raises DataError, StandInMixed, ConfigError or CheckpointError before training, CacheError if
    another process trains in the same folder; TrainingDiverged if losses stay non-finite.
    """

    def prepare(splits: Mapping[str, Split]) -> Callable[[ProcessGroup], _PrVIPERun]:
        body = load_body(config.body)
        stand_in = require_one_kind({"the body": body.is_stand_in}, splits)
        return lambda group: _PrVIPERun(
            config,
            _PrVIPETrainer(config, group),
            splits,
            body=body,
            stand_in=stand_in,
            observer=progress,
        )

    return run_once(config, prepare)


class _PrVIPETrainer(Trainer):
    """Trains the embedding, and averages its weights."""

    config: PrVIPEConfig

    def __init__(self, config: PrVIPEConfig, group: ProcessGroup | None = None) -> None:
        super().__init__(config, group)
        embedding = PrVIPE(config.size, config.hidden_size, config.dropout)
        self.embedding = embedding.to(self.group.device)
        self.average = copy.deepcopy(self.embedding).requires_grad_(False).eval()
        parameters = self.embedding.parameters()
        optimiser: Optimizer
        if config.optimiser == "adagrad":
            optimiser = Adagrad(parameters, config.lr, initial_accumulator_value=0.1)
        else:
            optimiser = Adam(parameters, config.lr)
        name = STATE.removesuffix("_state_dict")
        self.learners = {"embedding": Learner(config, self.embedding, name, optimiser)}

    def train_step(self, batch: TrainingBatch) -> StepResult:
        if self.config.optimiser == "adam":
            self._set_rate()
        step = super().train_step(batch)
        if step.good:
            self._add_to_average()
        return step

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        config = self.config
        poses = batch.labels["poses"]
        shown = batch.labels["shown"]
        kp_2d = batch.labels["kp_2d"]  # (R, 2, 13, 3) two real views of the first poses
        n_real = len(kp_2d)
        sides = []  # of the others, two rendered ones
        for side in range(2):
            views = render_views(
                poses[n_real:], shown[n_real:], depth=config.depth, noise=config.noise
            )
            sides += [kp_2d[:, side], views.keypoints]
        normalised, _ = PrVIPE.normalise(torch.cat(sides))  # (2 B, 39)
        mean, std = self.embedding(self._drop_points(normalised))
        mean_a, mean_b = mean.chunk(2)
        std_a, std_b = std.chunk(2)
        distances = self.embedding.distances(mean_a, std_a, mean_b, std_b, config.samples)

        joints = poses[:, shown.all(0)]  # without the nose if it is unknown in any pose
        triplet = losses.triplet_ratio(distances, pose_distances(joints, joints))
        positive = losses.positive_pairwise(distances)
        prior = losses.prior(mean, std)
        return {
            "triplet": config.triplet_weight * triplet,
            "positive": config.positive_weight * positive,
            "prior": config.prior_weight * prior,
        }

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), AVERAGE: weights_of(self.average)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)
        try:
            self.average.load_state_dict(saved[AVERAGE])
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"expected the averaged weights of a run with these settings: {error}"
            ) from error

    def _drop_points(self, normalised: Tensor) -> Tensor:
        """Drop random points and limbs, but not the torso, from inputs (N, 39)."""
        n = len(normalised)
        missing = torch.rand(n, N_POINTS) < self.config.point_dropout
        missing[:, TORSO] = False
        in_limb = torch.zeros(len(DROPPED_TOGETHER), N_POINTS, dtype=torch.bool)
        for limb, points in enumerate(DROPPED_TOGETHER):
            in_limb[limb, points] = True
        limbs = torch.randint(len(DROPPED_TOGETHER), (n,))
        has_dropped_limb = torch.rand(n, 1) < self.config.limb_dropout
        missing |= in_limb[limbs] & has_dropped_limb

        shown = (~missing).to(normalised)  # one copy to the device
        coordinates = shown.repeat_interleave(2, dim=1)
        return normalised * torch.cat((coordinates, shown), dim=1)

    def _set_rate(self) -> None:
        """Set the learning rate by a cosine over all steps."""
        config = self.config
        share = self.state.step / (config.epochs * config.iterations)
        cosine = math.cos(math.pi * share)
        rate = config.lr_end + (config.lr - config.lr_end) * (1 + cosine) / 2
        for group in self.learners["embedding"].optimiser.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def _add_to_average(self) -> None:
        """Update the moving average of weights and batch norm statistics."""
        n_steps = self.state.step - self.state.skipped
        # as TensorFlow's: the first weights, which are random, soon count no more
        decay = min(self.config.average, (1 + n_steps) / (10 + n_steps))
        weights = self.embedding.state_dict()
        for name, mean in self.average.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(weights[name], 1 - decay)
            else:
                mean.copy_(weights[name])


class _PrVIPERun(TrainingLoop):
    """Trains on pairs of views of the cache's poses, and validates by retrieval of held-out
    ones.
    """

    advice = "lower lr"
    score = "missed"
    config: PrVIPEConfig
    trainer: _PrVIPETrainer

    def __init__(self, *args: Any, body: Body, **options: Any) -> None:
        """Arguments of TrainingLoop, and the body that poses motion. Raises DataError without any
        pose.
        """
        super().__init__(*args, **options)
        self._body = body
        config = self.config
        names = (*config.motion, *config.poses_3d)
        self._poses = PoseSet.concatenate([self._read(name, held_out=False) for name in names])
        if not len(self._poses):
            raise DataError(
                f"{', '.join(names)}: expected frames with SMPL or 3D labels, found none. "
                "Convert with a body."
            )
        self._held_out = {}  # split -> its poses, if there are any
        for name in (*config.motion, *config.validation):
            poses = self._read(name, held_out=True)
            if len(poses):
                self._held_out[name] = poses

    def inputs(self) -> dict[str, Any]:
        counts = {"poses": len(self._poses), "instants": len(self._poses.instants)}
        return {**super().inputs(), "trained_on": counts}

    def batches(self, start: int) -> Generator[TrainingBatch, None, None]:
        config = self.config
        for step in range(start, config.epochs * config.iterations):
            drawn = self._poses.draw(config.batch_size, config.real, config.seed, step)
            yield TrainingBatch(drawn, None).on_device(self.group.device)

    def validate(self) -> tuple[dict[str, Any], float | None]:
        """Return retrieval by split, and the number to minimise.

        The latter is the mean share of queries without a hit in %, or the loss if there are no
        held-out poses.
        """
        config = self.config
        by_split = {}
        for name, poses in self._held_out.items():
            by_split[name] = evaluate(
                self.trainer.average,
                poses,
                most=config.eval_poses,
                depth=config.depth,
                samples=config.samples,
                seed=config.seed,
            )
        if not by_split:
            return {}, self.trainer.state.total()
        hits = [metrics["hit_1"] for metrics in by_split.values()]
        return by_split, 100 - float(np.mean(hits))

    def best(self) -> dict[str, Any]:
        return {STATE: weights_of(self.trainer.average)}

    def _read(self, name: str, *, held_out: bool) -> PoseSet:
        """Read the poses of a split.

        Of a split in `motion`, reads only held-out tracks, or only the others. Other splits are
        used as a whole, either for training or for validation.
        """
        config = self.config
        split = self.splits[name]
        is_motion = name in config.motion
        tracks = np.ones(len(split.tracks), np.bool_)
        if is_motion:
            places = np.array([_place_of(track.name) for track in split.tracks])
            tracks = (places < config.held_out) == held_out
        return PoseSet.read(
            split, name, self._body, stride=config.stride, z_up=is_motion, tracks=tracks
        )


def _place_of(name: str) -> float:
    """A number in [0, 1) that depends on a track's name only."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
