"""Trains the motion prior from the cache; can be killed at any time.  features -> windows -> [training] -> evaluation

`run` writes into `runs/<name>-<fingerprint>/`: config.json, last.pt (the whole state), best.pt (the prior of the best
epoch, for `load_mposer`), TensorBoard events, and metrics.json, written last: the mark of a finished run. Started
again, it goes on from last.pt and ends with the same numbers, on a CPU to the bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cache.mixture import Mixture, Part
from vibe_model import runs
from vibe_model.errors import CheckpointError, TrainingDiverged
from vibe_model.networks.discriminator import MOTION
from vibe_model.networks.mposer import (
    N_ROTATIONS,
    STAND_IN,
    STATE,
    MPoser,
    geodesic_degrees,
    kl_divergence,
    matrices,
    reconstruction_error,
)
from vibe_model.settings import mposer_config
from vibe_model.settings.mposer_config import MPoserConfig
from vibe_model.training.course import Course, Step
from vibe_model.training.curves import Curves
from vibe_model.training.parallel import device_of
from vibe_model.training.session import CONFIG, LAST, Loop, Progress, alone, own_torch_state, save, saved_state
from vibe_model.training.trainer import weights_of

if TYPE_CHECKING:
    from cache import Split

MEAN_POSE_STEPS: Final = 50  # whose batches the constant mean pose is the mean of
VALIDATION_BATCH: Final = 256  # windows
RECONSTRUCTION: Final = "reconstruction_deg"  # mean angle to the labelled rotations, of the mean code's decoding
MEAN_POSE: Final = "mean_pose_deg"  # the same of a body that never moves
_PART: Final = "motion"

ShowProgress = Callable[[Progress], None]


def run(config: MPoserConfig, progress: ShowProgress | None = None) -> Path:
    """Train, or go on with it, or find it done. Returns the run's folder. progress: told of every step and epoch.

    Raises DataError, StandInMixed, ConfigError or CheckpointError before training, CacheError when the motion has no
    window or another process trains in the same folder; TrainingDiverged when losses stay non-finite, with the last
    good state saved.
    """
    splits = mposer_config.open_splits(config)
    folder = mposer_config.run_folder(config, splits)
    if runs.is_finished(folder):
        return folder
    stand_in = mposer_config.is_stand_in(splits)
    device = device_of(config.device)
    with alone(folder), own_torch_state(config.threads, device):
        if runs.is_finished(folder):
            return folder  # another process has finished it meanwhile
        facts = {
            "fingerprint": mposer_config.fingerprint(config, splits),
            STAND_IN: stand_in,
            "software": {name: version(name) for name in ("numpy", "torch")},
        }
        trainer, about = MPoserTrainer(config, device), {"fingerprint": facts["fingerprint"]}
        advice = "lower lr, or look at the labels"
        loop = Loop(schedule=config, trainer=trainer, folder=folder, about=about, advice=advice, show=progress)
        session = _Session(config, trainer, splits, folder, facts, loop)
        session.begin()
        session.train()
        session.finish()
    return folder


class MPoserTrainer:
    """The prior, its optimiser and schedule: everything that training changes.

    Step k draws its random numbers from a seed made of the configuration's and k: there is no random state to save.
    """

    def __init__(self, config: MPoserConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.prior = MPoser(config.hidden_size, config.latent_size, config.n_layers).to(device)
        self.course = Course()
        self._adam = torch.optim.Adam(self.prior.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self._schedule = ReduceLROnPlateau(
            self._adam, mode="min", factor=config.plateau_factor, patience=config.plateau_patience
        )

    def train_step(self, theta: NDArray[np.float32]) -> Step:
        """Update the prior once, unless a loss or the gradient is not finite. theta: (B, T, 85)."""
        self.prior.train()
        self._adam.zero_grad(set_to_none=True)
        labels = torch.as_tensor(theta).to(self.device)
        noise = _noise(len(labels), self.prior.latent_size, self.config.seed, self.course.step).to(self.device)
        rotmat, code = self.prior(labels[..., MOTION], noise)
        terms = {
            "reconstruction": reconstruction_error(rotmat, matrices(labels)),
            "kl": self.config.kl_weight * kl_divergence(code),
        }
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.prior.parameters() if p.grad is not None])
        *losses, size = torch.stack([*(term.detach() for term in terms.values()), norm]).tolist()
        step = Step(dict(zip(terms, losses, strict=True)), {"mposer": size}, all(map(math.isfinite, (*losses, size))))
        if step.good:
            self._adam.step()
        self.course.note(step)
        return step

    def end_epoch(self, validation: Mapping[str, Mapping[str, Any]]) -> bool:
        """Take note of an epoch: schedule, history. True when it is the best so far.

        The score is the held-out error in degrees where there is any, else the mean training loss.
        """
        course, means = self.course, self.course.means()
        held_out = [metrics[RECONSTRUCTION] for metrics in validation.values()]
        score = float(np.mean(held_out)) if held_out else sum(means.values()) if means else None
        if score is not None:
            self._schedule.step(score)
        return course.end_epoch(score, validation, self.learning_rates())

    def learning_rates(self) -> dict[str, float]:
        return {"mposer": float(self._adam.param_groups[0]["lr"])}

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and text only: it can be read back without running code."""
        return {
            STATE: weights_of(self.prior),
            "optimizer": self._adam.state_dict(),
            "schedule": self._schedule.state_dict(),
            "course": asdict(self.course),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`: training goes on as if it had not been stopped. Raises CheckpointError."""
        try:
            self.prior.load_state_dict(state[STATE])
            self._adam.load_state_dict(state["optimizer"])
            self._schedule.load_state_dict(state["schedule"])
            self.course = Course(**state["course"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"expected the state of a run of this configuration: {error}") from error


class MotionCurves(Curves):
    """The curves of a motion prior: its epochs have angles."""

    def epoch(self, number: int, validation: Mapping[str, Any], learning_rates: Mapping[str, float], *_: Any) -> None:
        """An epoch's held-out errors by split, and the learning rate after it."""
        super().epoch(number, {}, learning_rates, {})
        for split, metrics in validation.items():
            angles = {name: metrics[name] for name in (RECONSTRUCTION, MEAN_POSE)}
            self._scalars(number, {f"validation/{split}/{name}": angle for name, angle in angles.items()})


@dataclass(frozen=True, slots=True)
class _Session:
    """The loop over epochs, and everything that it tells or saves."""

    config: MPoserConfig
    trainer: MPoserTrainer
    splits: Mapping[str, Split]
    folder: Path
    facts: Mapping[str, Any]  # that config.json, metrics.json and best.pt begin with
    loop: Loop

    def begin(self) -> None:
        """config.json, and the state of an earlier run that was stopped."""
        inputs = {"inputs": mposer_config.inputs(self.config, self.splits)}
        runs.write_json(self.folder / CONFIG, {**self.facts, **inputs, "config": self.config.as_dict()})
        last = self.folder / LAST
        if last.exists():
            self.trainer.load_state_dict(saved_state(last, self.loop.about))

    def train(self) -> None:
        """From wherever the run stands to the end of the last epoch."""
        config, course = self.config, self.trainer.course
        first = len(course.history)
        if first == config.epochs:
            return
        mixture = motion_mixture(config, self.splits)
        mean_pose = mean_rotations(mixture, min(MEAN_POSE_STEPS, config.epochs * config.iterations))
        with (
            closing(_batches(mixture, course.step, config.epochs * config.iterations)) as ready,
            MotionCurves(self.folder, first_step=course.step + 1, windows=config.batch_size) as curves,
        ):
            for epoch in range(first, config.epochs):
                self.loop.train_epoch(epoch, ready, curves)
                self._end_epoch(epoch, curves, mean_pose)

    def finish(self) -> None:
        """The best epoch's held-out errors, written last: the mark of a finished run."""
        course = self.trainer.course
        if course.best_epoch is None:
            raise TrainingDiverged(f"{self.folder}: no step had a finite loss. Look at the labels of the motion.")
        best = {"epoch": course.best_epoch, "score": course.best}
        content = {**self.facts, "best": best, "skipped_steps": course.skipped}
        runs.write_json(self.folder / runs.METRICS, content | course.history[course.best_epoch]["validation"])

    def _end_epoch(self, epoch: int, curves: Curves, mean_pose: Tensor) -> None:
        validation = held_out_errors(self.trainer.prior, mean_pose, self.config, self.splits)
        if self.trainer.end_epoch(validation):
            # No paths: the run of a generator is named after this file, wherever it lies.
            about = {name: self.facts[name] for name in ("fingerprint", STAND_IN)}
            best = {"epoch": epoch, "performance": self.trainer.course.best}
            save(self.folder / runs.BEST, {**about, **best, STATE: weights_of(self.trainer.prior)})
        curves.epoch(self.trainer.course.step, validation, self.trainer.learning_rates(), {})
        self.loop.save_last(curves)
        self.loop.tell(epoch, validation=validation)


def motion_mixture(config: MPoserConfig, splits: Mapping[str, Split]) -> Mixture:
    """Batches of real motion by step. Raises CacheError when no split has a window."""
    part = Part(
        name=_PART,
        splits={name: splits[name] for name in config.motion},
        count=config.batch_size,
        fields=("theta",),
        stride=config.stride,
        strides={name: stride for name, stride in config.strides.items() if name in config.motion},
        weights={name: weight for name, weight in config.window_weights.items() if name in config.motion},
        tail="cover" if config.tail == "cover" else "drop",
    )
    return Mixture([part], seqlen=config.seqlen, seed=config.seed)


def mean_rotations(mixture: Mixture, n_steps: int) -> Tensor:
    """(23, 3, 3), on the CPU: the rotations nearest to the mean of the finite matrices in the first batches."""
    total = torch.zeros(N_ROTATIONS, 3, 3, dtype=torch.float64)
    for step in range(n_steps):
        rotmat = matrices(torch.as_tensor(_theta(mixture, step))).double()  # (B, T, 23, 3, 3)
        total = total + rotmat.nan_to_num(nan=0.0).mean(dim=(0, 1))
    left, _, right = torch.linalg.svd(total)  # total: (23, 3, 3)
    signs = torch.ones(len(total), 1, 3, dtype=total.dtype)  # of left's columns
    signs[:, 0, 2] = torch.linalg.det(left @ right)  # a rotation, not a mirror image
    rotations: Tensor = (signs * left) @ right
    return rotations.float()


def held_out_errors(
    prior: MPoser, mean_pose: Tensor, config: MPoserConfig, splits: Mapping[str, Split]
) -> dict[str, dict[str, Any]]:
    """Of every validation split with windows of labelled motion: how far off the prior and the mean pose are.

    `reconstruction_deg` and `mean_pose_deg`: the mean angle over frames and the 23 joints; windows: how many.
    """
    device = next(prior.parameters()).device
    found = {}
    for name in config.validation:
        n_windows, own, mean = 0, 0.0, 0.0
        for theta in _labelled(splits[name], config.seqlen):
            target = matrices(theta)
            prior.eval()
            with torch.no_grad():
                rotmat, _ = prior(theta[..., MOTION].to(device))
            own += float(geodesic_degrees(rotmat.cpu(), target).double().mean()) * len(theta)
            mean += float(geodesic_degrees(mean_pose, target).double().mean()) * len(theta)
            n_windows += len(theta)
        if n_windows:
            found[name] = {RECONSTRUCTION: own / n_windows, MEAN_POSE: mean / n_windows, "windows": n_windows}
    return found


def _labelled(split: Split, seqlen: int) -> Iterator[Tensor]:
    """theta (B, T, 85) of the split's windows in which every frame has SMPL's labels, some at a time."""
    windows = split.windows(seqlen, seqlen)
    for first in range(0, len(windows), VALIDATION_BATCH):
        arrays = split.read(windows[first : first + VALIDATION_BATCH], stream=None, fields=("theta", "w_smpl"))
        theta = torch.as_tensor(arrays["theta"][(arrays["w_smpl"] > 0).all(axis=1)])
        if len(theta):
            yield theta


def _theta(mixture: Mixture, step: int) -> NDArray[np.float32]:
    theta: NDArray[np.float32] = mixture.read(mixture.draw(step))[_PART]["theta"]
    return theta


def _batches(mixture: Mixture, start: int, stop: int) -> Generator[NDArray[np.float32], None, None]:
    """(B, T, 85) of steps `start` to `stop`. A thread reads the next while the caller works on the last."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as reader:
        ahead = reader.submit(_theta, mixture, start)
        for step in range(start + 1, stop + 1):
            theta = ahead.result()
            if step < stop:
                ahead = reader.submit(_theta, mixture, step)
            yield theta


def _noise(n_windows: int, size: int, seed: int, step: int) -> Tensor:
    """(B, L), standard normal, by the seed and the step alone; the same on any device, as the CPU draws it."""
    digest = hashlib.sha256(f"mposer {seed} {step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(n_windows, size, generator=generator)
