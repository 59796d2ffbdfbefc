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

    raw: Path  # raw/<dataset>/ is that dataset's own download
    body: Path  # SMPL's files, or the demo body's
    cache: Root
    runs: Path


@dataclass(frozen=True, config=FROZEN)
class DataSettings:
    """[data]: which datasets take part."""

    datasets: tuple[str, ...]


@dataclass(frozen=True, config=FROZEN)
class Embedded:
    """[embedded]: the small demo data that is made when there is no real data."""

    enabled: bool = False  # make it in [paths] raw and body, which must then be empty or demo data
    seed: NonNegativeInt = 0
    size: Literal["tiny", "default", "large"] = "default"


@dataclass(frozen=True, config=FROZEN)
class DetectSettings(DetectionResources):
    """[detect]: people in clips that come without keypoints. The detector's options are in a section of its name."""

    detector: str | None = None  # none: nothing is detected; unless set, that of the demo data where they are made
    datasets: tuple[str, ...] = ("videos",)  # whose raw folders it is run on; what it finds goes to their keypoints/


@dataclass(frozen=True, config=FROZEN)
class ConvertSettings:
    """[convert]: raw -> tracks."""

    workers: Annotated[NonNegativeInt, Field(description="processes; 0: one for each core")] = 0
    removed: Literal["keep", "drop"] = "keep"  # rows of videos that are gone; kept, the run fails until they are back
    strict: Annotated[bool, Field(description="fail where a video cannot be used, instead of rejecting it")] = False


@dataclass(frozen=True, config=FROZEN)
class Features(Resources):
    """[features]: tracks -> a feature stream, and what extracting takes of this machine.

    Options of kinds other than resnet50 are in a section of their own.
    """

    stream: str = "resnet50"  # its name in the cache
    kind: str = "resnet50"  # what it is: resnet50, crops, or a plug-in's
    weights: str = "untrained:0"  # of resnet50: spin:FILE, torchvision:NAME, file:FILE, or untrained:SEED (for demos)
    precision: Literal["exact", "fast"] = "fast"  # of resnet50. exact: plain fp32, the same bits at every run
    crops: str | None = None  # a stream of crops to compute from, instead of the raw pictures
    also: tuple[str, ...] = ()  # names of further streams: kinds, or sections that name theirs (kind = resnet50)


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
