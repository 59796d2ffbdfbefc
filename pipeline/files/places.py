"""Parse paths as people type them, make file names for tracks, and replace files.  [raw]"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cache.storage import SCHEMES
from cache.storage.durable import publish
from pipeline.errors import PipelineError

# texts of shells, of luigi.cfg and of Windows that are no paths here
_OTHER_TEXT: Final = re.compile(r"""["']|.*\$(\w+|\{)|.*%\(\w+\)s|[A-Za-z]:([\\/]|$)|\\\\|file:""")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+")


def folder_of(text: str, *, or_url: bool) -> Path:
    """Parse the path of a file or folder; `~` is the home folder. If the path exists as written, it
    is returned unchanged.

    Args:
        or_url: the caller also accepts URLs of an object store, which messages mention. Such a URL
            must not be passed to this function.

    Raises ValueError for a text that looks like a common mistake, such as a quoted path or a URL.
    """
    path = Path(text)
    if path.exists():
        return path
    if _OTHER_TEXT.match(text):
        raise ValueError(
            "expected a path of this system, without quotes, variables, a drive or file:"
        )
    url = _URL.match(text)
    if url and not or_url:
        raise ValueError("expected a path of this system, which this cannot be")
    if url and url[1] in SCHEMES:
        raise ValueError(f"expected a folder, or a URL with two slashes: {url[1]}://bucket/prefix")
    if url:
        urls = f"a URL that starts with one of {', '.join(SCHEMES)}"
        raise ValueError(f"expected a path of this system, or {urls}")

    try:
        return path.expanduser()
    except RuntimeError as error:
        user = text.partition("/")[0]
        raise ValueError(f"expected a path: there is no home folder of {user}") from error


def require_writable(folder: Path, do: str) -> None:
    """Raise PipelineError, with `do`, if no file can be made in a folder, or in the folder above
    in which it would be made.

    A file without a name is made: permissions do not tell of read-only disks, or of those that
    the administrator meets.
    """
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise PipelineError(f"{folder}: {above} is a file, where a folder is needed. {do}")
    try:
        with tempfile.TemporaryFile(dir=above):
            return
    except OSError as error:
        raise PipelineError(
            f"{folder}: nothing can be written in {above} ({error.strerror}). {do}"
        ) from error


def require_parent(out: Path) -> None:
    """Raise PipelineError if the folder of the file or folder that `--out` names is missing."""
    if not out.parent.is_dir():
        raise PipelineError(
            f"--out {out}: the folder {out.parent} does not exist. Create it, or choose another."
        )


@contextmanager
def write_aside(file: Path) -> Iterator[Path]:
    """Yield a path beside `file` to write to. What is there at the end becomes `file`; an error
    leaves `file` as it was.
    """
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)  # left by a killed run
    try:
        yield part
        publish(part, file)
    finally:
        part.unlink(missing_ok=True)


def file_name(track: str, ending: str) -> str:
    """A unique file name for a track, which any file system allows.

    >>> file_name("train/abseiling/x y/0", ".npz")
    'train_abseiling_x_y_0-2906784860330344.npz'
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", track).strip("._-")[:80] or "track"
    return f"{readable}-{hashlib.sha256(track.encode()).hexdigest()[:16]}{ending}"
