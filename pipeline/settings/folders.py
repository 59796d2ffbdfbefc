"""Folders that a command names, compared with those of luigi.cfg: raw, cache, body.  [raw] ->
tracks
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cache
from pipeline.cli.console import err
from pipeline.cli.text import from_here
from pipeline.datasets.base import Dataset, globs
from pipeline.errors import ConfigError, PipelineError
from pipeline.files.raw import files, is_demo_data
from pipeline.people import smpl_files

if TYPE_CHECKING:
    from pipeline.settings.sections import Settings

BODY: Final = ("paths.body", "embedded.enabled")  # settings that `body_of` reads


def check_own_folder(raw: Path, dataset: Dataset) -> None:
    """Raise PipelineError if --raw is a file, or if the dataset's own folder is one level above or
    below.
    """
    parts = dataset.release.parts
    is_file = files.is_there(raw) and not files.is_folder_there(raw)
    if is_file and parts:  # datasets without parts report it themselves
        raise PipelineError(
            f"--raw {raw}: is a file. Unpack it, and name the folder that holds its content."
        )
    patterns = globs([pattern for part in parts for pattern in part.patterns])
    if not files.is_folder_there(raw) or files.has_match(raw, patterns):
        return
    for folder in (raw / dataset.name, raw.absolute().parent):
        if files.is_folder_there(folder) and files.has_match(folder, patterns):
            first = parts[0]
            example = f"{first.what}: {first.patterns[0]}"
            problem = f"--raw {raw}: found no files of {dataset.name} ({example})"
            raise PipelineError(f"{problem}. Did you mean --raw {from_here(folder)}?")


def refuse_one_folder(raw: Path, root: cache.Root) -> None:
    """Raise ConfigError if raw folder and cache are one folder, or one is in the other.

    Readers would list the cache's files, and `gc` the raw ones. An existing cache in a raw folder
    is still used.
    """
    folder = cache.local_folder(root)
    if folder is None:
        return
    real_raw = Path(os.path.realpath(raw))
    real_root = Path(os.path.realpath(folder))
    if real_root == real_raw:
        how = "they are the same folder"
    elif real_root.is_relative_to(real_raw) and not cache.store_at(root).exists("zarr.json"):
        how = "the cache is in the raw folder"
    elif real_raw.is_relative_to(real_root):
        how = "the raw folder is in the cache"
    else:
        return
    expected = f"expected two separate folders, but {how}"
    raise ConfigError(
        f"cache {root}, raw folder {raw}: {expected}. Name a cache beside the raw folder."
    )


def body_of(
    settings: Settings,
    named: Path | None,
    dataset: Dataset,
    *,
    demo: bool,
    needed: bool | None = None,
) -> Path | None:
    """Choose the body folder: `named`, else [paths] body, which depends on whether it is needed:

        needed  dataset              [paths] body
        True                         used if it suits the data; else a warning is printed
        False                        not used
        None    checks fits          used if its files are complete and it suits the data
        None    another one          as True if it uses the body, else as False

    A demo body suits demo data, a real one real data. demo: Whether these are demo data. A missing
    folder suits real data, whose reader reports it, unless [embedded] will make a demo body there.
    """
    if named is not None or settings.named_paths is None:
        return named
    body = settings.named_paths.body
    if needed is None:
        if dataset.labels.checks_fits:
            is_usable = is_demo_data(body) == demo and not smpl_files.missing(body)
            return body if is_usable else None
        needed = dataset.labels.uses_body
    if not needed:
        return None
    will_be_demo = settings.embedded.enabled and not body.is_dir()
    if is_demo_data(body) == demo and not will_be_demo:
        return body

    why = "folder not found"
    if body.is_dir():
        kind = "demo" if demo else "real"
        why = f"it is not a {kind} body"
    remark = f"[paths] body = {from_here(body)} is not used for {dataset.name}: {why}"
    err.warn(remark)
    return None
