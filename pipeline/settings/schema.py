"""The keys of luigi.cfg but for training and plug-ins: types, defaults, what they mean.  [raw -> tracks] -> features

What a field is described as is what `--help` says of the option that stands for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from cache import Root
from pipeline.detect.base import DetectionResources
from pipeline.features.spec import Resources

FROZEN: Final[Any] = {"extra": "forbid", "defer_build": True}  # built where a command reads it: that takes a ms each


@dataclass(frozen=True, config=FROZEN)
class Paths:
    """[paths]: where everything is. Relative paths are below the folder of luigi.cfg."""

    raw: Path  # <raw>/<dataset>/ is the download of that dataset
    # Folder with SMPL_NEUTRAL.pkl or .npz (also _MALE, _FEMALE), J_regressor_extra.npy, J_regressor_h36m.npy and
    # smpl_mean_params.npz; or with the files of the demo body.
    body: Path
    cache: Root  # the feature cache: a folder, or a URL such as s3://bucket/prefix
    runs: Path  # training runs, each in <runs>/<name>-<fingerprint>/


@dataclass(frozen=True, config=FROZEN)
class DataSettings:
    """[data]: which datasets take part."""

    datasets: tuple[str, ...]  # names of datasets, each with all its splits


@dataclass(frozen=True, config=FROZEN)
class Embedded:
    """[embedded]: the small demo data that is made when there is no real data."""

    enabled: bool = False  # make it in <raw>/<dataset> and body of [paths], which must then be empty or demo data
    seed: NonNegativeInt = 0  # another seed makes other data
    size: Literal["tiny", "default", "large"] = "default"  # amount of data


@dataclass(frozen=True, config=FROZEN)
class DetectSettings(DetectionResources):
    """[detect]: people in clips that come without keypoints. The detector's options are in a section of its name."""

    detector: str | None = None  # none: no detection; unless set, `demo` where [embedded] enabled
    datasets: tuple[str, ...] = ("videos",)  # datasets of clips; keypoints go to <raw>/<dataset>/keypoints/


@dataclass(frozen=True, config=FROZEN)
class ConvertSettings:
    """[convert]: raw -> tracks."""

    workers: Annotated[NonNegativeInt, Field(description="processes; 0: one for each core")] = 0
    # Rows of videos that are missing from the raw folder. keep: they stay, and the run fails until the videos are back;
    # drop: they are deleted. Rows of missing demo videos are always deleted.
    removed: Literal["keep", "drop"] = "keep"
    strict: Annotated[bool, Field(description="fail where a video cannot be used, instead of rejecting it")] = False


@dataclass(frozen=True, config=FROZEN)
class Features(Resources):
    """[features]: which streams are extracted, and what extracting takes of this machine.

    Options of a stream are in a section of its name.
    """

    streams: tuple[str, ...] = ("resnet50",)  # names: kinds, or sections with `kind = resnet50`; models read the first


@dataclass(frozen=True, config=FROZEN)
class Dask:
    """[dask]: conversion and extraction on a cluster."""

    scheduler: Annotated[
        str | None, Field(description="work on the Dask cluster at this address (tcp://node:8786); none: here")
    ] = None


TYPES: Final[dict[str, type[Any]]] = {
    "paths": Paths,
    "data": DataSettings,
    "embedded": Embedded,
    "detect": DetectSettings,
    "convert": ConvertSettings,
    "features": Features,
    "dask": Dask,
}
