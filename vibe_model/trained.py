"""Trained models: a generator with the records of its checkpoint.  training -> [prediction,
evaluation]

`Trained.load` builds the generator of a checkpoint and fills it (`vibe_model.checkpoints`). A
`Trained` knows which streams it reads, and refuses features of another network. What differs
between our checkpoints and the published ones is in their `_ModelOrigin`. HMR2.0's file has no
model of ours: `HMR2Head` are its heads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.plug_ins import PlugInError
from vibe_model import models
from vibe_model.checkpoints import HMR2, Checkpoint, Kind
from vibe_model.devices import device_of
from vibe_model.files import file_digest
from vibe_model.networks.hmr2 import TOKEN_SIZE, HMR2Head
from vibe_model.networks.video_model import VideoModel
from vibe_model.settings import VideoConfig
from vibe_model.stand_in import require_one_kind

if TYPE_CHECKING:
    from cache import Split
    from pipeline.people.body import Body

TrainedKind = Kind | Literal["ours"]  # where a model is from: published, or "ours" of a run here
HMR2_STREAM: Final = "hmr2"  # HMR2.0's features


@dataclass(frozen=True, kw_only=True)
class _ModelOrigin:
    """Where a model is from, and what that decides."""

    kind: TrainedKind  # as files record it
    title: str | None = None  # None: that of the settings' model
    configure: Callable[[Checkpoint], VideoConfig]
    build: Callable[[VideoConfig, Body], VideoModel] = models.build_generator
    # Whether it reads SPIN's features, whose stream may have any name: the caller chooses.
    reads_spin: bool = False
    # Whether it reads features of its own file. They are identified by the file alone.
    has_own_network: bool = False


class _ModelInput(NamedTuple):
    """A stream that a model reads."""

    stream: str  # its name in the training
    size: int  # numbers per row
    identity: Mapping[str, Any] | None  # of its network, as far as recorded


@dataclass(frozen=True, eq=False)
class Trained:
    """A generator in evaluation mode, on its device, with the records of its checkpoint."""

    generator: VideoModel
    checkpoint: Path
    origin: _ModelOrigin
    config: VideoConfig
    stand_in: bool  # trained on demo data
    # By the argument of `VideoModel.regress` that takes the stream: "features", or an extra one, as
    # "homography".
    inputs: Mapping[str, _ModelInput]

    @classmethod
    def load(cls, checkpoint: Path, body: Path | None, device: str = "auto") -> Self:
        """Load a trained generator.

        Our checkpoints contain the settings; VIBE's files have the published sizes; SPIN's has no
        temporal encoder; heads of HMR2.0 need features of the same file.

        body: folder of SMPL's files; None: the procedural body. device: auto, cpu, cuda, cuda:1,
        ... Raises CheckpointError for another file or other sizes, MissingAssets for missing body
        files, ConfigError for a missing device, StandInMixed if only one of checkpoint and body is
        demo data.
        """
        target = device_of(device)
        saved = Checkpoint.read(checkpoint)
        _refuse_other_states(saved)
        origin = _OURS
        if saved.content.get("config") is None:
            origin = _PUBLISHED[saved.kind]
        config = origin.configure(saved)
        body_model = load_body(body)  # after the checks of the checkpoint, which do not need it
        require_one_kind(
            {
                f"the checkpoint {checkpoint}": saved.stand_in,
                f"the body in {body}": body_model.is_stand_in,
            }
        )
        generator = origin.build(config, body_model)
        saved.fill(generator)
        return cls(
            generator=generator.to(target).eval(),
            checkpoint=checkpoint,
            origin=origin,
            config=config,
            stand_in=saved.stand_in,
            inputs=_inputs_of(saved, config, origin),
        )

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """Facts about the checkpoint, for files made with it."""
        return {
            "kind": self.origin.kind,
            "file": self.checkpoint.name,
            "sha256": file_digest(self.checkpoint),
        }

    @property
    def title(self) -> str:
        return self.origin.title or models.find(self.config.MODEL).title

    @property
    def stream(self) -> str | None:
        """Name of the feature stream that the model reads, from a run or for HMR2.0. None: the
        caller chooses.
        """
        return None if self.origin.reads_spin else self.config.stream

    def _streams(self, stream: str) -> dict[str, str]:
        """The streams that the model reads, by argument.

        stream: Name of the features' stream. Example: {"features": "resnet50", "homography":
        "homography"}.
        """
        streams = {argument: reading.stream for argument, reading in self.inputs.items()}
        return {**streams, "features": stream}

    def has_random_features(self, split: Split, stream: str) -> bool:
        """Whether one of the model's streams has random weights."""
        names = self._streams(stream).values()
        return any(split.open_stream(name).manifest.get("stand_in") for name in names)

    def check_split(self, split: Split, stream: str) -> None:
        """Raise DataError if the split lacks a stream that the model reads, or has another one.

        `check_features` says which streams are others. stream: the name of the features' stream.
        """
        streams = self._streams(stream)
        absent = [name for name in streams.values() if name not in split.streams]
        if absent:
            has = ", ".join(split.streams) or "none"
            raise DataError(
                f"{split.name}: expected the streams {', '.join(absent)}, which "
                f"{self.checkpoint} reads; found {has}. "
                "Extract them, or name another stream of features: --stream."
            )
        for argument, name in streams.items():
            opened = split.open_stream(name)
            title = f"{split.name}/{name}"
            identity = opened.manifest.get("identity")
            self.check_features(title, opened.form.dim, identity, argument=argument)

    def check_features(
        self,
        name: str,
        dim: int,
        identity: Mapping[str, Any] | None = None,
        *,
        argument: str = "features",
    ) -> None:
        """Raise DataError if a stream has another size than the model expects, or another network.

        The networks are compared if both are recorded.

        Args:
            name: The stream's name for messages.
            dim: Numbers per frame.
            identity: The stream's network, as the stream's manifest records it.
            argument: The model's argument that reads the stream, such as "homography".
        """
        expected = self.inputs[argument]
        if dim != expected.size:
            raise DataError(
                f"{name}: expected {argument} of {expected.size} numbers, as {self.checkpoint} was "
                f"trained on, found {dim}. Name the "
                "stream that it was trained on: --stream, or [features] of luigi.cfg."
            )
        if expected.identity and identity:
            self._check_identity(name, expected.identity, identity, argument)

    def _check_identity(
        self, name: str, expected: Mapping[str, Any], identity: Mapping[str, Any], argument: str
    ) -> None:
        """Raise DataError if two recorded networks differ.

        expected: Of the training. identity: Of the stream to read. Imported features pass: their
        network is unknown.
        """
        if "imported" in (expected.get("kind"), identity.get("kind")):
            return
        compared = set(expected)
        do = "Extract them by this file, as stream of another name, or predict clips."
        if not self.origin.has_own_network:
            compared |= identity.keys()
            do = "Name the same network: --weights, --precision, or [features] of luigi.cfg."
        differing = sorted(key for key in compared if expected.get(key) != identity.get(key))
        if differing:
            raise DataError(
                f"{name}: expected {argument} as those that {self.checkpoint} was trained on, "
                f"{_entries(expected, differing)}; found {_entries(identity, differing)}. {do}"
            )


