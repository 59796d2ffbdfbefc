"""Files of a release that lie near the raw folder, but not where the reader looks.  [raw] -> tracks

`videos_of` lists a split's videos, and `doctor` compares a download: both name the folder that has
the files. Only names of files and folders are compared.
"""

from __future__ import annotations

import errno
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline.datasets.base import Dataset, ReleasePart, globs
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.raw import RawVideo, files

# dataset -> other names that downloads give to its folder
OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "h36m": ("Human36M", "human3.6m", "h3.6m"),
    "kinetics": ("k400",),
    "mpi_inf_3dhp": ("3dhp", "mpii3d"),
}


def videos_of(dataset: Dataset, raw: Path, split: str) -> Sequence[RawVideo]:
    """The videos of a split, as the dataset's reader lists them.

    Raises RawDataError if the folder is not the dataset's; PipelineError if its files are near it.
    """
    try:
        return dataset.videos(raw, split)
    except RawDataError as error:
        parts = dataset.release.parts
        needed = [part for part in parts if split in (part.splits or [split]) and not part.without]
        absent = [part for part in needed if not files.has_match(raw, _patterns([part]))]
        messages = " ".join(misplaced_parts(raw, parts, absent, dataset.name))
        if not messages or not absent:
            raise
        raise PipelineError(f"{dataset.name}/{split}: {messages}") from error


def misplaced_parts(
    raw: Path,
    parts: Sequence[ReleasePart],
    absent: Sequence[ReleasePart],
    dataset: str,
) -> Iterator[str]:
    """Yield messages about required parts that are missing from `raw` but lie somewhere near it.

    parts: all parts of the dataset, or of the body model; absent: the missing ones.
    """
    has_broken_link = False
    patterns = _patterns(absent)
    names_in_raw = dict.fromkeys(pattern.partition("/")[0] for pattern in patterns)
    fixed_paths = [raw / name for name in names_in_raw if not files.WILD.search(name)]
    for path in (raw, *fixed_paths):
        if path.is_symlink() and not files.is_there(path):
            has_broken_link = True
            link = _describe_broken_link(path)
            yield f"{path} is {link}. Mount its disk, or correct the link."
    if files.is_there(raw) and not files.is_folder_there(raw):
        yield f"{raw} is a file. Unpack it into a folder of this name."
    if has_broken_link or not absent:
        return

    elsewhere = _find_elsewhere(raw, patterns, OTHER_NAMES.get(dataset, ()))
    if elsewhere is not None:
        missing = " and ".join(part.what for part in absent)
        yield f"{missing}: not in {raw} but in {elsewhere}. {_advise_move(raw, elsewhere)}"
        return

    misplaced: dict[Path, list[tuple[str, Path]]] = {}  # folder -> (part, expected folder)
    for part in absent:
        in_other_case: list[str] = []
        for glob in globs(part.patterns):
            in_other_case += files.find(raw, glob, {}, any_case=True)
        if in_other_case:
            yield (
                f"{part.what}: {min(in_other_case)} differs in capitals from {part.patterns[0]}. "
                "Rename it and its like."
            )
        else:
            other_folders = _fixed_folders(other for other in parts if other is not part)
            pair = _find_one_folder_off(raw, part, other_folders)
            if pair is not None:
                expected, found = pair
                misplaced.setdefault(found, []).append((part.what, expected))
    for found, wanted in misplaced.items():  # one line, also for files of several parts
        what = ", ".join(name for name, _ in wanted)
        folders = ", ".join(dict.fromkeys(str(expected) for _, expected in wanted))
        yield f"{what}: not in {folders} but in {found}. Move or rename them."


def _describe_broken_link(path: Path) -> str:
    """What a link leads to that leads nowhere, for messages: its target, or a circle of links."""
    why = "does not exist"
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        if error.errno == errno.ELOOP:
            why = "leads in a circle"
    return f"a link to {path.readlink()}, which {why}"


def _fixed_folders(parts: Iterable[ReleasePart]) -> set[str]:
    """The first folders of the parts' patterns, without wildcards: sequenceFiles/train."""
    folders = set[str]()
    for pattern in _patterns(parts):
        *above, _ = pattern.rstrip("/").split("/")
        fixed = itertools.takewhile(lambda name: not files.WILD.search(name), above)
        folders.add("/".join(fixed))
    return folders - {""}


