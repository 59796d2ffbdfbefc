"""A trained generator from a checkpoint file, ours or a published one.  training -> [evaluation, prediction]

Imports torch: commands import it when they run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError, PipelineError
from vibe_model import runs
from vibe_model.checkpoints import load_published, read_checkpoint
from vibe_model.errors import CheckpointError
from vibe_model.networks.generator import FEATURE_SIZE, VIBE, build_generator
from vibe_model.settings.config import TrainConfig
from vibe_model.training.vibe import load_body


@dataclass(frozen=True, eq=False)
class Trained:
    """A generator in evaluation mode, on its device, and what its checkpoint records."""

    generator: VIBE
    checkpoint: Path
    kind: str  # ours, vibe (published) or spin (published: frame by frame)
    seqlen: int  # frames of a window that it was trained on
    feature_size: int
    stand_in: bool | None  # trained on demo data? None: an old checkpoint, which does not record it
    features: Mapping[str, Any] | None  # identity of the feature stream that it was trained on, where recorded
    config: TrainConfig | None  # None: a published one

    @property
    def about(self) -> dict[str, Any]:
        """Which checkpoint, by its content: for the files that are made with it."""
        return {"kind": self.kind, "file": self.checkpoint.name, "sha256": runs.file_digest(self.checkpoint)}


def load(checkpoint: Path, body: Path | None, device: str = "auto") -> Trained:
    """Build the generator that the checkpoint was trained as, and fill it.

    body: the folder of SMPL's files; None: the procedural body. device: auto, cpu, cuda, cuda:1, ...
    Checkpoints of ours record how they were built; VIBE's published files have the published sizes; SPIN's has no
    temporal encoder. Raises CheckpointError for another file or other sizes, MissingAssets without the body's files,
    ConfigError for a device that is not there, StandInMixed when one of checkpoint and body is of demo data.
    """
    target = _device(device)
    content = read_checkpoint(checkpoint)
    for key, what in (("course", "the state of a training"), ("mposer_state_dict", "a motion prior")):
        if key in content:
            raise CheckpointError(f"{checkpoint}: expected a model, found {what}. Name the best.pt of a run of VIBE.")
    config = _config(checkpoint, content)
    stand_in = _stand_in(checkpoint, content)
    model = load_body(body)
    runs.one_kind({f"the checkpoint {checkpoint}": stand_in, f"the body in {body}": model.stand_in})
    if config is not None:
        kind, generator = "ours", build_generator(config, model)
    else:
        kind, generator = ("spin", VIBE(model, n_layers=0)) if "model" in content else ("vibe", VIBE(model))
    load_published(generator, checkpoint)
    features = content.get("features")
    return Trained(
        generator=generator.to(target).eval(),
        checkpoint=checkpoint,
        kind=kind,
        seqlen=(config or TrainConfig()).seqlen,  # of a published one, 16
        feature_size=FEATURE_SIZE if config is None else config.feature_size,
        stand_in=stand_in,
        features=features if isinstance(features, Mapping) else None,
        config=config,
    )


def refuse_other_features(trained: Trained, identity: Mapping[str, Any]) -> None:
    """Raise PipelineError for features of another network than the model was trained on, where both are recorded."""
    expected = trained.features
    if trained.kind != "ours" or expected is None or expected.get("kind") == "imported":
        return

    def text(part: Any) -> str:  # as its option is written: untrained:7
        if isinstance(part, Mapping) and part.keys() == {"kind", "argument"}:
            return f"{part['kind']}:{part['argument']}"
        return "not recorded" if part is None else str(part)

    keys = sorted(key for key in expected.keys() | identity.keys() if expected.get(key) != identity.get(key))
    if keys:
        was, now = (", ".join(f"{key} {text(each.get(key))}" for key in keys) for each in (expected, identity))
        raise PipelineError(
            f"{trained.checkpoint}: expected features as those that it was trained on, {was}; found {now}. Name the "
            "same network: --weights, --precision, or [features] of luigi.cfg."
        )


def _config(checkpoint: Path, content: Mapping[str, Any]) -> TrainConfig | None:
    """The settings that a checkpoint of ours was trained with; None for a published one."""
    settings = content.get("config")
    if settings is None:
        return None
    if not isinstance(settings, Mapping):
        raise CheckpointError(f"{checkpoint}: 'config': expected settings by name, found {type(settings).__name__}")
    try:
        return TrainConfig.from_dict(settings)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint}: 'config': {error}. It is of another version of this project: use that one, or train again."
        ) from error


def _stand_in(checkpoint: Path, content: Mapping[str, Any]) -> bool | None:
    """Was it trained on demo data? Published checkpoints were not; None where it is not recorded."""
    if "stand_in" in content:
        return bool(content["stand_in"])
    if "config" not in content:
        return False
    try:  # of before checkpoints recorded it: the run's folder does
        recorded = json.loads((checkpoint.parent / "config.json").read_text()).get("stand_in")
    except (OSError, ValueError, AttributeError):
        return None
    return None if recorded is None else bool(recorded)


def _device(name: str) -> torch.device:
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(chosen)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: expected auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"--device {name}: torch finds no such device here. Use cpu, or auto.")
    return device
