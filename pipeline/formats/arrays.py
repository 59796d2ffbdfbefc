"""Reading arrays out of MATLAB v5 files and NumPy archives of strangers.  [raw] -> tracks -> features -> windows"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.formats.mat5 import read_mat5
from pipeline.raw.files import open_regular

AGAIN: Final = "Unpack the download again."
ZIP: Final = b"PK\x03\x04"  # how an .npz archive begins


def load_mat(file: Path, keys: Collection[str], optional: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The named variables of a MATLAB v5 file, in their stored types; of `optional` those that are there.

    Raises RawDataError for a file that is none, for one that would fill the memory, and for a missing key.
    """
    variables = read_mat5(file, (*keys, *optional))
    return {key: _require(file, variables, key) for key in (*keys, *(variables.keys() & set(optional)))}


def load_npz(file: Path, keys: Collection[str], optional: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The named arrays of an .npz; of `optional` those that are there. Pickled objects are refused, nothing is run.

    Raises RawDataError for a file that is no .npz, a missing key and an object array.
    """
    try:
        stream = open_regular(file)  # np.load leaves the file open when it is no archive
    except OSError as error:
        raise _no_archive(file, error) from error
    with stream:
        if (head := stream.read(4)) != ZIP:  # NumPy would take it for a pickle, and advise to trust it
            raise _no_archive(file, f"a file that begins with {head!r}")
        stream.seek(0)
        try:
            archive = np.load(stream, allow_pickle=False)
        except Exception as error:  # zip, struct and value errors, by what is damaged
            raise _no_archive(file, error) from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise _no_archive(file, "a single array")
        present = [*keys, *(key for key in optional if key in archive)]
        return {key: _member(file, archive, key) for key in present}


def _no_archive(file: Path, found: Exception | str) -> RawDataError:
    told = found if isinstance(found, str) else f"{type(found).__name__}: {found}"
    return RawDataError(file, "file", expected="a NumPy .npz archive", found=told, do=AGAIN)


def _member(file: Path, archive: Any, key: str) -> NDArray[Any]:
    if key not in archive:
        raise RawDataError(file, key, expected="an array", found=f"only {sorted(archive.files)}", do=AGAIN)
    try:
        return np.asarray(archive[key])
    except Exception as error:  # as above; ValueError for an object array, which only unpickling could read
        found = f"{type(error).__name__}: {error}"
        expected = "an array of numbers or text (pickled objects are not read: they can run code)"
        raise RawDataError(file, key, expected=expected, found=found, do=AGAIN) from error


def _require(file: Path, variables: dict[str, NDArray[Any]], key: str) -> NDArray[Any]:
    if key not in variables:
        raise RawDataError(file, key, expected="a variable of this name", found=f"only {sorted(variables)}", do=AGAIN)
    return variables[key]


def numbers(file: Path, key: str, stored: Any, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """An array or lists as float64, when they hold real numbers in `shape` (None: any length).

    Stored types vary from file to file, and unsigned arithmetic wraps: everything is cast here. Raises RawDataError.
    """
    try:
        array = np.asarray(stored)
    except ValueError:  # lists of unequal lengths
        array = np.empty(0, object)
    fits = array.ndim == len(shape) and all(n is None or n == m for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "biuf":
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        found = f"{array.shape} {array.dtype}"
        raise RawDataError(file, key, expected=f"numbers of shape {wanted}", found=found, do=AGAIN)
    return array.astype(np.float64)


def table(file: Path, keys: Sequence[str], rows: Sequence[Any], n: int) -> NDArray[np.float64]:
    """(N, n) of N lists, the i-th under the i-th key, each as `numbers` takes it: together, as long as all is well."""
    try:
        array = np.asarray(rows)
    except ValueError:
        array = np.empty(0, object)
    if array.shape == (len(rows), n) and array.dtype.kind in "biuf":
        return array.astype(np.float64)
    one_by_one = [numbers(file, key, row, (n,)) for key, row in zip(keys, rows, strict=True)]  # tells which is wrong
    return np.array(one_by_one).reshape(len(rows), n)
