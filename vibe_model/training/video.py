"""Train any model of video features; resumable.  features -> windows -> [training] ->
[evaluation]

`run` is called by the Luigi task `Train` and the command `train`. In this order:

1. `run_once` opens the splits, and returns if the run is finished; `_prepare` checks them with
   the body
2. each process makes the model's `VideoTrainer` (`Model.trainer`), which knows its networks and
   losses, and its `VideoRun`, which loads the pretrained weights and the features
3. `TrainingLoop.carry_out` trains by the run's `batches`, `validate`, `best` and `results`
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from torch import nn
from torch.optim import Adam

from pipeline.errors import DataError
from pipeline.people.estimates import estimates_of
from vibe_model import models, runs
from vibe_model.checkpoints import Checkpoint, LoadReport, load_published
from vibe_model.evaluation import protocols
from vibe_model.evaluation.evaluate import (
    EvalOptions,
    EvalOutput,
    choose_sigma,
    evaluate_all,
    evaluate_split,
)
from vibe_model.evaluation.protocols import Protocol
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.windows import select_tracks
from vibe_model.reading import split_of
from vibe_model.settings import VideoConfig
from vibe_model.stand_in import require_one_kind
from vibe_model.trained import load_body
from vibe_model.training.data import TrainingBatch, TrainingBatches
from vibe_model.training.loop import TrainingLoop, TrainingObserver, run_once
from vibe_model.training.process_group import ProcessGroup
from vibe_model.training.streams import check_streams
from vibe_model.training.trainer import Learner, StepResult, Trainer, weights_of

if TYPE_CHECKING:
    from cache import Split
    from pipeline.people.body import Body


class _Rating(NamedTuple):
    """How the best epoch is chosen."""

    labels: str  # that the validation splits have
    protocol: Protocol
    score: str  # name of the metric to minimise


_BY_3D: Final = _Rating("3D", protocols.DEFAULT, "pa_mpjpe")
_BY_2D: Final = _Rating("2D", protocols.VALIDATION_2D, "error_2d")


class VideoTrainer(Trainer):
    """Base class of all models' trainers: makes the generator, the network that predicts bodies.

    A subclass adds `learners` and the `losses` of one step.
    """

    config: VideoConfig
    generator: VideoModel

    def __init__(self, config: VideoConfig, body: Body, group: ProcessGroup | None = None) -> None:
        """Build the generator.

        Raises ConfigError as `Trainer` does, and if one of `missing_checkpoints` is needed.
        """
        super().__init__(config, group)
        for name in config.missing_checkpoints:
            raise config.checkpoint_error(name)
        self.generator = models.build_generator(config, body).to(self.group.device)

    def train_step(self, batch: TrainingBatch) -> StepResult:
        """`Trainer.train_step`. Raises PlugInError if another package's model fails."""
        with models.calling(self.config.MODEL, "losses, or by its learners"):
            return super().train_step(batch)

    def learner(
        self, network: nn.Module, name: str, *, lr: float, weight_decay: float = 0.0
    ) -> Learner:
        """Make the learner of a network, with Adam. name: in saved states; "gen" for the
        generator.
        """
        # fused: updates all parameters in one pass over memory
        adam = Adam(network.parameters(), lr, weight_decay=weight_decay, fused=True)
        return Learner(self.config, network, name, adam)

    def prepare(self, splits: Mapping[str, Split]) -> None:
        """Hook with the open splits, called before the first step. May raise DataError."""

    def start_from(self, checkpoint: Path) -> LoadReport:
        """Load a checkpoint into the generator. Raises CheckpointError.

        If it is of another model, or if the generator works per frame, only the regressor is
        loaded.
        """
        saved = Checkpoint.read(checkpoint)
        only = "regressor."
        if saved.model_name == self.config.MODEL and not self.config.per_frame:
            only = ""
        return saved.fill(self.generator, only=only)


def run(config: VideoConfig, progress: TrainingObserver | None = None) -> Path:
    """Train and evaluate, or resume that, unless the run is finished. Returns the run's folder.

    Processes of torch's launcher train together; the first of them writes and reports.

    Raises:
        ConfigError, DataError, StandInMixed, CheckpointError: Before training.
        CacheError: A part has no window, or another process trains in the same folder.
        TrainingDiverged: Losses stay non-finite.
    """

    prepare = functools.partial(_prepare, config, progress)
    return run_once(config, prepare, processes=config.processes)


