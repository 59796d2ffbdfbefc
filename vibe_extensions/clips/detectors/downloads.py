"""Published weights of detectors, downloaded once into torch's cache folder.  [weights] -> keypoints"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pipeline.errors import MissingAssets

PRETRAINED: Final = "pretrained"  # option value that names a detector's published weights


def file_of(url: str) -> Path:
    """Path of a download from this address in torch's cache folder."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub/checkpoints" / url.rpartition("/")[2]


def option(key: str) -> str:
    """The command line option that sets a detector's option, without its value."""
    return "--weights " if key == "weights" else f"--set {key}="


def download(url: str, key: str, digest: str | None = None) -> Path:
    """Return the downloaded file; download it if it is missing, which imports torch.

    Args:
        key: The detector's option that names the file, for messages.
        digest: Prefix of the file's SHA-256.

    Raises:
        MissingAssets: the file cannot be downloaded, or has another digest.
    """
    file = file_of(url)
    if file.is_file():
        return file
    import torch

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digest, progress=False)
    except OSError as error:  # urllib's errors are OSErrors, too
        raise MissingAssets(
            f"{key}: {url} cannot be downloaded ({getattr(error, 'reason', error)}). Download the file elsewhere and "
            f"copy it to {file}, or name it: {option(key)}FILE."
        ) from error
    except RuntimeError as error:  # wrong hash
        raise MissingAssets(f"{key}: the download of {url} is damaged: {error}. Try again.") from error
    return file
