"""Versions of everything that decides numbers besides the data: the code, Python and libraries.
[raw -> tracks -> features]

Uncommitted work is only used, and workers of a cluster are only accepted, if their versions are
equal. So all numbers of a commit come from the same code.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import platform
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pipeline.errors import ConfigError

CODE: Final = "code"
CODE_OF: Final = "code of "  # followed by the package of a dataset, stream or detector
PYTHON: Final = "python"
LIBRARIES: Final = ("av", "numpy", "opencv-python", "scipy", "simplejpeg", "torch")
OPTIONAL: Final = ("ai-edge-litert", "onnxruntime")  # run networks; need not be installed
# Other packages with OpenCV: without windows, or with more modules. Their numbers are the same.
OTHER_OPENCV: Final = (
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
OWN: Final = ("cache", "pipeline", "tasks", "vibe_model")  # this project's packages
_PACKAGE: Final = "vibe-pipeline"
_HOME: Final = Path(__file__).parents[2]  # the folder of the project's packages
_BEGAN: Final = time.time()  # of this process, s


def versions(*plug_ins: object) -> dict[str, str]:
    """Versions by name: of this project's code, of Python, of libraries, and of the code of other
    packages. The version of code is a digest of its files.

    Args:
        plug_ins: datasets, streams and detectors that are used, perhaps from other packages.
    """
    packages = {_package_of(type(plug_in).__module__) for plug_in in plug_ins}
    plug_in_packages = sorted(packages.difference(OWN, ["__main__"]))
    names = [CODE, *(f"{CODE_OF}{package}" for package in plug_in_packages), PYTHON]
    names += [*LIBRARIES, *OPTIONAL]
    return {name: version(name) for name in names}


@functools.cache
def version(name: str) -> str:
    """One of the `versions`, computed once in a process (20 ms for the code).

    If the code has changed since this process began, its version is one that no other process has.
    """
    if name == PYTHON:
        return platform.python_version()
    if name == CODE:
        files = list[Path]()
        for package in OWN:
            files += sorted(_HOME.joinpath(package).rglob("*.py"))
        digest = _digest(files)
        # A time ahead of the clock, as an archive may have it, is no change during this run.
        if any(_BEGAN < file.stat().st_mtime <= time.time() for file in files):
            digest += f", changed while process {os.getpid()} of {socket.gethostname()} ran"
        return digest
    if name.startswith(CODE_OF):
        return _digest(_find_files(name.removeprefix(CODE_OF)))
    if name == "opencv-python":
        return _first_version(name, *OTHER_OPENCV) or _built_opencv()
    if name in OPTIONAL:
        return _first_version(name, f"{name}-gpu") or "none"
    from importlib import metadata

    return metadata.version(name)


def _first_version(*names: str) -> str:
    """The version of the first of these packages that is installed; "" if none is."""
    from importlib import metadata

    for name in names:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""


def _built_opencv() -> str:
    import cv2  # built by hand: it has no package

    return str(cv2.__version__)


def require_torchvision() -> None:
    """Raise ConfigError if torchvision was built for another torch than the installed one: then it
    cannot be imported.
    """
    try:
        importlib.import_module("torchvision")
    except (AttributeError, ImportError, RuntimeError) as error:
        raise ConfigError(
            f"torchvision {version('torchvision')} does not fit torch {version('torch')} "
            f"({error}). Install both at once, from one index: pip install --upgrade torch "
            "torchvision"
        ) from error


def package_version() -> str:
    """The package's version with its commit, if known, and a digest of its code, to be cited.

    The digest is the same for the same code, whether it was installed from a clone, a wheel or by
    pip.
    """
    parts = [f"code {version(CODE)}"]
    commit = _git_commit()
    if commit:
        parts.insert(0, f"commit {commit}")
    return f"{_PACKAGE} {version(_PACKAGE)} ({', '.join(parts)})"


def _git_commit() -> str:
    """12 digits of the commit that is checked out or that pip installed from Git; "" if unknown."""
    import subprocess
    from importlib import metadata

    if (_HOME / ".git").exists():
        command = ["git", "-C", str(_HOME), "describe", "--always", "--dirty", "--abbrev=12"]
        with suppress(OSError, subprocess.CalledProcessError):
            return subprocess.check_output(  # noqa: S603  our own words
                [*command, "--exclude=*"], stderr=subprocess.DEVNULL, text=True
            ).strip()
    installed = json.loads(metadata.distribution(_PACKAGE).read_text("direct_url.json") or "{}")
    return str(installed.get("vcs_info", {}).get("commit_id", ""))[:12]


def staging_plan(identity: str, *plug_ins: object) -> dict[str, Any]:
    """The plan of uncommitted work: what it is for (a digest of an identity), and the `versions`
    that compute it. Work of another plan is not used.
    """
    return {"identity": identity, "software": versions(*plug_ins)}


def _package_of(module: str) -> str:
    """The top-level package of a module; the module itself if the package has no `__init__.py`, as
    several projects may share such a folder.
    """
    package = module.partition(".")[0]
    has_file = getattr(importlib.import_module(package), "__file__", None) is not None
    return package if has_file else module


def _find_files(package: str) -> list[Path]:
    """The Python files of a package or module."""
    module = importlib.import_module(package)
    if not hasattr(module, "__path__"):
        return [Path(str(module.__file__))]
    files = list[Path]()
    for folder in module.__path__:
        files += sorted(Path(folder).rglob("*.py"))
    return files


def _digest(files: Sequence[Path]) -> str:
    """12 hex digits of the files' names and contents."""
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
