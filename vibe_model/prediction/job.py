"""What to predict: a split of a cache and the streams that the model reads.  [tracks, features] ->
bodies

`tasks predict` calls these functions in this order; for a split, the last one only:

1. `clips_folder`: the raw folder to prepare; a single clip is linked into one
2. `streams_to_prepare`: the streams that the model reads, computed while preparing the clips
3. `PredictionJob.open`: a job for each prepared split, which `predict_videos` carries out
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Self

import cache
from pipeline.clips.files import ENDINGS, KEYPOINTS, visible_entries
from pipeline.clips.labels import ClipLabels, labels_of, require_own_labels, require_own_name
from pipeline.errors import ConfigError, DataError
from pipeline.features import streams as kinds
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.network import ResNet50
from pipeline.files.raw import MARKER, is_stand_in
from pipeline.files.raw.files import VIDEOS
from pipeline.settings.sections import Settings, stream_of
from vibe_model import runs
from vibe_model.checkpoints import HMR2
from vibe_model.trained import Trained

# ending of the folder of links to single clips: CACHE-clips; for a cache in a bucket: OUT/clips
CLIPS: Final = "clips"


@dataclass(frozen=True, eq=False)
class PredictionJob:
    """All that a prediction needs: a split, its feature stream, a model, options."""

    root: cache.Root
    name: str  # of the split
    stream: str  # name of the stream with the model's features
    trained: Trained
    out: Path
    stand_in: bool  # made with demo data or random weights, and marked so
    raw: Path | None = None  # the raw folder; None: as recorded at conversion
    smooth: float = 0.0  # sigma of a Gaussian over time, in frames
    tracks: str = "*"  # pattern of track names
    overlay: bool = True
    export: bool = False  # motion files, too

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
        runs.require_one_kind({"the checkpoint": trained.stand_in}, {name: split})
        trained.check_split(split, stream)
        stand_in = trained.has_random_features(split, stream)
        stand_in |= trained.generator.body.is_stand_in
        return cls(root, name, stream, trained, out, stand_in, raw)

    def split(self) -> cache.Split:
        return cache.open(self.root)[self.name]

    def doubt(self, streams: Sequence[StreamSpec]) -> str | None:
        """A reason to doubt the predicted bodies. streams: of `streams_to_prepare`."""
        features = streams[-1]
        network = features.stream
        is_spin = isinstance(network, ResNet50) and network.weights.kind == "spin"
        needs_spin = self.trained.kind in ("vibe", "spin") and not self.stand_in
        if is_spin or not needs_spin:
            return None
        return (
            f"{self.trained.checkpoint.name} was trained on SPIN's features, but these are "
            f"{features.name}"
        )


def clips_folder(named: Path, root: cache.Root, out: Path) -> Path:
    """The raw folder of clips: `named`, or for a single clip the cache's folder of links.

    Links the clip and its keypoints there beside those of earlier commands, so that one cache holds
    all of them. A clip takes the place of an earlier one of its name, keypoints included:

        CACHE-clips/a.mp4                     link to the clip
        CACHE-clips/keypoints/a.mp4.json      link to its keypoints in a file, or
        CACHE-clips/keypoints/a.mp4           link to its keypoints in a folder
        CACHE-clips/keypoints/.a.mp4.json     copy of keypoints in a ZIP file, which the link needs
        CACHE-clips/STAND_IN.json             copy of the marker, if this clip is demo data

    The link to keypoints has the clip's whole file name, which no other clip shares: keypoints of
    a.mp4 may be in a.json, and the link to them is a.mp4.json.

    Raises ConfigError for a file that is no clip, and for a file in the link's place; RawDataError
    for keypoints that may belong to another clip.
    """
    if named.is_dir():
        return named
    if not named.is_file() or named.suffix.lower() not in VIDEOS:
        actual = "another file" if named.is_file() else "no such file or folder"
        raise ConfigError(
            f"{named}: expected a clip ({ENDINGS}) or a folder of clips, found {actual}"
        )

    raw = out / CLIPS  # for a cache in a bucket
    folder = cache.local_folder(root)
    if folder is not None:
        raw = folder.with_name(f"{folder.name}-{CLIPS}")
    clip = named.absolute()
    if clip.parent.resolve() == raw.resolve():  # a link of an earlier command
        return raw

    keypoints = raw / KEYPOINTS
    keypoints.mkdir(parents=True, exist_ok=True)
    links = {raw / clip.name: clip}  # link -> target
    labels = _find_labels(clip)
    if labels is not None:
        name = clip.name
        if not labels.is_dir():
            name += labels.suffix
        links[keypoints / name] = labels

    _require_no_files(links)
    _remove_label_links(clip.name, keypoints)
    for link, target in links.items():
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    _copy_demo_marker(clip, raw)
    return raw


def _find_labels(clip: Path) -> Path | None:
    """Find the file or folder of a clip's keypoints, in the folder `keypoints` beside the clip.

    Raises RawDataError for keypoints that may belong to another clip.
    """
    folder = clip.parent
    names = [entry.name for entry in visible_entries(folder)]
    siblings = [name for name in names if name.lower().endswith(VIDEOS)]
    video = ClipLabels(folder, siblings).video(clip.name)
    labels = labels_of(folder, video)
    if labels is not None:
        require_own_labels(video, labels)
        require_own_name(folder / KEYPOINTS, video, labels, clip.name)
    return labels


def _remove_label_links(clip_name: str, keypoints: Path) -> None:
    """Remove links to the labels of an earlier clip of this name."""
    for entry in visible_entries(keypoints):
        if clip_name in (entry.name, PurePath(entry.name).stem) and entry.is_symlink():
            Path(entry).unlink()


def _require_no_files(links: Mapping[Path, Path]) -> None:
    """Raise ConfigError for a file in a link's place. links: link -> target."""
    for link, target in links.items():
        if link.exists() and not link.is_symlink():
            raise ConfigError(
                f"{link}: expected a link to {target}, found a file. Move the file away."
            )


def _copy_demo_marker(clip: Path, raw: Path) -> None:
    """Mark `raw` as demo data if the clip is in a folder of demo data; else remove the mark."""
    (raw / MARKER).unlink(missing_ok=True)
    for folder in clip.parents:
        if is_stand_in(folder):
            shutil.copyfile(folder / MARKER, raw / MARKER)
            break


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
    runs.require_one_kind(
        {
            f"the images of {raw}": is_stand_in(raw),
            f"the body of {trained.checkpoint}": trained.generator.body.is_stand_in,
        }
    )
    features = _feature_stream(trained, settings, weights)
    trained.check_features(f"stream {features.name!r}", features.stream.dim)
    specs = (*_extra_streams(trained, embedding), features)
    for spec in specs:
        if not is_stand_in(raw):
            spec.refuse_random_weights(str(raw), f"the weights of {spec.name}")
    return specs


def _feature_stream(trained: Trained, settings: Settings, weights: str | None) -> StreamSpec:
    """The stream of features: HMR2.0's own network; for other models the one in [features], or a
    ResNet-50 with these weights.
    """
    if trained.kind == HMR2:
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
        identity = trained.identities.get(argument)
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
