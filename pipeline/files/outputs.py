"""What a command may write for people: pages, clips, folders of bodies or numbers.  results ->
[files]

`OutputRule` decides for all of them. An output is never an input of its command, never in a cache,
and in a raw folder only a page of one file. It replaces only what the same command wrote:

    page        <meta name="generator" content="vibe-pipeline show">
    clip        the same text as the comment of its container
    folder      `ABOUT` in it, which lists the files and folders that the command wrote there

With `--overwrite`, it also replaces other files of the names that the command writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cache
from cache.storage.durable import write_atomic
from pipeline.cli.console import err
from pipeline.errors import PipelineError
from pipeline.files.formats.names import IMAGES
from pipeline.files.pixels.video import OPTIONS
from pipeline.files.raw.files import (
    ABOUT,
    PRODUCT,
    is_there,
    open_regular,
    read_about,
    scan_names,
)

PAGES: Final = (".html", ".htm")
_GENERATOR: Final = re.compile(rb'<meta name="generator" content="([^"]*)">')
HEAD: Final = 2000  # bytes of a page that name its command and its split
_KEYPOINTS: Final = "keypoints"  # the folder of label files below a raw folder of clips


def mark_of(command: str) -> str:
    """The mark of a file that a command wrote.

    >>> mark_of("show")
    'vibe-pipeline show'
    """
    return f"{PRODUCT} {command}"


@dataclass(frozen=True)
class OutputRule:
    """Where a command may write, and what it may replace there."""

    command: str
    inputs: Sequence[Path] = ()  # files and raw folders that it reads
    overwrite: bool = False

    def require_file(self, out: Path) -> None:
        """Raise PipelineError if the command may not write the page or clip `out`."""
        self.require_place(out)
        self._require_own(out, is_own=read_mark(out) == mark_of(self.command))

    def require_place(self, out: Path) -> None:
        """Raise PipelineError if `out` is an input, is in a cache, or is in a raw folder and no
        page. Prints a line about a page there.
        """
        real = Path(os.path.realpath(out))
        for folder in (real, *real.parents):
            if (folder / "zarr.json").is_file():
                raise PipelineError(
                    f"{out}: is in the cache {folder}, which holds nothing else. Name a place "
                    "outside."
                )
            if not self._is_input(folder):
                continue
            if out.suffix.lower() not in PAGES or _is_read(real):
                raise PipelineError(
                    f"{out}: {folder} is an input or a raw folder. In a raw folder, only a page "
                    "may be written, not among images or keypoints. Name a place outside."
                )
            err.warn(f"{out} is in the raw folder {folder}. Datasets do not read pages.")

    def begin_folder(self, out: Path, names: Collection[str]) -> None:
        """Make the folder `out`, and list in it what the command is about to write, so that it is
        the command's after a kill, too. Raises PipelineError if something else is there.

        names: of files and folders directly in `out`.
        """
        self._write_about(out, self.require_folder(out, names) | {*names})

    def require_folder(self, out: Path, names: Collection[str]) -> set[str]:
        """Raise PipelineError if the command may not write these files and folders directly in
        `out`. Returns what it wrote there before.
        """
        listed = self._list_written(out)
        for name in (*names, ABOUT):
            self.require_place(out / name)
            self._require_own(out / name, is_own=name in listed)
        return listed

    def end_folder(self, out: Path, files: Collection[str]) -> None:
        """Remove, one by one, files that the command wrote into `out` earlier and not in this run.
        List those of this run, paths below `out`.
        """
        listed = self._list_written(out)
        for name in listed - {*files, ABOUT}:
            if not self._is_input(out / name):
                with contextlib.suppress(OSError):  # missing, or a folder
                    (out / name).unlink()
        self._write_about(out, {name for name in (*files, *listed) if is_there(out / name)})

    def _is_input(self, path: Path) -> bool:
        return is_there(path) and any(map(path.samefile, filter(is_there, self.inputs)))

    def _list_written(self, out: Path) -> set[str]:
        """What the command wrote into a folder, except behind links."""
        mark, names = read_about(out)
        if mark != mark_of(self.command):
            return set()
        real = os.path.realpath(out)
        return {name for name in names if os.path.realpath(out / name) == f"{real}/{name}"}

    def _write_about(self, out: Path, names: set[str]) -> None:
        about = {"generator": mark_of(self.command), "files": sorted(names | {ABOUT})}
        write_atomic(out / ABOUT, f"{json.dumps(about, indent=1)}\n".encode())

    def _require_own(self, path: Path, *, is_own: bool) -> None:
        """Raise PipelineError if something is there that the command may not replace."""
        if os.path.lexists(path) and not (is_own or self.overwrite or _is_empty(path)):
            raise PipelineError(
                f"{path}: expected nothing, or what `{self.command}` wrote; found something else, "
                "which is not replaced. Move it, name another place, or run "
                f"`{self.command}` with --overwrite."
            )


def inputs_of(root: cache.Root | None, *given: Path | None) -> list[Path]:
    """The given files and raw folders, and the raw folders that the splits of a cache record."""
    inputs = [*filter(None, given)]
    if root is None:
        return inputs
    opened = cache.FeatureCache(root)
    for name in opened.splits:
        with contextlib.suppress(cache.CacheError, KeyError):
            inputs.append(Path(opened[name].provenance["raw"]))
    return inputs


def read_mark(file: Path) -> str:
    """The mark of a page or a clip; "" without one."""
    import av

    errors = (OSError, ValueError, LookupError, av.FFmpegError)
    with contextlib.suppress(*errors), open_regular(file) as stream:
        match = _GENERATOR.search(stream.read(HEAD))
        if match is not None:
            return match[1].decode()
        stream.seek(0)
        with av.open(stream, container_options=OPTIONS) as container:
            return str(container.metadata["comment"])
    return ""


def _is_empty(path: Path) -> bool:
    """Whether it is a file without content, as a power cut leaves it: nobody's work."""
    with contextlib.suppress(OSError), open_regular(path) as stream:
        return not stream.read(1)
    return False


def _is_read(page: Path) -> bool:
    """Whether a dataset reads the names in the folder of a page, which is in a raw folder."""
    names = scan_names(page.parent)
    return _KEYPOINTS in page.parts or any(name.lower().endswith(IMAGES) for name in names)
