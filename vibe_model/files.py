"""Files of runs, which are replaced atomically, and digests of body folders and checkpoints."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final

from pipeline.errors import ConfigError

# Files of a body folder that affect results: of each line, the first one that exists. Other files
# of the folder do not change its digest.
_BODY_FILES: Final = (
    ("J_regressor_extra.npy",),
    ("J_regressor_h36m.npy",),
    ("SMPL_NEUTRAL.pkl", "SMPL_NEUTRAL.npz"),
    ("smpl_mean_params.npz",),
)


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file atomically and durably: readers see the old content or the new one."""
    from cache.storage.durable import sync_folder

    part = path.with_name(f".{path.name}.part")
    # left by a killed run, or a link: it is replaced, never written through
    part.unlink(missing_ok=True)
    with part.open("xb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sorted JSON without NaN, atomically."""
    from cache.storage.durable import write_atomic

    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_atomic(path, f"{text}\n".encode())


def local_root(root: Path | str) -> Path | str:
    """The folder of a cache on this machine, or its URL as text."""
    import cache  # late, as above: the names of models are listed without it

    return cache.local_folder(root) or root


def folder_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of a body folder's `_BODY_FILES`.

    Raises ConfigError for a missing folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder of body model files, found none")
    lines = list[str]()
    for names in _BODY_FILES:
        present = [folder / name for name in names if (folder / name).is_file()]
        lines += [f"{file.name} {file_digest(file)}" for file in present[:1]]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content. Raises ConfigError for a missing file.

    Within a process, the digest is cached as long as the file's size and time do not change.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: expected a file, found none")
    status = file.stat()
    return _file_digest(file, status.st_size, status.st_mtime_ns)


@functools.cache
def _file_digest(file: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - size and time are the cache's key
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
