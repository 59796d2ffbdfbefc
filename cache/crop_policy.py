"""The part of a frame that a stream's network sees.  tracks -> [crops] -> features -> windows

A track has one bounding box per row. A stream's `CropPolicy` says how that box becomes the square
crop that the network is given: the crop's size, an enlargement, an optional central region, and an
optional random jitter. Luigi.cfg writes a policy as words (`CropPolicy.parse`); the stream's
manifest stores it as JSON (`CropPolicy.as_dict`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np

from cache.arrays import Array, Bools, Doubles, Floats, Keys

SIZE: Final = 224  # px, the side of a crop; jitter's `trans_px` is in pixels of such a crop
LARGEST: Final = 1024  # px


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """Random moves, scales and mirroring of a stream's crops (data augmentation as in HMMR, CVPR
    2019).

    Several streams with different `copy` numbers hold different random versions of every crop. The
    result is repeatable: it depends only on the seed, the copy, the track's name and the frame
    number.
    """

    copy: int  # number of the random version, from 1
    trans_px: float = 20.0  # largest move on each axis, 0 to 224 px of a 224 px crop
    # magnification 2^u of each frame, u uniform within plus or minus this, 0 to 3
    scale_log2: float = 0.3
    flip: float = 0.5  # probability that a whole track is mirrored, 0 to 1
    seed: int = 0  # seed of the random numbers, at least 0

    def __post_init__(self) -> None:
        if self.copy < 1 or self.seed < 0:
            raise ValueError(
                f"jitter {self.copy}, seed {self.seed}: expected a copy from 1 and a seed from 0"
            )
        is_move_valid = 0 <= self.trans_px <= SIZE
        is_scale_valid = 0 <= self.scale_log2 <= 3
        is_flip_valid = 0 <= self.flip <= 1
        if not (is_move_valid and is_scale_valid and is_flip_valid):
            raise ValueError(
                f"jitter trans_px {self.trans_px}, scale_log2 {self.scale_log2}, flip "
                f"{self.flip}: expected 0 to {SIZE} px, 0 to 3, and a probability"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CropPolicy:
    """How a box becomes a crop. Raises ValueError for values out of range."""

    size: int = SIZE  # side of the crop, 8 to 1024 px
    # (height, width) px of the central part that the network is given; None: the whole crop
    region: tuple[int, int] | None = None
    scale: float = 1.0  # factor on the track's crop scale, 0.1 to 10
    jitter: Jitter | None = None

    def __post_init__(self) -> None:
        if not 8 <= self.size <= LARGEST:
            raise ValueError(f"crop size {self.size}: expected 8 to {LARGEST} px")
        if not 0.1 <= self.scale <= 10:
            raise ValueError(f"crop scale factor {self.scale}: expected 0.1 to 10")
        if self.region is not None and not all(1 <= side <= self.size for side in self.region):
            height, width = self.region
            raise ValueError(
                f"region {height}x{width}: expected height x width, each at most the size, "
                f"{self.size} px"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) px of a network's input: the region, else the whole crop."""
        return self.region or (self.size, self.size)

    @property
    def slices(self) -> tuple[slice, slice]:
        """The slices of rows and of columns that cut a network's input out of a crop."""
        height, width = self.shape
        top = (self.size - height) // 2
        left = (self.size - width) // 2
        return slice(top, top + height), slice(left, left + width)

    @property
    def follows_box(self) -> bool:
        """Whether the crop box equals the track's box: neither enlarged nor jittered."""
        return self.jitter is None and self.scale == 1

    @classmethod
    def parse(cls, text: str) -> CropPolicy:
        """Parse a policy as luigi.cfg writes it: words `name:value`, separated by spaces or commas.

        Raises ValueError for unknown or repeated words, and for values out of range.

        >>> CropPolicy.parse("size:256 region:256x192").region
        (256, 192)
        >>> CropPolicy.parse("jitter:2 seed:7").jitter
        Jitter(copy=2, trans_px=20.0, scale_log2=0.3, flip=0.5, seed=7)
        """
        words = [word.partition(":") for word in text.replace(",", " ").split()]
        values_by_word = {name: value for name, _, value in words}
        if len(values_by_word) < len(words) or values_by_word.keys() - _WORDS.keys():
            raise ValueError(
                f"crop {text!r}: expected name:value, each once, of {', '.join(_WORDS)}"
            )
        values = {name: _WORDS[name](value) for name, value in values_by_word.items()}
        jitter = {name: values.pop(name) for name in _JITTER if name in values}
        if "jitter" in values:
            values["jitter"] = Jitter(copy=values["jitter"], **jitter)
        elif jitter:
            raise ValueError(f"crop {text!r}: {', '.join(jitter)} need jitter:COPY, as in jitter:1")
        return cls(**values)

    def __str__(self) -> str:
        """The text that `parse` reads, with only the values that differ from the default."""
        words = self.as_dict()
        if self.region is not None:
            words["region"] = f"{self.region[0]}x{self.region[1]}"
        if self.jitter is not None:
            usual = asdict(Jitter(copy=1))
            for name in _JITTER:
                if words["jitter"][name] != usual[name]:
                    words[name] = words["jitter"][name]
            words["jitter"] = self.jitter.copy
        return " ".join(f"{name}:{words[name]}" for name in _WORDS if name in words)

    def as_dict(self) -> dict[str, Any]:
        """The values that differ from the default, in a form that JSON can hold."""
        usual = asdict(CropPolicy())
        changed = {name: value for name, value in asdict(self).items() if value != usual[name]}
        if self.region is not None:
            changed["region"] = list(self.region)
        return changed

    @classmethod
    def from_dict(cls, policy: Mapping[str, Any]) -> CropPolicy:
        """The inverse of `as_dict`."""
        values = dict(policy)
        if values.get("region") is not None:
            values["region"] = tuple(values["region"])
        if values.get("jitter") is not None:
            values["jitter"] = Jitter(**values["jitter"])
        return cls(**values)

    def seeds(self, names: Iterable[str]) -> Keys:
        """Random seeds (N,) of N tracks, hashed from their names and the jitter's seed and copy.

        A policy without jitter has seeds too, which `boxes` does not use.
        """
        jitter = self.jitter or Jitter(copy=1)
        mark = f"{jitter.seed}\0{jitter.copy}\0"
        digests = bytearray()
        for name in names:
            digests += hashlib.blake2b((mark + name).encode(), digest_size=8).digest()
        return np.frombuffer(digests, "<u8").astype(np.uint64)

    @np.errstate(over="ignore")  # NumPy reports it for scalars
    def boxes(
        self,
        bbox: Floats,
        crop_scale: Doubles,
        seeds: Keys,
        frame: Array,
    ) -> tuple[Floats, Bools]:
        """Compute the crop boxes of rows with track boxes `bbox` (..., 4).

        Returns the crop boxes, (..., 4) centre x, centre y, width, height in px of the frame, and
        whether each crop is mirrored (...). The boxes are not yet multiplied by the crop scale.

        Args:
            crop_scale: the track's crop side / box side.
            seeds: the seed of each row's track, from `seeds`.
            frame: each row's frame number.

        These three broadcast to (...).
        """
        box = bbox.astype(np.float64)
        mirrored = np.zeros(bbox.shape[:-1], bool)
        box[..., 2:] *= self.scale
        if self.jitter is not None:
            per_frame = _mix_bits(seeds + np.asarray(frame).astype(np.uint64) * _GOLDEN)
            move_x = _uniform_signed(per_frame, MOVE_X)
            move_y = _uniform_signed(per_frame, MOVE_Y)
            zoom = _uniform_signed(per_frame, ZOOM)
            box[..., 2:] *= (2.0 ** (-self.jitter.scale_log2 * zoom))[..., None]
            side = box[..., 2:] * np.asarray(crop_scale)[..., None]
            move = np.stack([move_x, move_y], axis=-1) * (self.jitter.trans_px / SIZE)
            box[..., :2] -= move * side  # the person moves by +move in the crop
            mirrored[...] = _uniform(seeds, MIRROR) < self.jitter.flip
        return box.astype(np.float32), mirrored


def _region(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


_JITTER: Final[Mapping[str, Any]] = {
    field.name: type(field.default) for field in fields(Jitter) if field.name != "copy"
}
_WORDS: Final[Mapping[str, Any]] = {
    "size": int,
    "region": _region,
    "scale": float,
    "jitter": int,
    **_JITTER,
}
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: SplitMix64's step

# Which of a seed's random numbers is used for what (argument `i` of `_uniform`).
MOVE_X, MOVE_Y, ZOOM = range(3)  # of a frame's seed
MIRROR: Final = 0  # of a track's seed


def _mix_bits(x: Keys) -> Keys:
    """Hash 64-bit numbers with the finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def _uniform(seeds: Keys, i: int) -> Doubles:
    """The i-th random number of each seed, uniform in [0, 1)."""
    bits = _mix_bits(seeds + np.uint64(i + 1) * _GOLDEN)
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53, np.float64)


def _uniform_signed(seeds: Keys, i: int) -> Doubles:
    """The i-th random number of each seed, uniform in [-1, 1)."""
    return 2 * _uniform(seeds, i) - 1