def _prepare(
    config: VideoConfig, progress: TrainingObserver | None, splits: Mapping[str, Split]
) -> Callable[[ProcessGroup], VideoRun]:
    """Check the splits with the body, before anything is written.

    Returns the function that makes the run in a process of the group.
    """
    body = load_body(config.body)
    trainer_type = models.find(config.MODEL).load_trainer()
    stand_in = require_one_kind({"the body": body.is_stand_in}, splits)
    stand_in |= check_streams(config, splits)

    def make_run(group: ProcessGroup) -> VideoRun:
        with models.calling(config.MODEL, "its trainer's constructor"):
            trainer = trainer_type(config, body, group)
        return VideoRun(config, trainer, splits, stand_in=stand_in, observer=progress)

    return make_run


class VideoRun(TrainingLoop):
    """The training run of a model of video features.

    It trains on labelled windows and real motion, validates on other videos after each epoch, and
    evaluates the best epoch by all protocols.
    """

    advice = "lower lr_generator and lr_discriminator, or look at the labels"
    config: VideoConfig
    trainer: VideoTrainer

    def __init__(
        self,
        config: VideoConfig,
        trainer: VideoTrainer,
        splits: Mapping[str, Split],
        *,
        stand_in: bool,
        observer: TrainingObserver | None,
    ) -> None:
        """Check the evaluation, load pretrained weights, then load features."""
        super().__init__(config, trainer, splits, stand_in=stand_in, observer=observer)
        self._check_evaluation()  # first: features take minutes to load
        self._rating = _BY_3D if any(map(self._is_3d, config.validation)) else _BY_2D
        self.score = self._rating.score
        group = self.group
        # The same settings give other numbers on other devices. With another number of processes,
        # the same windows follow, and only dropout and rounding differ.
        self.identity |= {"device": group.device.type}
        estimated = _estimated_bodies(config, splits)
        if estimated:
            self.facts["estimates"] = estimated
        self.facts["processes"] = group.size
        if config.pretrained is None:
            self.facts["starts_from"] = "random weights"

        with models.calling(config.MODEL, "prepare"):
            trainer.prepare(splits)
        # of config.json: how much of the checkpoint `pretrained` was loaded
        self._pretrained = self._start_from_checkpoint()
        self._eval_options = EvalOptions(  # of all evaluations
            stream=config.stream,
            extra_streams=config.extra_streams,
            seqlen=config.seqlen,
            batch_size=config.eval_batch,
        )
        self._batches = TrainingBatches(
            config,
            splits,
            rank=group.rank,
            world_size=group.size,
            read_workers=config.read_workers,
            hold=config.hold,
            device=group.device,
            report=None if self._observer is None else self._observer.show_features,
        )

    def _check_evaluation(self) -> None:
        """Raise DataError for tracks that do not exist."""
        config = self.config
        empty = [
            entry
            for entry in (*config.validation, *config.evaluation)
            if not select_tracks(self.splits[split_of(entry)], config.tracks_of(entry))
        ]
        if empty:
            raise DataError(
                f"validation, evaluation: {', '.join(empty)}: no track matches. Name others."
            )

    def inputs(self) -> dict[str, Any]:
        return {
            **super().inputs(),
            "windows": self._batches.mixture.counts,
            "features": self._batches.where,
            "pretrained": self._pretrained,
            "of_model": self.config.MODEL,
        }

    def batches(self, start: int) -> Generator[TrainingBatch, None, None]:
        device = self.group.device
        windows = self._batches.stream(start, device=device)
        poses = self.config.poses()
        if poses is None:
            yield from windows
            return
        group = self.group
        # real motion is drawn apart from the windows (`VideoConfig.poses`)
        motion = TrainingBatches(
            poses,
            self.splits,
            rank=group.rank,
            world_size=group.size,
            read_workers=self.config.read_workers,
        )
        real = motion.stream(start, device=device)
        with closing(windows), closing(real):
            for batch, motion_batch in zip(windows, real, strict=True):
                yield TrainingBatch(batch.labels, motion_batch.real_theta)

    def validate(self) -> tuple[dict[str, Any], float]:
        """Errors by validation split, and the mean over splits of the score (mm or 2D error).

        The score is PA-MPJPE; if no split has 3D labels, the error in 2D. Raises DataError for a
        split without the labels that it needs.
        """
        config = self.config
        rating = self._rating
        by_split = {}
        scores = []
        unlabelled = []
        for entry in config.validation:
            is_3d = self._is_3d(entry)
            options = replace(
                self._eval_options,
                tracks=config.tracks_of(entry),
                vertices=False,
                keypoints=not is_3d,
            )
            metrics = evaluate_split(
                self.trainer.generator,
                self.splits[split_of(entry)],
                options,
                protocol=rating.protocol,
            )
            by_split[entry] = metrics
            if rating.score in metrics:
                scores.append(metrics[rating.score])
            elif is_3d or rating is _BY_2D:  # a split of 2D labels needs no score beside 3D ones
                unlabelled.append(entry)
        if unlabelled:
            raise DataError(
                f"validation: {', '.join(unlabelled)}: expected frames with {rating.labels} labels "
                "to choose the best epoch by, found none. Name other tracks."
            )
        return by_split, float(np.mean(scores))

    def _is_3d(self, entry: str) -> bool:
        """Whether the split of an entry of `validation` has 3D labels."""
        columns = self.splits[split_of(entry)].columns
        return "kp_3d" in columns or "kp_3d_eval" in columns

    def best(self) -> dict[str, Any]:
        config = self.config
        content = {
            "gen_state_dict": weights_of(self.trainer.generator),
            "of_model": config.MODEL,
            "config": config.as_dict(),
            "features": self._find_identity(config.stream),
        }
        identities = {
            name: self._find_identity(reading.stream)
            for name, reading in config.extra_streams.items()
        }
        if identities:
            content["extra_streams"] = identities
        return content

    def results(self) -> dict[str, Any]:
        """The best epoch's metrics on the evaluation splits, by all protocols.

        Loads best.pt into the generator.
        """
        config = self.config
        generator = self.trainer.generator
        load_published(generator, self.folder / runs.BEST)
        options = self._eval_options
        if config.per_frame and self._rating is _BY_3D:
            # Its predictions, smoothed in time, are another baseline. The width of the smoothing
            # (sigma) is the best one on the validation splits.
            sigma = choose_sigma(
                generator,
                {entry: self.splits[split_of(entry)] for entry in config.validation},
                options,
                tracks={entry: config.tracks_of(entry) for entry in config.validation},
            )
            options = replace(options, smoothed_too=sigma)
        return evaluate_all(
            generator,
            {name: self.splits[name] for name in config.evaluated},
            options,
            tracks=config.evaluated,
            training={name: self.splits[name] for name in config.splits_of("datasets_3d")},
            stand_in=self.facts["stand_in"],
            output=EvalOutput(
                folder=self.folder,
                predictions=True,
                about={"fingerprint": self.fingerprint, "run": self.folder.name},
            ),
        )

    def _find_identity(self, stream: str) -> Mapping[str, Any] | None:
        """Identity of a stream's network, from the first split that records it; else None."""
        for name, streams in self.config.streams.items():
            if stream in streams:
                manifest = self.splits[name].open_stream(stream).manifest
                if "identity" in manifest:
                    identity: Mapping[str, Any] = manifest["identity"]
                    return identity
        return None

    def _start_from_checkpoint(self) -> dict[str, Any] | None:
        """Load the checkpoint `pretrained` into the generator; None if none is configured.

        Returns the checkpoint's kind, and the numbers of used and ignored tensors. Raises
        StandInMixed for a checkpoint of demo data with a real body.
        """
        pretrained = self.config.pretrained
        if pretrained is None:
            return None
        if Checkpoint.read(pretrained).stand_in:
            body = self.trainer.generator.body
            require_one_kind({f"the checkpoint {pretrained}": True, "the body": body.is_stand_in})
        report = self.trainer.start_from(pretrained)
        return {"kind": report.kind, "used": len(report.used), "ignored": len(report.ignored)}


def _estimated_bodies(config: VideoConfig, splits: Mapping[str, Split]) -> dict[str, str]:
    """Training splits whose body labels are estimates instead of ground truth.

    Returns split -> description, such as "estimates of WHAM". Splits of which only the 2D joints
    are trained on are not included.
    """
    estimated = {}
    for part in config.parts:
        if part == "datasets_2d":  # 2D joints alone
            continue
        for name in config.splits_of(part):
            source = estimates_of(splits[name])
            if source:
                estimated[name] = source
    return estimated
