"""Published weights of detectors, downloaded once into torch's cache folder.  [weights] -> keypoints"""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from typing import Final

from pipeline.cli.console import err, plain, size
from pipeline.errors import MissingAssets

PRETRAINED: Final = "pretrained"  # option value that names a detector's published weights
TIMEOUT: Final = 60  # s, until the server answers


def file_of(url: str) -> Path:
    """Path of a download from this address in torch's cache folder."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub/checkpoints" / url.rpartition("/")[2]


def option(key: str) -> str:
    """The command line option that sets a detector's option, without its value."""
    return "--weights " if key == "weights" else f"--set {key}="


def download(url: str, name: str, licence: str) -> Path:
    """Return the downloaded file; download it if it is missing, which prints its size and licence, and imports torch.

    Raises MissingAssets if it cannot be downloaded.
    """
    file = file_of(url)
    if file.is_file():
        return file
    import torch

    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - an address of OpenMMLab's
            length = answer.headers.get("Content-Length")
        stated = size(int(length)) if length else "size not stated"
        err.print(plain(f"downloading {name} ({stated}, licence {licence}) from {url} to {file}"))
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=False)
    except OSError as error:  # urllib's errors are OSErrors, too
        raise MissingAssets(
            f"{name}: {url} cannot be downloaded ({getattr(error, 'reason', error)}). Without this download: "
            "--detector blaze_pose, whose weights are in a wheel for pip (docs/adding-a-detector.md). Or download the "
            f"file elsewhere and copy it to {file}, or name your files: {option('weights')}FILE "
            f"{option('detector')}FILE."
        ) from error
    return file
