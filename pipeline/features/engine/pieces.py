"""What a decoding process is asked for, and what it answers.  pixels -> [crops] -> features"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

import cache
from pipeline import crops
from pipeline.errors import PipelineError
from pipeline.features.streams.crops import Crops
from pipeline.pixels.decode import PictureError
from pipeline.pixels.frames import FrameSource, Image


class Person(NamedTuple):
    """One person of a frame: where the crop goes, and what it shows."""

    slot: int
    bbox: tuple[float, float, float, float]  # cxcywh px
    scale: float


class Wanted(NamedTuple):
    """One frame and all that is to be cropped from it. Of stored crops, the frame is a row."""

    frame: int
    persons: tuple[Person, ...]


class Shown(NamedTuple):
    """What came of one wanted frame: a way to crop from it, or why not."""

    crop: Callable[[Person], Image] | None
    problem: str = ""
    kind: str = ""


class Pixels(Protocol):
    """Where crops come from. Picklable; two that are equal are the same."""

    @property
    def name(self) -> str:
        """Of the video, for people."""
        ...

    @property
    def in_order(self) -> bool:
        """Whether going back, or beginning in the midst, costs what came before: a video's frames."""
        ...

    @property
    def by_row(self) -> bool:
        """Whether what is wanted are rows of the split, not frames of a video."""
        ...

    def check(self) -> None:
        """Raise PipelineError where these are not the pixels that were converted."""
        ...

    def show(self, wanted: Iterator[Wanted], alive: Callable[[], None]) -> Iterator[Shown]:
        """One answer for each wanted frame, which are ascending. `alive` is called where something went forward."""
        ...


@dataclass(frozen=True, slots=True)
class Frames:
    """Pictures or a video below the raw folder."""

    source: FrameSource
    split: str
    name: str
    digest: str = ""  # of the pixels at conversion; "": not known
    by_row: ClassVar[bool] = False

    @property
    def in_order(self) -> bool:
        return not self.source.random_access

    def check(self) -> None:
        if self.digest and self.source.digest() != self.digest:
            raise PipelineError(
                f"{self.split}: {self.name}: {self.source.place} does not hold the pictures that were converted. If "
                "those lie elsewhere, say where: --raw DIR, or [paths] raw in luigi.cfg. If they were changed, convert "
                f"again, after `touch '{self.source.place}'`: conversion looks again at what has another time."
            )

    def show(self, wanted: Iterator[Wanted], alive: Callable[[], None]) -> Iterator[Shown]:
        for frame in self.source.read((one.frame for one in wanted), alive=alive):
            if frame.image is None:
                yield Shown(None, f"{self.name}, frame {frame.index}: {frame.problem}", frame.kind)
            else:
                yield Shown(_Cropper(frame.image))


@dataclass(frozen=True, slots=True)
class _Cropper:
    """Crops from a picture."""

    picture: Image

    def __call__(self, person: Person) -> Image:
        return crops.crop_person(self.picture, np.array(person.bbox), scale=person.scale)


@dataclass(frozen=True, slots=True)
class StoredCrops:
    """The crops of a stream in the cache: the raw pictures need not be there."""

    root: cache.Root
    split: str
    stream: str
    digest: str  # of the manifests of the split and of the stream
    by_row: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"{self.split}: stream {self.stream}"

    @property
    def in_order(self) -> bool:
        return False

    def check(self) -> None:
        """Their rows are compared by the cache."""

    def show(self, wanted: Iterator[Wanted], alive: Callable[[], None]) -> Iterator[Shown]:
        split = _opened(self.root, self.split, self.stream, self.digest)
        for one in wanted:
            alive()
            where = f"{self.name}, row {one.frame}"
            if split.rows(f"features/{self.stream}_ok", one.frame, one.frame + 1)[0] != 1:
                yield Shown(None, f"{where}: its picture could not be read when crops were extracted", "crop_missing")
                continue
            try:
                (data,) = split.blobs(self.stream, np.array([one.frame]))
                image = Crops.decode(data)
            except PictureError as error:
                yield Shown(None, f"{where}: {error}", error.kind)
            else:
                yield Shown(_Whole(image))


@functools.lru_cache(maxsize=1)
def _opened(root: cache.Root, name: str, stream: str, digest: str) -> cache.Split:
    """A split, once in a process: its tables take their time where there are millions of tracks."""
    split = cache.open(root)[name]
    if digests(split, stream) != digest:
        raise cache.CacheChanged(f"{name}: there has been a commit since it was opened: run it again")
    return split


def digests(split: cache.Split, stream: str) -> str:
    """Which state of a split, and of a stream of crops, is open."""
    return f"{split.manifest['digest']} {split.stream_manifest(stream)['digest']}"


@dataclass(frozen=True, slots=True)
class _Whole:
    image: Image

    def __call__(self, _: Person) -> Image:
        return self.image


@dataclass(frozen=True, slots=True)
class Piece:
    """A few frames of one job. Pieces of a job go to one process, in order; any of them can be begun with."""

    number: int
    job: int
    pixels: Pixels
    frames: tuple[Wanted, ...]
    first: bool = False  # of the job: its pixels are checked


@dataclass(slots=True)
class Done:
    """A piece's slots are filled, but for those of frames with a problem."""

    piece: int
    problems: dict[int, tuple[str, str]] = field(default_factory=dict)  # frame -> (kind, in words)
    sizes: dict[int, int] = field(default_factory=dict)  # slot -> bytes, where there are bytes instead of a crop
    frames: int = 0  # decoded
    decoding: float = 0.0  # s
    cropping: float = 0.0  # s


@dataclass(frozen=True, slots=True)
class Failed:
    """A process met something that is no frame's fault. What it raised is raised again where it is waited for."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Rest:
    """There is nothing more to do for now: end when nothing comes in this time."""

    seconds: float
