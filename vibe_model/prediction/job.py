"""What to predict: a split of a cache and the streams that the model reads.  [tracks, features] ->
bodies

`tasks predict` calls these functions in this order; for a split, the last one only:

1. `streams_to_prepare`: the streams that the model reads, computed while preparing the clips
2. `PredictionJob.open`: a job for each prepared split, which `predict_videos` carries out
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import cache
from pipeline.errors import ConfigError, DataError
from pipeline.features import streams as kinds
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.network import ResNet50
from pipeline.files.outputs import OutputRule
from pipeline.files.raw import is_demo_data
from pipeline.settings.sections import Settings, stream_of
from vibe_model.stand_in import require_one_kind
from vibe_model.trained import Trained


@dataclass(frozen=True, eq=False)
class PredictionJob:
    """All that a prediction needs: a split of a cache, its feature stream, a model, options."""

    root: cache.Root
    split: cache.Split
    stream: str  # name of the stream with the model's features
    trained: Trained
    out: Path
    stand_in: bool  # made with demo data or random weights, and marked so
    raw: Path | None = None  # the raw folder; None: as recorded at conversion
    smooth: float = 0.0  # sigma of a Gaussian over time, in frames
    tracks: str = "*"  # pattern of track names
    overlay: bool = True
    export: bool = False  # motion files, too
    rule: OutputRule = field(default_factory=lambda: OutputRule("predict"))

    @classmethod
    def open(
        cls,
        root: cache.Root,
        name: str,
        trained: Trained,
        stream: str,
        out: Path,
        raw: Path | None = None,
    ) -> Self:
        """Make the job for a split that has features. stream: Name of the stream with the features.

        Raises CacheError for a missing split, StandInMixed, and what `Trained.check_split` raises.
        """
        split = cache.open(root)[name]
        require_one_kind({"the checkpoint": trained.stand_in}, {name: split})
        trained.check_split(split, stream)
        stand_in = trained.has_random_features(split, stream)
        stand_in |= trained.generator.body.is_stand_in
        return cls(root, split, stream, trained, out, stand_in, raw)

    def doubt(self, streams: Sequence[StreamSpec]) -> str | None:
        """A reason to doubt the predicted bodies. streams: of `streams_to_prepare`."""
        features = streams[-1]
        network = features.stream
        is_spin = isinstance(network, ResNet50) and network.weights.kind == "spin"
        needs_spin = self.trained.origin.reads_spin and not self.stand_in
        if is_spin or not needs_spin:
            return None
        return (
            f"{self.trained.checkpoint.name} was trained on SPIN's features, but these are "
            f"{features.name}"
        )


def streams_to_prepare(
    trained: Trained, settings: Settings, raw: Path, weights: str | None, embedding: Path | None
) -> tuple[StreamSpec, ...]:
    """The streams that a model reads, its features last, from its checkpoint and `settings`.

    Args:
        weights: Weights of the feature network; overrides [features].
        embedding: Checkpoint of the 2D pose embedding. None: the file used in training.

    Raises:
        StandInMixed: body and images are not both real or both demo data.
        ConfigError: a file is missing, or random weights would be used on real images.
        DataError: a stream's size differs from the model's.
    """
    require_one_kind(
        {
            f"the images of {raw}": is_demo_data(raw),
            f"the body of {trained.checkpoint}": trained.generator.body.is_stand_in,
        }
    )
    features = _feature_stream(trained, settings, weights)
    trained.check_features(f"stream {features.name!r}", features.stream.dim)
    specs = (*_extra_streams(trained, embedding), features)
    for spec in specs:
        if not is_demo_data(raw):
            spec.refuse_random_weights(str(raw), f"the weights of {spec.name}")
    return specs


def _feature_stream(trained: Trained, settings: Settings, weights: str | None) -> StreamSpec:
    """The stream of features: HMR2.0's own network; for other models the one in [features], or a
    ResNet-50 with these weights.
    """
    if trained.origin.has_own_network:
        if weights is not None:
            raise ConfigError(
                f"--weights {weights}: {trained.checkpoint.name} has its own network. Omit "
                "--weights."
            )
        stream = trained.config.stream
        checkpoint = str(trained.checkpoint)
        return stream_of(settings.source.override(stream, "checkpoint", checkpoint), stream)
    if weights is not None:
        source = settings.source.override(ResNet50.kind, "weights", weights, "--weights")
        return stream_of(source, ResNet50.kind)
    return settings.stream


def _extra_streams(trained: Trained, embedding: Path | None) -> Iterator[StreamSpec]:
    """Yield the streams that the model reads besides its features, computed as its checkpoint
    records.
    """
    for argument, reading in trained.config.extra_streams.items():
        identity = trained.inputs[argument].identity
        if identity is None:
            raise DataError(
                f"{trained.checkpoint}: it does not record how its stream {reading.stream!r} "
                "was computed. Predict a split that has this stream."
            )
        stream = kinds.of_identity(identity)
        if stream is None:  # its weights are in a file
            file = embedding or trained.config.files().get("embedding")
            if file is None:
                raise ConfigError(
                    f"{trained.checkpoint}: name the 2D pose embedding: --pose-embedding FILE"
                )
            stream = kinds.get(str(identity["kind"])).with_weights(file)
        trained.check_features(f"stream {reading.stream!r}", stream.dim, argument=argument)
        yield StreamSpec(reading.stream, stream)
