"""What goes wrong with any download, whatever is in it.  [raw] -> tracks -> features -> windows

For `doctor`. By names alone, from the parts that a release consists of; what a dataset alone can know, it says itself
(`Dataset.mistakes`).
"""

from __future__ import annotations

import fnmatch
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.datasets.release import Mistake, Part, counted
from pipeline.raw import listing

FEW: Final = 3  # of the same mistake, so many are told one by one


def unreachable(name: str, parts: Sequence[Part], raw: Path) -> Iterator[Mistake]:
    """Why there is no raw folder, as far as the folder around it tells. `name`: the dataset's; "" for the body."""
    try:
        if stat.S_ISDIR(raw.stat().st_mode):
            return
        yield Mistake(f"{raw} is no folder", f"Put the download into a folder of that name: {sources(parts)}.")
    except (FileNotFoundError, NotADirectoryError):
        if raw.is_symlink():
            yield Mistake(f"{raw} is a link to {raw.readlink()}, which is not there", "Is that disk mounted?")
        else:
            yield from _elsewhere(name, parts, raw)
    except OSError as error:
        yield Mistake(f"{raw} cannot be reached: {error.strerror}", "Take the right to read it, or mend the link.")


def _elsewhere(name: str, parts: Sequence[Part], raw: Path) -> Iterator[Mistake]:
    """What lies around the place where the raw folder should be."""
    patterns = [pattern for part in parts if not part.without for pattern in part.patterns]
    above = raw.parent
    if (spelt := listing.same_but_for_spelling(above, raw.name)) is not None:
        yield Mistake(f"there is {above / spelt}, but no {raw.name}/ beside it", f"Rename it to {raw.name}.")
    elif name and listing.any_fits(above, patterns):
        renamed = "" if above.name == raw.name else f", and let {above.name}/ be called {raw.name}"
        do = f"Name the folder above as the raw folder: --raw {above.parent}{renamed}."
        yield Mistake(f"{above} itself holds {name}, and {raw} is looked at", do)
    for file in beside(parts, raw):
        yield Mistake(f"{file} is still packed", f"Unpack it, so that its content lies in {raw}.")


def beside(parts: Sequence[Part], raw: Path) -> list[Path]:
    """Archives that lie beside the place of a raw folder, under the names that the parts give."""
    files = listing.packed(raw.parent)
    return [file for file in files if any(file.name.lower() in part.source.lower() for part in parts)]


def unreadable(places: listing.Unreadable) -> Iterator[Mistake]:
    """What was met and may not be read."""
    for place, why in sorted(places.items()):
        yield Mistake(f"{place} cannot be read: {why}", "Take the right to read it, or have its owner give it.")


def misplaced(raw: Path, lacking: Sequence[Part], absent: Sequence[Part]) -> tuple[list[Mistake], list[Part]]:
    """What is there, under another name or in another folder than it has in the release, and the parts it concerns.

    `lacking`: parts of which not all is there; `absent`: those of them of which there is nothing. What else looks wrong
    mostly follows from this.
    """
    told: dict[tuple[Path, str], None] = {}
    concerned = []
    for part in lacking:
        if pairs := sorted(listing.misspelt(raw, part.patterns, ends=part in absent)):
            told |= dict.fromkeys(pairs)
            concerned.append(part)
    mistakes = [
        Mistake(f"{there} is there, {wanted!r} is its name in the release", f"Rename it to {wanted}.")
        for there, wanted in list(told)[:FEW]
    ]
    if len(told) > FEW:
        mistakes.append(Mistake(f"{counted(len(told) - FEW, 'name is', 'names are')} misspelt likewise", "Rename too."))
    return (mistakes, concerned) if told else _too_deep(raw, [part for part in absent if not part.without])


def _too_deep(raw: Path, absent: Sequence[Part]) -> tuple[list[Mistake], list[Part]]:
    patterns = [pattern for part in absent for pattern in part.patterns]
    if not patterns or (deep := listing.deeper(raw, patterns)) is None:
        return [], []
    parts = [part for part in absent if listing.any_fits(deep, part.patterns)]
    heads = {pattern.partition("/")[0] for part in parts for pattern in part.patterns}
    top = deep.relative_to(raw).parts[0]
    twice = listing.is_there(deep / top) and any(fnmatch.fnmatchcase(top, head) for head in heads)
    source, target = (deep / top, raw / top) if twice else (deep, raw)  # a/a cannot be moved onto the a that it is in
    what = f"{' and '.join(part.what for part in parts)} lie in {source}: unpacked too deep"
    return [Mistake(what, f"Move all that is in {source} to {target}.")], parts


def empty(raw: Path, absent: Sequence[Part]) -> Iterator[Mistake]:
    """Folders of the release in which there is nothing."""
    needed = [part for part in absent if not part.without]
    found = {(listing.empty_folder(raw, pattern), part.source) for part in needed for pattern in part.patterns}
    for folder in sorted({folder for folder, _ in found if folder is not None}):
        comes = dict.fromkeys(part.source for part in needed if (folder, part.source) in found)
        yield Mistake(f"{folder} is empty", f"What belongs there comes with {', '.join(comes)}.")


def still_packed(raw: Path, packed: Sequence[Path]) -> Iterator[Mistake]:
    """Archives of each kind and in each folder, with the command that unpacks them; downloads that broke off."""
    kinds: dict[tuple[Path, str], list[Path]] = {}
    for archive in packed:
        whole = listing.unpacking(archive.name)
        same = whole if listing.PIECE.fullmatch(archive.name) else whole.partition(" ")[0]
        kinds.setdefault((archive.parent, same), []).append(archive)
    for (folder, _), archives in kinds.items():
        how = listing.unpacking(archives[0].name)
        each = ", and each of the others likewise" if len(archives) > 1 and "|" not in how and "7z" not in how else ""
        yield Mistake(f"{_first_of(archives)} still packed", f"Unpack in {folder}: {how}{each}; and look again.")
    if partial := listing.packed(raw, listing.UNFINISHED):
        ends = "an unfinished download" if len(partial) == 1 else "unfinished downloads"
        yield Mistake(f"{_first_of(partial)} {ends}", "Finish downloading.")


def _first_of(files: Sequence[Path]) -> str:
    return f"{files[0]} is" if len(files) == 1 else f"{files[0]} and {len(files) - 1:,} more are"


def sources(parts: Iterable[Part]) -> str:
    """What of the download holds these parts, each once."""
    return ", ".join(dict.fromkeys(part.source for part in parts))
