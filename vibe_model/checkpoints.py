"""Read and write checkpoints, and load the trained models in them.

A checkpoint is a dict, saved by torch. These files have a model, each under another key:

    gen_state_dict   "vibe": VIBE's published files, and best.pt of a run here, which also has the
                     run's settings ("config"), its model ("of_model") and its streams' identities
    model            "spin": SPIN's file, a ResNet-50 and VIBE's regressor
    state_dict       "hmr2.0": HMR2.0's file, a vision transformer and its heads

`load_published` fills a module from one of them; `load_trained` builds the generator first, for
prediction and evaluation (`Trained`). Training saves by `save` and resumes by `read_checkpoint`.
Reading runs no code from a file. Writes are atomic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError, DataError, RawDataError
from pipeline.files.formats.checkpoints import load_checkpoint
from pipeline.plug_ins import PlugInError
from vibe_model import models, runs
from vibe_model.devices import device_of
from vibe_model.networks.hmr2_heads import TOKEN_SIZE, Hmr2Head
from vibe_model.networks.video_model import VideoModel
from vibe_model.result_files import replace_file
from vibe_model.settings import VideoConfig

if TYPE_CHECKING:
    from cache import Split
    from pipeline.body import Body

Kind = Literal["vibe", "spin", "hmr2.0"]  # how a file is read
TrainedKind = Kind | Literal["ours"]  # where a model is from: published, or "ours" of a run here
HMR2: Final = "hmr2.0"
HMR2_STREAM: Final = "hmr2"  # HMR2.0's features, the token of its decoder
# suffix of PyTorch Lightning's files (HMR2.0); their settings are not read
LIGHTNING: Final = ".ckpt"


@dataclass(frozen=True, slots=True)
class _FileFormat:
    """How a kind of file names its tensors."""

    kind: Kind
    key: str  # of the dict of tensors
    # prefixes of tensors that no model here uses
    unused: tuple[str, ...] = ()
    # Prefix to add to the file's names: SPIN's "decpose.weight" is our "regressor.decpose.weight".
    added_prefix: str = ""


_FORMATS: Final = (
    _FileFormat("vibe", "gen_state_dict"),
    _FileFormat(
        "spin",
        "model",
        unused=("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."),  # its ResNet-50
        added_prefix="regressor.",
    ),
    _FileFormat(
        HMR2,
        "state_dict",
        # of its feature network and its discriminator
        unused=("backbone.", "smpl_head.transformer.", "discriminator.", "initialized"),
    ),
)
# prefixes of SMPL's data, which the body model has
_BODY_PREFIXES: Final = ("regressor.smpl.", "smpl.")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Which tensors of a checkpoint a model was filled with."""

    kind: Kind
    used: tuple[str, ...]  # names in the model of tensors that were filled
    # names in the file of tensors that were not used: body data, a backbone, parts not requested
    ignored: tuple[str, ...]
    # names in the model of tensors that the file lacks, such as the encoder's for SPIN's file
    untouched: tuple[str, ...]


def load_published(model: nn.Module, path: Path | str, *, only: str = "") -> LoadReport:
    """Fill `model` from a checkpoint of ours, VIBE's or HMR2.0's, or its regressor from SPIN's.

    only: prefix of the part of the model to read, such as "regressor."; the rest is ignored.

    Raises CheckpointError, and leaves the model unchanged, for a missing, damaged or unsafe file,
    and for tensors that are missing, extra (body data aside), misshapen or non-finite.
    """
    path = Path(path)
    return _fill(model, path, read_checkpoint(path), only)


def _fill(model: nn.Module, path: Path, content: Mapping[str, Any], only: str = "") -> LoadReport:
    """Fill a model from the content of a checkpoint, as `load_published` does."""
    file_format = _find_format(path, content)
    requested = only or file_format.added_prefix  # the part of the model to fill; "" for all of it
    unused = _BODY_PREFIXES + file_format.unused

    chosen = {}
    ignored = []
    for name, tensor in content[file_format.key].items():
        model_name = f"{file_format.added_prefix}{name}"
        if str(name).startswith(unused) or not model_name.startswith(requested):
            ignored.append(str(name))
        else:
            chosen[model_name] = tensor

    state = model.state_dict()
    expected = {name: tensor for name, tensor in state.items() if name.startswith(requested)}
    check_tensors(path, expected, chosen)
    with torch.no_grad():
        for name, tensor in chosen.items():
            state[name].copy_(tensor)  # state_dict() shares memory with the model
    untouched = tuple(name for name in state if name not in chosen)
    return LoadReport(file_format.kind, tuple(chosen), tuple(ignored), untouched)


