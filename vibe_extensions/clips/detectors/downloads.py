"""Published weights of detectors, downloaded once into torch's folder.  [weights] -> keypoints"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pipeline.errors import MissingAssets

PRETRAINED: Final = "pretrained"  # value of a detector's option for its published weights


def file_of(url: str) -> Path:
    """Where torch keeps what it downloads from there."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub/checkpoints" / url.rpartition("/")[2]


def option(key: str) -> str:
    """The option of commands that sets a detector's, but for its value."""
    return "--weights " if key == "weights" else f"--set {key}="


def downloaded(url: str, key: str, digest: str | None = None) -> Path:
    """The file, which is downloaded where it is missing. Imports torch then.

    key: the detector's option that names a file; digest: how the file's sha256 begins. Raises MissingAssets where it
    cannot be downloaded, or is another.
    """
    file = file_of(url)
    if file.is_file():
        return file
    import torch

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digest, progress=False)
    except OSError as error:  # urllib's errors are too
        raise MissingAssets(
            f"{key}: {url} cannot be downloaded ({getattr(error, 'reason', error)}). Fetch that file where there is a "
            f"network, and put it at {file}; or name it where it is: {option(key)}FILE."
        ) from error
    except RuntimeError as error:  # its hash is another
        raise MissingAssets(f"{key}: {url} is damaged: {error}. Try it again.") from error
    return file
