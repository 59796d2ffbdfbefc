"""Extra columns, declared by a dataset's reader and stored in the split's manifest under `extra`.
[cache]

Every split has the columns of `layout.COLUMNS`. A dataset's reader may declare further ones, with a
value per row (a column) or per track (a table `track_<name>`). Mirrored crops need mirrored
labels, so an extra column also says how mirroring changes its values: by pairs of entries to swap,
or by a function. A manifest cannot store a function, only that there is one; the reader's package
provides it when the column is read (`find_mirrors_by`).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np

from cache.arrays import Array
from cache.errors import OTHER_VERSION, CacheError
from cache.format.layout import (
    COLUMNS,
    FEATURES,
    LARGEST_ROW,
    TABLES,
    TEXTS,
    Column,
    stream_of,
)

# values (N, *shape) -> the values (N, *shape) in the mirrored image
Mirror = Callable[[Array], Array]
Pairs = tuple[tuple[int, int], ...]  # entries along the first axis that mirroring swaps
# (dataset, column) -> the column's mirror function; None if no installed reader declares one
FindMirror = Callable[[str, str], Mirror | None]

EXTRA: Final = "extra"  # entry of a split's manifest
FUNCTION: Final = "function"  # stands for a mirror function in a manifest
# uint8 is for flags, 0 or 1
DTYPES: Final = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8")
LOWER_CASE: Final = re.compile(r"[a-z][a-z0-9_]*")
# fields of a batch that are no columns
_READ: Final = ("theta", "w_3d", "w_smpl", "w_kp_3d", "gender", "kp_3d_49", "rows")
_RESERVED: Final = frozenset({*COLUMNS, *TABLES, *TEXTS, *_READ, FEATURES})
_PREFIXES: Final = ("track_", "run_", "video_")  # of the names of tables


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraColumn(Column):
    """A column of rows or tracks that a dataset's reader declares, such as `foot_contact`.

    Its fields are those of `Column`, and two more, which are given by name. The dtype is one of
    DTYPES; the name is a lower-case letter, then lower-case letters, digits and _.

    Raises ValueError for an invalid declaration.
    """

    # how mirroring the image changes a value; None: not at all
    mirror: Pairs | Mirror | Literal["function"] | None = None
    gaps: bool = False  # a writer may leave out rows of a track by writing NaN in all their numbers

    def __post_init__(self) -> None:
        if str(self.dtype) not in DTYPES:
            raise self._invalid(f"dtype {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        Column.__post_init__(self)
        self._check_name()
        self._check_form()
        self._check_mirror()

    def _invalid(self, problem: str) -> ValueError:
        return ValueError(f"extra column {self.name!r}: {problem}")

    def _check_name(self) -> None:
        is_reserved = self.name.startswith(_PREFIXES) or stream_of(self.name) != self.name
        if is_reserved or not LOWER_CASE.fullmatch(self.name):
            raise self._invalid(
                "expected lower-case letters, digits and _, not beginning with "
                f"{', '.join(_PREFIXES)}, and not ending in _ok, _key or _at"
            )
        is_taken = self.name in _RESERVED or (self.array in _RESERVED and self.per == "track")
        if is_taken or (self.name == "intrinsics" and self.shape != (3, 3)):
            raise self._invalid("the cache uses this name for something else: choose another")

    def _check_form(self) -> None:
        if not self.about.strip() or "\n" in self.about + self.unit:
            raise self._invalid("expected its meaning in one line (about)")
        if not isinstance(self.shape, tuple) or not all(
            isinstance(n, int) and n > 0 for n in self.shape
        ):
            raise self._invalid(
                f"shape {self.shape}, expected a tuple of whole numbers from 1, as (4,)"
            )
        if math.prod(self.shape) > LARGEST_ROW:
            raise self._invalid(f"shape {self.shape}, expected up to {LARGEST_ROW:,} numbers")
        if self.per not in ("row", "track"):
            raise self._invalid(f"per {self.per!r}, expected row or track")
        is_valid_flag = self.dtype == "uint8" and self.fill in (0, 1)
        if is_valid_flag or not self._fill_is_representable():
            raise self._invalid(
                f"fill {self.fill!r} is not a {self.dtype} outside of the valid values"
            )

    def _check_mirror(self) -> None:
        if isinstance(self.mirror, tuple):
            entries = sum(self.mirror, ())
            length = self.shape[0] if self.shape else 0
            is_repeated = len(set(entries)) < len(entries)
            if is_repeated or not set(entries) <= set(range(length)):
                raise self._invalid(
                    f"mirror {self.mirror}: expected pairs of the first axis' {length} "
                    "entries, each in one pair"
                )
        elif self.mirror not in (None, FUNCTION) and not callable(self.mirror):
            raise self._invalid(f"mirror {self.mirror!r}: expected pairs, a function or None")

    def _fill_is_representable(self) -> bool:
        if self.dtype.kind != "f":
            limits = np.iinfo(self.dtype)
            return isinstance(self.fill, int) and limits.min <= self.fill <= limits.max
        if not isinstance(self.fill, float) or math.isinf(self.fill):
            return False
        return math.isnan(self.fill) or float(self.dtype.type(self.fill)) == self.fill

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> dict[str, Self]:
        """The extra columns of a split's manifest, by name. Raises CacheError for invalid ones."""
        extras = {}
        for name, entries in manifest.get(EXTRA, {}).items():
            try:
                fields = {**entries, "shape": tuple(entries["shape"])}
                if entries["fill"] == "NaN":
                    fields["fill"] = math.nan
                mirror = entries["mirror"]
                if isinstance(mirror, list):
                    fields["mirror"] = tuple((int(a), int(b)) for a, b in mirror)
                extras[name] = cls(name=name, **fields)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                problem = (
                    f"the manifest's extra column {name!r} is invalid: {error}. {OTHER_VERSION}"
                )
                raise CacheError(problem) from error
        return extras

    @property
    def array(self) -> str:
        """The name of the Zarr array that stores the column."""
        return self.name if self.per == "row" else f"track_{self.name}"

    def as_json(self) -> dict[str, Any]:
        """The column's entry in the manifest: all fields except `name` and `gaps`."""
        mirror: Any = self.mirror
        if isinstance(mirror, tuple):
            mirror = [list(pair) for pair in mirror]
        elif mirror is not None:
            mirror = FUNCTION
        return {
            "about": self.about,
            "unit": self.unit,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "fill": self.json_fill,
            "per": self.per,
            "mirror": mirror,
        }

    @property
    def stored_as(self) -> dict[str, Any]:
        """The manifest entries that decide the stored bytes: all except the descriptions."""
        return {key: value for key, value in self.as_json().items() if key not in ("about", "unit")}

    def problem(self, array: Any, n_rows: int) -> str:
        """As `Column.problem`; also refuses values that equal the fill value."""
        problem = Column.problem(self, array, n_rows)
        if problem:
            return problem
        if self.gaps:
            rows = array.reshape(-1, math.prod(self.shape))
            array = rows[~np.isnan(rows).all(axis=1)]
        if not np.isfinite(array).all() or (array == np.array(self.fill)).any():
            return f"holds its fill value {self.fill}, NaN or infinity, which are no valid values"
        return ""

    def mirrored(self, values: Array, split: str) -> Array:
        """Return values (N, ...) of this column as they are in the mirrored image.

        `split` is "<dataset>/<split>". Raises CacheError if the dataset's mirror function is not
        loaded, or returns another shape.
        """
        if self.mirror is None:
            return values
        if isinstance(self.mirror, tuple):
            order = np.arange(self.shape[0])
            for index, opposite in self.mirror:
                order[[index, opposite]] = opposite, index
            return values[:, order]
        dataset = split.partition("/")[0]
        declared = [self.mirror] if callable(self.mirror) else []
        provided = (find(dataset, self.name) for find in FINDERS)
        function = next(filter(None, itertools.chain(declared, provided)), None)
        if function is None:
            raise CacheError(
                f"{split}: column {self.name!r} is mirrored by a function of the package that "
                "reads the dataset, which is not loaded here. Install it and `import "
                "pipeline.datasets`, or read the column of a stream without mirrored crops."
            )
        mirrored = np.asarray(function(values))
        if mirrored.shape != values.shape:
            problem = f"mirror gave {mirrored.shape}, expected {values.shape}"
            raise CacheError(f"{split}: column {self.name!r}: {problem}")
        return mirrored


FINDERS: Final[list[FindMirror]] = []


def find_mirrors_by(find: FindMirror) -> None:
    """Register a function that looks up mirror functions by dataset and column.

    A package of dataset readers calls this once, so that `ExtraColumn.mirrored` can find the
    functions of columns that were read from a manifest.
    """
    if find not in FINDERS:
        FINDERS.append(find)
