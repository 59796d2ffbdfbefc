"""Keys of luigi.cfg except those of training and plug-ins.  [raw -> tracks] -> features

The settings page parses this file: it shows a field's description, which is also the --help of an
option, or else the comments above and behind the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Gt

from pipeline.processes.settings import Dask, DetectionResources, Resources

Root = Path | str  # `cache.Root`, without the packages of a cache


@dataclass(frozen=True)
class Paths:
    """[paths]: folders. Relative paths are relative to the folder of luigi.cfg."""

    raw: Path  # Folder of the downloads, with <dataset>/ for each dataset
    # Folder with SMPL_NEUTRAL.pkl or .npz (also _MALE, _FEMALE), J_regressor_extra.npy,
    # J_regressor_h36m.npy and smpl_mean_params.npz; or with the demo body.
    body: Path
    cache: Root  # Folder or URL (s3://bucket/prefix) of the feature cache
    runs: Path  # Folder of training runs, each in <runs>/<name>-<fingerprint>/
    # Folder of the states of the last runs, for monitoring. Unset: <cache>.state, beside the cache
    state: Path | None = None
    # Whether a missing cache is created. no: never, since its disk may not be mounted; once: yes,
    # and the first commit changes this line to no.
    new_cache: Literal["yes", "no", "once"] = "yes"


@dataclass(frozen=True)
class DataSettings:
    """[data]: the datasets to prepare."""

    # Datasets to prepare, each with all its splits; demo: all that have demo data
    datasets: tuple[str, ...]
    # Tag of the cache that trainings and evaluations read; nothing is prepared for them. Unset: the
    # current state
    at: str | None = None


@dataclass(frozen=True)
class Embedded:
    """[embedded]: demo data, for trial runs without downloads."""

    # Write demo data into <raw>/<dataset> and body of [paths], which must have no real data
    enabled: bool = False
    seed: Annotated[int, Ge(0)] = 0  # Seed of the demo data
    size: Literal["tiny", "default", "large"] = "default"  # Amount of demo data


@dataclass(frozen=True)
class DetectSettings(DetectionResources):
    """[detect]: detection of people in clips without keypoints. The detector's options are in a
    section of its name.
    """

    detector: str | None = None  # Detector; none: no detection; unset: `demo` if [embedded] enabled
    # Datasets of clips; keypoints are written to <raw>/<dataset>/keypoints/
    datasets: tuple[str, ...] = ("videos",)


@dataclass(frozen=True)
class ConvertSettings:
    """[convert]: raw -> tracks."""

    workers: Annotated[int, Ge(0), "Number of worker processes; 0: one per core"] = 0
    # Rows of videos that are missing from the raw folder, or that a changed video would lose. keep:
    # keep them, and fail until the videos are back; drop: delete them. Those of demo videos are
    # always deleted.
    removed: Literal["keep", "drop"] = "keep"
    # Most rows a second; of faster videos, such as those of 50 or 60 frames a second, rows are left
    # out, and of clips with uneven times those that follow sooner than 0.9 / max_fps. Unset: all
    # rows.
    max_fps: Annotated[float, Gt(0)] | None = None
    # File of corrections by hand, a line each, from pages of tracks: a track to leave out, people
    # to join or cut, sides to exchange, identities. What a line has done is undone when it is taken
    # away; none: no correction. Another name of this key is leave_out.
    corrections: Path | None = None
    strict: Annotated[bool, "Fail if a video cannot be used, instead of rejecting it"] = False


@dataclass(frozen=True)
class Features(Resources):
    """[features]: streams to extract, and resources for it. Options of a stream are in a section of
    its name.
    """

    # Kinds of streams, or sections with `kind = resnet50`; models read the first
    streams: tuple[str, ...] = ("resnet50",)


SECTION_TYPES: Final[dict[str, type[Any]]] = {
    "paths": Paths,
    "data": DataSettings,
    "embedded": Embedded,
    "detect": DetectSettings,
    "convert": ConvertSettings,
    "features": Features,
    "dask": Dask,
}