def _inputs_of(
    saved: Checkpoint, config: VideoConfig, origin: _ModelOrigin
) -> dict[str, _ModelInput]:
    """The streams of a checkpoint's training, by argument; the features first."""
    identity = saved.content.get("features")
    if origin.has_own_network:
        weights = {"kind": "file", "file_sha256": file_digest(saved.path)}
        identity = {"kind": config.stream, "weights": weights}
    inputs = {"features": _ModelInput(config.stream, config.feature_size, identity)}
    recorded = saved.content.get("extra_streams") or {}
    for argument, reading in config.extra_streams.items():
        inputs[argument] = _ModelInput(reading.stream, reading.size, recorded.get(argument))
    return inputs


def _refuse_other_states(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError for files of training that have no generator alone."""
    for key, noun in (
        ("training", "the state of a training"),  # last.pt
        ("mposer_state_dict", "a motion prior"),
    ):
        if key in checkpoint.content:
            raise CheckpointError(
                f"{checkpoint.path}: expected a model, found {noun}. Name the best.pt of a run."
            )


def _recorded_config(checkpoint: Checkpoint) -> VideoConfig:
    """The settings with which a checkpoint of ours was trained."""
    name = checkpoint.model_name
    if name not in models.names():
        missing = models.missing_label(name)
        raise CheckpointError(f"{checkpoint.path}: checkpoint of {missing}. Install that package.")
    try:
        return models.find(name).config.from_dict(checkpoint.content["config"])
    except PlugInError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error
    except (AttributeError, ConfigError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: 'config': {error}. Another version of this project made it: use "
            "that one, or train again."
        ) from error


def _config_by_frame(_: Checkpoint, **changes: Any) -> VideoConfig:
    """VIBE's settings without a time encoder: SPIN's file fills VIBE's regressor."""
    vibe = models.find("vibe")
    return replace(vibe.vary(vibe.config(), vibe.baseline), **changes)


def load_body(folder: Path | None) -> Body:
    """Load the body from SMPL's files; None: the procedural one."""
    from pipeline.people.body import Body  # smplx is slow to import, and a finished run needs none

    if folder is None:
        return Body.stand_in()
    return Body.load(folder)


def _entries(identity: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Entries of a stream's identity, for a message."""
    return ", ".join(f"{key} {_text(identity.get(key))}" for key in keys)


def _text(entry: Any) -> str:
    """An entry of a stream's identity, written as its option: untrained:7"""
    if entry is None:
        return "not recorded"
    if isinstance(entry, Mapping) and "kind" in entry:
        return f"{entry['kind']}:{entry.get('argument') or str(entry.get('file_sha256'))[:12]}"
    return str(entry)


_OURS: Final = _ModelOrigin(kind="ours", configure=_recorded_config)
_PUBLISHED: Final[Mapping[Kind, _ModelOrigin]] = {
    "vibe": _ModelOrigin(
        kind="vibe", configure=lambda _: models.find("vibe").config(), reads_spin=True
    ),
    "spin": _ModelOrigin(kind="spin", title="SPIN", configure=_config_by_frame, reads_spin=True),
    HMR2: _ModelOrigin(
        kind=HMR2,
        title="HMR2.0",
        configure=functools.partial(_config_by_frame, stream=HMR2_STREAM, feature_size=TOKEN_SIZE),
        build=lambda _, body: HMR2Head(body),
        has_own_network=True,
    ),
}
