"""Result files of body estimators as plain dicts, lists and arrays; no code in them runs.

Pickles and joblib's files are read by the list of names of `pipeline.files.formats.pickles`, with
`collections.defaultdict` and `OrderedDict`, which stand for dicts. PyTorch's are read by
`torch.load(weights_only=True)`.
"""

from __future__ import annotations

import mmap
import pickle
import tempfile
import zlib
from pathlib import Path
from typing import Any, Final

from pipeline.exchange.vibe_db.joblib_files import NAMES, JoblibUnpickler
from pipeline.files.formats.arrays import other_format, reading, refuse
from pipeline.files.formats.pickles import ArrayUnpickler
from pipeline.files.raw.files import open_unbuffered, read_regular

EXPECTED: Final = "a body estimator's results: joblib's or PyTorch's file of arrays"
AGAIN: Final = "Copy the file again, or run the tool again (docs/results.md has the files)."
ZIP: Final = b"PK\x03\x04"
ZLIB: Final = b"\x78"
MOST_TIMES: Final = 100  # bytes of a compressed file's content, of its own: zeros give 1,000


def _empty_dict(*_: object) -> dict[Any, Any]:
    """A dict, whose items follow. What a defaultdict would call is not."""
    return {}


_ALLOWED: Final = NAMES | {
    ("collections", "defaultdict"): _empty_dict,
    ("collections", "OrderedDict"): _empty_dict,
    ("builtins", "dict"): "dict",  # named by a defaultdict, and never called
    ("__builtin__", "dict"): "dict",
}


def load_results(file: Path) -> Any:
    """The content of a result file.

    Raises RawDataError if it is unreadable, and UnsafePickle if it names anything but arrays.
    """
    with reading(file, EXPECTED, do=AGAIN):
        with open_unbuffered(file) as stream:
            start = stream.read(16)
        if start.startswith(ZIP):
            return _load_torch(file)
        if start.startswith(ZLIB):
            return _load_compressed(file)
        if not start.startswith(pickle.PROTO):
            refuse(other_format(start) or f"a file that begins with {start[:12]!r}")
        return _load_joblib(file, file)


def _load_torch(file: Path) -> Any:
    import torch  # takes 1 s

    content = torch.load(file, map_location="cpu", weights_only=True)
    return _plain(content)


def _plain(value: Any) -> Any:
    """Tensors as arrays, in dicts and lists."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _load_compressed(file: Path) -> Any:
    """As PHALP writes them. The content goes to a temporary file, from which arrays are mapped."""
    packed = read_regular(file)
    most = MOST_TIMES * len(packed)
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(packed, most)
    if not unpacking.eof:
        refuse(f"it is cut off, or has over {MOST_TIMES} times its size")
    with tempfile.NamedTemporaryFile(prefix="results-") as unpacked:
        unpacked.write(content)
        unpacked.flush()
        return _load_joblib(file, Path(unpacked.name))


def _load_joblib(file: Path, content: Path) -> Any:
    with (
        open_unbuffered(content) as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        return _Unpickler(file, content, mapped).load()


class _Unpickler(JoblibUnpickler):
    """joblib's unpickler with dicts of other classes. `content`: where the bytes are."""

    dispatch = JoblibUnpickler.dispatch.copy()

    def __init__(self, file: Path, content: Path, mapped: mmap.mmap) -> None:
        ArrayUnpickler.__init__(self, file, mapped, _ALLOWED, EXPECTED)
        self.content = mapped
        self.arrays_in = content
