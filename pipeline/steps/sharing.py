"""What goes to others with a split's rows: texts without folders of this machine, and its licence.
rows -> [others]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import cache
from pipeline.datasets import find_installed
from pipeline.datasets.base import UNKNOWN_TERMS, Licence
from pipeline.errors import PipelineError
from pipeline.steps.conversion_record import ConversionRecord

LEFT_OUT: Final = "(a text that names a folder is not passed on)"
DEMO: Final = Licence(
    "MIT, as this project: demo data", "https://opensource.org/license/mit", "yes"
)
_FORBIDDEN: Final = "the terms of {} ({}) do not let its rows be passed on."
_PRIVATE: Final = {
    "no": f"For yourself or a private repository: {_FORBIDDEN}",
    "ask": "For yourself or a private repository, unless the terms of {} ({}) let its rows be "
    "passed on. Ask whoever made the dataset.",
}
# what begins a path that is not below the raw folder, on any system
_FOLDER: Final = re.compile(r"(?<![\w./])/(?=[^\s/])|\b[A-Za-z]:\\|\\\\\w|file://|\.\./")


def text_cleaner(split: cache.Split) -> Callable[[Any], Any]:
    """Return a function that takes JSON and returns it without folders of this machine: paths below
    the split's raw folder without it, and LEFT_OUT in place of other texts with absolute paths.
    """
    notes = split.commit.notes().values()
    raw = {str(note["raw"]) for note in notes if note.get("raw")}
    below_raw = [re.compile(_path_pattern(folder)) for folder in sorted(raw)]

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {clean(key): clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        if not isinstance(value, str):
            return value
        for pattern in below_raw:
            value = pattern.sub("", value)
        return LEFT_OUT if _FOLDER.search(value) else value

    return clean


def _path_pattern(folder: str) -> str:
    """A regular expression of a path and of its last parts: messages have the raw folder as it was
    typed, from the working folder.
    """
    parts = [re.escape(part) for part in folder.strip("/").split("/")]
    above = "/?"
    for part in parts[:-2]:
        above = f"(?:{above}{part}/)?"
    return rf"(?<![\w./-]){above}{'/'.join(parts[-2:])}(?:/|(?![\w.-]))"


def licences_of(splits: Iterable[cache.Split]) -> dict[str, Licence]:
    """The licences of splits' rows, by dataset: DEMO for demo data."""
    licences = {}
    for split in splits:
        name = split.name.partition("/")[0]
        dataset = find_installed(name)
        licence = UNKNOWN_TERMS
        if ConversionRecord(split).is_stand_in:
            licence = DEMO
        elif dataset is not None:
            release = dataset.release
            licence = release.licence._replace(page=release.licence.page or release.page)
        licences[name] = licence
    return licences


def private_lines(licences: Mapping[str, Licence]) -> list[str]:
    """A line for each dataset whose rows are not for everybody, or perhaps not."""
    lines = []
    for name, licence in licences.items():
        if licence.sharing != "yes":
            lines.append(_PRIVATE[licence.sharing].format(name, licence))
    return lines


def refuse_public(licences: Mapping[str, Licence]) -> None:
    """Raise PipelineError if a dataset's terms do not let its rows be passed on."""
    for name, licence in licences.items():
        if licence.sharing == "no":
            text = _FORBIDDEN.format(name, licence)
            raise PipelineError(f"--public: {text} Leave --public out: the card then says so.")