def _find_format(path: Path, content: Mapping[str, Any]) -> _FileFormat:
    """Return a checkpoint's format. Raises CheckpointError unless it has one dict of tensors.

    The kind is "vibe" for checkpoints of this project, too.
    """
    present = [file_format for file_format in _FORMATS if file_format.key in content]
    if len(present) != 1 or not isinstance(content[present[0].key], Mapping):
        raise _not_a_model(path, content)
    return present[0]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the file's dict on the CPU, without running code from it. Raises CheckpointError."""
    if not path.is_file():
        actual = "a folder" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: expected a checkpoint, found {actual}")
    is_lightning = path.suffix == LIGHTNING
    try:
        return load_checkpoint(path, settings=is_lightning, mapped=is_lightning)
    except RawDataError as error:
        raise CheckpointError(f"{error} Do not load it by other means.") from error


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically."""
    replace_file(path, lambda stream: torch.save(dict(state), stream))


def check_tensors(path: Path, expected: Mapping[str, Tensor], tensors: Mapping[Any, Any]) -> None:
    """Raise CheckpointError unless a file's `tensors` have the expected names and shapes, and are
    finite.
    """
    missing = expected.keys() - tensors.keys()
    extra = tensors.keys() - expected.keys()
    if missing or extra:
        raise CheckpointError(
            f"{path}: expected exactly the model's tensors; missing: {first_names(missing)}; "
            f"extra: {first_names(map(str, extra))}. Build the model with the settings that the "
            "checkpoint was trained with."
        )
    for name, like in expected.items():
        tensor = tensors[name]
        if (
            not isinstance(tensor, Tensor)
            or tensor.layout is not torch.strided
            or tensor.device.type != "cpu"
        ):
            raise CheckpointError(
                f"{path}: {name!r}: expected a plain tensor, found {type(tensor).__name__}"
            )
        if tensor.shape != like.shape or tensor.is_floating_point() != like.is_floating_point():
            kind = str(like.dtype)
            if like.is_floating_point():
                kind = "floats"
            raise CheckpointError(
                f"{path}: {name!r}: expected {tuple(like.shape)} {kind}, found "
                f"{tuple(tensor.shape)} {tensor.dtype}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{path}: {name!r}: expected finite numbers, found nan or infinity"
            )


def first_names(names: Iterable[str]) -> str:
    """The first five names and the number of the others, for a message."""
    shown = sorted(names)
    text = ", ".join(shown[:5]) or "none"
    if len(shown) > 5:
        text += f" and {len(shown) - 5} more"
    return text


@dataclass(frozen=True, eq=False)
class Trained:
    """A generator in evaluation mode, on its device, with the records of its checkpoint."""

    generator: VideoModel
    checkpoint: Path
    kind: TrainedKind  # SPIN's and HMR2.0's models work frame by frame
    config: VideoConfig
    stand_in: bool  # trained on demo data
    # identity of the feature stream of its training, if recorded
    features: Mapping[str, Any] | None
    # Identities of its extra streams, by the argument of `VideoModel.regress` that takes them, such
    # as "homography". The argument for the main features is "features".
    extra_streams: Mapping[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        """Facts about the checkpoint, for files made with it."""
        return {
            "kind": self.kind,
            "file": self.checkpoint.name,
            "sha256": runs.file_digest(self.checkpoint),
        }

    @property
    def title(self) -> str:
        if self.kind == "spin":
            return "SPIN"
        if self.kind == HMR2:
            return "HMR2.0"
        return models.model_of(self.config).title

    @property
    def stream(self) -> str | None:
        """Name of the feature stream that the model reads.

        A run records it, and HMR2.0 has its own. None for the published models of SPIN's features
        (kinds "vibe" and "spin"): the caller chooses, because their stream may have any name.
        """
        return None if self.kind in ("vibe", "spin") else self.config.stream

    def _streams(self, stream: str) -> dict[str, str]:
        """The streams that the model reads, by argument.

        stream: Name of the features' stream. Example: {"features": "resnet50", "homography":
        "homography"}.
        """
        streams = {"features": stream}
        for name, extra in self.config.extra_streams.items():
            streams[name] = extra.stream
        return streams

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
            manifest = split.open_stream(name).manifest
            self.check_features(
                f"{split.name}/{name}", manifest["dim"], manifest.get("identity"), argument=argument
            )

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
        if argument == "features":
            size = self.config.feature_size
            expected = self.features
        else:
            size = self.config.extra_streams[argument].size
            expected = self.extra_streams.get(argument)
        if dim != size:
            raise DataError(
                f"{name}: expected {argument} of {size} numbers, as {self.checkpoint} was "
                f"trained on, found {dim}. Name the "
                "stream that it was trained on: --stream, or [features] of luigi.cfg."
            )
        if expected and identity:
            self._check_identity(name, expected, identity, argument)

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
        if self.kind != HMR2:  # HMR2.0's file tells kind and weights alone (`load_trained`)
            compared |= identity.keys()
        differing = sorted(key for key in compared if expected.get(key) != identity.get(key))
        if differing:
            do = "Name the same network: --weights, --precision, or [features] of luigi.cfg."
            if self.kind == HMR2:
                do = "Extract them by this file, as stream of another name, or predict clips."
            raise DataError(
                f"{name}: expected {argument} as those that {self.checkpoint} was trained on, "
                f"{_entries(expected, differing)}; found {_entries(identity, differing)}. {do}"
            )


def load_trained(checkpoint: Path, body: Path | None, device: str = "auto") -> Trained:
    """Load a trained generator.

    Our checkpoints contain the settings; VIBE's files have the published sizes; SPIN's has no
    temporal encoder; heads of HMR2.0 need features of the same file.

    body: folder of SMPL's files; None: the procedural body. device: auto, cpu, cuda, cuda:1, ...
    Raises CheckpointError for another file or other sizes, MissingAssets for missing body files,
    ConfigError for a missing device, StandInMixed if only one of checkpoint and body is demo data.
    """
    target = device_of(device)
    content = read_checkpoint(checkpoint)
    _refuse_other_states(checkpoint, content)
    stand_in = bool(content.get("stand_in", False))
    kind: TrainedKind = "ours"
    config = _recorded_config(checkpoint, content)
    if config is None:
        kind = _find_format(checkpoint, content).kind
        config = _published_config(kind)
    body_model = load_body(body)  # after the checks of the checkpoint, which do not need it
    runs.require_one_kind(
        {f"the checkpoint {checkpoint}": stand_in, f"the body in {body}": body_model.is_stand_in}
    )

    features = content.get("features")
    if kind == HMR2:  # its heads need tokens of this checkpoint
        features = {
            "kind": HMR2_STREAM,
            "weights": {"kind": "file", "file_sha256": runs.file_digest(checkpoint)},
        }
        generator: VideoModel = Hmr2Head(body_model)
    else:
        generator = models.build_generator(config, body_model)
    _fill(generator, checkpoint, content)
    return Trained(
        generator=generator.to(target).eval(),
        checkpoint=checkpoint,
        kind=kind,
        config=config,
        stand_in=stand_in,
        features=features,
        extra_streams=content.get("extra_streams") or {},
    )


def _refuse_other_states(checkpoint: Path, content: Mapping[str, Any]) -> None:
    """Raise CheckpointError for files of training that have no generator alone."""
    for key, noun in (
        ("training", "the state of a training"),  # last.pt
        ("mposer_state_dict", "a motion prior"),
    ):
        if key in content:
            raise CheckpointError(
                f"{checkpoint}: expected a model, found {noun}. Name the best.pt of a run."
            )


def _published_config(kind: Kind) -> VideoConfig:
    """Settings of a published model: VIBE's, or for SPIN and HMR2.0 those without a time encoder.

    SPIN's file fills VIBE's regressor, which is applied frame by frame.
    """
    vibe = models.find("vibe")
    if kind == "vibe":
        return models.variant_of(vibe.config(), "")
    config = models.variant_of(vibe.config(), vibe.baseline)
    if kind == HMR2:
        return replace(config, stream=HMR2_STREAM, feature_size=TOKEN_SIZE)
    return config


def _recorded_config(checkpoint: Path, content: Mapping[str, Any]) -> VideoConfig | None:
    """The settings with which a checkpoint was trained; None for a published checkpoint."""
    settings = content.get("config")
    if settings is None:
        return None
    name = content.get("of_model", "vibe")
    if name not in models.names():
        missing = models.missing_label(name)
        raise CheckpointError(f"{checkpoint}: checkpoint of {missing}. Install that package.")
    try:
        return models.find(name).config.from_dict(settings)
    except PlugInError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    except (AttributeError, ConfigError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint}: 'config': {error}. Another version of this project made it: use "
            "that one, or train again."
        ) from error


def load_body(folder: Path | None) -> Body:
    """Load the body from SMPL's files; None: the procedural one."""
    from pipeline.body import Body  # smplx is slow to import, and a finished run needs none

    if folder is None:
        return Body.stand_in()
    return Body.load(folder)


def _not_a_model(path: Path, content: Mapping[str, Any]) -> CheckpointError:
    keys = ", ".join(repr(file_format.key) for file_format in _FORMATS)
    return CheckpointError(
        f"{path}: expected one dict of tensors, {keys}; found keys: "
        f"{first_names(map(str, content))}. Name the best.pt of a run, or a published file of "
        "VIBE, SPIN or HMR2.0."
    )


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