def _find_one_folder_off(
    raw: Path, part: ReleasePart, others: set[str]
) -> tuple[Path, Path] | None:
    """The expected and the actual folder of a missing part's files that are in a folder of another
    name, or lie one level higher or deeper; None without any.

    others: folders of other parts, whose files these are not.
    """
    for pattern in globs(part.patterns):
        names = pattern.rstrip("/").split("/")
        end = pattern[len(pattern.rstrip("/")) :]
        for n, name in enumerate(names[:-1]):
            if files.WILD.search(name):
                continue
            expected_folder = "/".join(names[: n + 1])
            for there in (["*"], [name, "*"], []):
                glob = "/".join([*names[:n], *there, *names[n + 1 :]]) + end
                paths = [Path(path).relative_to(raw) for path in files.find(raw, glob, {})]
                own = [
                    path
                    for path in paths
                    if not any(map(path.is_relative_to, others)) and not path.match(expected_folder)
                ]
                if own:
                    found = raw.joinpath(*min(own).parts[: n + len(there)])
                    expected = raw.joinpath(*names[: n + 1])
                    return expected, found
    return None


def _patterns(parts: Iterable[ReleasePart]) -> list[str]:
    """The globs of parts, and of the parts of another layout that can replace them."""
    patterns: list[str] = []
    for part in parts:
        patterns += globs(part.patterns)
        if part.instead is not None:
            patterns += globs(part.instead.patterns)
    return patterns


def _find_elsewhere(raw: Path, patterns: Sequence[str], names: Sequence[str]) -> Path | None:
    """Find another folder than `raw` that has matches: below, beside or above it.

    Folders beside it must have a similar name. None if there is no such folder.
    """
    candidates = [
        folder for folder in files.list_folders(raw.parent) if _is_alike(folder, raw, names)
    ]
    if files.is_folder_there(raw):
        below = _find_nested_too_deep(raw, patterns)
        if below is not None:
            return below
    else:
        candidates.append(raw.parent)
    for folder in candidates:
        if files.has_match(folder, patterns):
            return folder
    return None


def _find_nested_too_deep(raw: Path, patterns: Sequence[str]) -> Path | None:
    """Find a folder, one or two levels below `raw`, in which a pattern matches: the data may have
    been unpacked there by mistake. None if there is none.
    """
    level = [raw]
    for _ in range(2):
        below = itertools.chain.from_iterable(map(files.list_folders, level))
        level = list(below)[: files.MOST_FOLDERS]
        for folder in level:
            if files.has_match(folder, patterns):
                return folder
    return None


def _is_alike(folder: Path, raw: Path, names: Sequence[str]) -> bool:
    """Whether a folder's name is one of `names`, or that of `raw` with a version: posetrack18."""
    if folder == raw:
        return False
    name = letters(folder.name)
    if name in map(letters, names):
        return True
    # bedlam2 is no bedlam
    is_version = re.fullmatch(rf"{re.escape(letters(raw.name))}([0-9]{{2,4}})?", name)
    return is_version is not None


def letters(name: str) -> str:
    """Small letters and digits of a name.

    >>> letters("Penn_Action"), letters("3DPW")
    ('pennaction', '3dpw')
    """
    return "".join(char for char in name.lower() if char.isalnum())


def _advise_move(raw: Path, elsewhere: Path) -> str:
    """Say how to move or rename a folder with the dataset's files, so that `raw` has them."""
    nested = elsewhere / elsewhere.resolve().name
    if files.is_folder_there(nested):
        return f"{nested} is a folder in one of the same name. Move its contents to {elsewhere}."

    if elsewhere == raw.parent:
        target = elsewhere.resolve()
        renamed = "" if target.name == raw.name else f", with {target.name}/ renamed to {raw.name}"
        return f"Name the folder above: --raw {target.parent}{renamed}."

    rename = "" if files.is_there(raw) else f", or rename it: mv {elsewhere} {raw}"
    return f"Move the contents of {elsewhere} to {raw}{rename}."
