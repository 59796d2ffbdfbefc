"""The keys of luigi.cfg but for training and plug-ins: types, defaults, what they mean.  [raw -> tracks] -> features"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cache import Root
from pipeline.commands.settings.file import AtLeast


@dataclass(frozen=True, slots=True)
class Paths:
    """[paths]: where everything is. Relative paths are below the folder of luigi.cfg."""

    raw: Path  # raw/<dataset>/ is that dataset's own download
    body: Path  # SMPL's files, or the demo body's
    cache: Root
    runs: Path


@dataclass(frozen=True, slots=True)
class Data:
    """[data]: which datasets take part."""

    datasets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Embedded:
    """[embedded]: the small demo data that is made when there is no real data."""

    enabled: bool = False  # make it in [paths] raw and body, which must then be empty or demo data
    seed: Annotated[int, AtLeast(0)] = 0
    size: Literal["tiny", "default", "large"] = "default"


@dataclass(frozen=True, slots=True)
class Detect:
    """[detect]: people in clips that come without keypoints. The detector's options are in a section of its name."""

    detector: str | None = None  # none: nothing is detected; unless set, that of the demo data where they are made
    datasets: tuple[str, ...] = ("videos",)  # whose raw folders it is run on; what it finds goes to their keypoints/
    device: str = "auto"
    devices: str | None = None  # several GPUs, as of [features]
    batch_size: Annotated[int, AtLeast(0)] = 0  # pictures at once; 0: the detector's own
    workers: Annotated[int, AtLeast(0)] = 0  # processes that decode; 0: one a core
    timeout: Annotated[int, AtLeast(1)] = 600  # s without progress after which a clip is given up


@dataclass(frozen=True, slots=True)
class Convert:
    """[convert]: raw -> tracks."""

    workers: Annotated[int, AtLeast(0)] = 0  # processes; 0: one a core
    removed: Literal["keep", "drop"] = "keep"  # rows of videos that are gone; kept, the run fails until they are back
    strict: bool = False  # fail on the first video that cannot be used, instead of rejecting it


@dataclass(frozen=True, slots=True)
class Features:
    """[features]: tracks -> a feature stream. Options of kinds other than resnet50 are in a section of their own."""

    stream: str = "resnet50"  # its name in the cache
    kind: str = "resnet50"  # what it is: resnet50, crops, or a plug-in's
    weights: str = "untrained:0"  # of resnet50: spin:FILE, torchvision:NAME, file:FILE, or untrained:SEED (for demos)
    precision: Literal["exact", "fast"] = "fast"  # of resnet50. exact: plain fp32, the same bits at every run
    crops: str | None = None  # a stream of crops to compute from, instead of the raw pictures
    also: tuple[str, ...] = ()  # names of further streams: kinds, or sections that name theirs (kind = resnet50)
    device: str = "auto"  # auto: cuda when there is one, else cpu
    devices: str | None = None  # several GPUs of this machine, as 0,1,2,3, with a process each; none: device alone
    batch_size: Annotated[int, AtLeast(0)] = 0  # 0: what the device does best
    compile: bool = False  # torch.compile, on CUDA
    workers: Annotated[int, AtLeast(0)] = 0  # processes that decode; 0: one a core
    timeout: Annotated[int, AtLeast(1)] = 60  # s without progress after which a decoding process is ended


@dataclass(frozen=True, slots=True)
class Dask:
    """[dask]: conversion and extraction on a cluster."""

    scheduler: str | None = None  # its address, as tcp://node:8786, or the file that it wrote; none: on this machine


TYPES: Final[Mapping[str, type[Any]]] = {
    "paths": Paths,
    "data": Data,
    "embedded": Embedded,
    "detect": Detect,
    "convert": Convert,
    "features": Features,
    "dask": Dask,
}
