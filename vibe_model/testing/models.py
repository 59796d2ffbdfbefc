"""Contract of models, checked by a few training steps (docs/adding-a-model.md).  windows ->
[training, evaluation]
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.testing.common import fail_if_any
from vibe_model import models, runs
from vibe_model.checkpoints import load_body
from vibe_model.networks.video_model import CAMERA_SIZE, SHAPE_SIZE, Estimate, VideoModel
from vibe_model.settings import VideoConfig
from vibe_model.training.data import TrainingBatch
from vibe_model.training.trainer import ProcessGroup, Step
from vibe_model.training.video import VideoRun, VideoTrainer

STEPS: Final = 2
LENGTHS: Final = (1, 3, 8)  # frames per window
N_VERTICES: Final = 6890  # of SMPL
TOLERANCE: Final = 1e-4  # of a network's outputs: rounding depends on the batch size


class ModelContract:
    """Tests of a model (`model_problems`): fixture `config`.

    Its value is a small configuration whose `cache` holds its training splits, for example of demo
    data.
    """

    def test_model_keeps_its_promises(self, config: VideoConfig) -> None:
        fail_if_any(model_problems(config))


def model_problems(config: VideoConfig) -> list[str]:
    """List the promises that a model breaks; empty if none. Trains it for two steps on the CPU and
    writes nothing.

    Args:
        config: Its cache holds the training splits, for example of demo data.

    Raises:
        DataError, ConfigError: as training does, for an unsuitable cache or invalid settings.
    """
    splits = runs.open_splits(config)

    def build() -> VideoRun:
        body = load_body(config.body)
        trainer = models.model_of(config).load_trainer()(config, body, ProcessGroup())
        return VideoRun(config, trainer, splits, stand_in=body.is_stand_in, report=None)

    try:
        with torch.random.fork_rng(devices=[]):
            run = build()
            if problems := [*_network_problems(run.trainer.generator.eval(), config)]:
                return problems
            with closing(run.batches(0)) as batches:
                first = [next(batches) for _ in range(STEPS)]
            return [*_step_problems(run.trainer, build().trainer, build().trainer, first)]
    except Exception as error:  # third-party code can raise anything
        return [f"fails: {type(error).__name__}: {error}"]


def _step_problems(
    trainer: VideoTrainer, same: VideoTrainer, resumed: VideoTrainer, batches: list[TrainingBatch]
) -> Iterator[str]:
    """Train three equal copies: two with different NumPy and Python random states, one from a saved
    state.
    """
    before = _parameters(trainer)
    if differs := _difference(before, _parameters(same)):
        yield f"{differs}: two trainers of one configuration start with different parameters"
        return
    _seed_others(0)
    step = trainer.train_step(batches[0])
    if problems := [*_term_problems(step), *_gradient_problems(trainer, step, before)]:
        yield from problems
        return
    _seed_others(1)
    again = same.train_step(batches[0])
    if step.terms != again.terms or _difference(_parameters(trainer), _parameters(same)):
        yield (
            "the same step gives different numbers when NumPy's or Python's random state "
            "differs: use torch's"
        )
        return
    resumed.load_state_dict(copy.deepcopy(trainer.state_dict()))
    after = trainer.train_step(batches[1])
    continued = resumed.train_step(batches[1])
    if list(after.terms) != list(step.terms):
        yield (
            f"the terms have different names in each step: {', '.join(step.terms)}; "
            f"{', '.join(after.terms)}"
        )
    elif after.terms != continued.terms or _difference(_parameters(trainer), _parameters(resumed)):
        yield (
            "a step from a restored state differs: `learners` must hold every network and "
            "changing buffer"
        )


def _term_problems(step: Step) -> Iterator[str]:
    for name, value in step.terms.items():
        if not np.isfinite(value):
            yield f"the term {name!r} is {value} in the first step"


def _gradient_problems(
    trainer: VideoTrainer, step: Step, before: Mapping[str, Tensor]
) -> Iterator[str]:
    if "gen" not in {learner.name for learner in trainer.learners.values()}:
        yield "no learner is named 'gen': saved states and best.pt need the generator's learner"
    for name, learner in trainer.learners.items():
        if not step.norms[name] > 0:
            yield f"{name} gets no gradient: does gradients() call backward on every term?"
        elif not any(
            not torch.equal(before[key], value)
            for key, value in _parameters_of(learner.network, name)
        ):
            yield f"no parameter of {name} changes in a step"


def _network_problems(model: VideoModel, config: VideoConfig) -> Iterator[str]:
    """Check the generator's estimates of windows of several lengths, alone and in a batch."""
    if keys := [key for key, value in model.state_dict().items() if N_VERTICES in value.shape]:
        yield (
            f"its state contains body model data ({', '.join(keys)}), which must not be distributed"
        )
    generator = torch.Generator().manual_seed(0)

    def random_rows(n: int, length: int) -> dict[str, Tensor]:
        sizes = {
            name: reading.size * (reading.history + 1)
            for name, reading in config.extra_streams.items()
        }
        sizes = {"features": config.feature_size, **sizes}
        return {
            name: torch.randn(n, length, size, generator=generator) for name, size in sizes.items()
        }

    with torch.inference_mode():
        for length in LENGTHS:
            rows = random_rows(3, length)
            estimate = model.regress(**rows)
            if problems := [*_estimate_problems(estimate, 3, length)]:
                yield from problems
                return
            alone = model.regress(**{name: values[1:2] for name, values in rows.items()})
            pairs = zip(estimate, alone, strict=True)
            if not all(
                torch.allclose(every[1:2], one, atol=TOLERANCE, rtol=TOLERANCE)
                for every, one in pairs
            ):
                yield (
                    f"regress: a window of {length} frames has different bodies alone than in "
                    "a batch"
                )
                return
        for method in (model.regress_around, model.regress_stills):
            expected = sorted({0, *model.steps})
            found = sorted(method(**random_rows(2, 1)))
            if found != expected:
                yield f"{method.__name__}: expected bodies for the steps {expected}, found {found}"


def _estimate_problems(estimate: Estimate, n: int, length: int) -> Iterator[str]:
    expected = {"rotmat": (24, 3, 3), "shape": (SHAPE_SIZE,), "camera": (CAMERA_SIZE,)}
    for (name, trailing), values in zip(expected.items(), estimate, strict=True):
        if values.shape != (n, length, *trailing):
            yield f"regress: {name}: expected {(n, length, *trailing)}, found {tuple(values.shape)}"
        elif not values.isfinite().all():
            yield f"regress: {name} contains NaN or infinite numbers"
        elif name == "rotmat" and not torch.allclose(
            values @ values.transpose(-1, -2), torch.eye(3).expand_as(values), atol=1e-3
        ):
            yield "regress: rotmat: expected rotations, found matrices that are not orthonormal"


def _parameters(trainer: VideoTrainer) -> dict[str, Tensor]:
    """Copies of all networks' parameters."""
    return {
        key: v.clone()
        for name, learner in trainer.learners.items()
        for key, v in _parameters_of(learner.network, name)
    }


def _parameters_of(network: nn.Module, name: str) -> Iterator[tuple[str, Tensor]]:
    return ((f"{name}.{key}", parameter.detach()) for key, parameter in network.named_parameters())


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Name of the first parameter that differs; empty if none does."""
    return next((key for key, value in first.items() if not torch.equal(value, second[key])), "")


def _seed_others(seed: int) -> None:
    """Set the random states that a training step must not use."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
