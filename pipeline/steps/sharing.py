"""What goes to others with a split's rows: texts without folders of this machine, and its licence.
rows -> [others]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
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
_PRIVATE: Final = {
    "yes": "",
    "no": "For yourself or a private repository: the terms of {} ({}) do not let its rows be "
    "passed on.",
    "ask": "For yourself or a private repository, unless the terms of {} ({}) let its rows be "
    "passed on. Ask whoever made the dataset.",
}
# what begins a path that is not below the raw folder, on any system; in */a.mp4 of a setting, the
# slash begins none
_FOLDER: Final = re.compile(r"(?<![\w./*?\]])/(?=[^\s/])|\b[A-Za-z]:\\|\\\\\w|file://|\.\./")


def text_cleaner(split: cache.Split) -> Callable[[Any], Any]:
    """Return a function that takes JSON and returns it without folders of this machine: paths below
    the split's raw folder without it, and LEFT_OUT in place of other texts with absolute paths.
    """
    raw = [note["raw"] for note in split.commit.notes().values() if note.get("raw")]
    # Messages have the raw folder as it was typed, from the working folder: its last parts tell.
    tails = "|".join(re.escape("/".join(Path(folder).parts[-2:])) for folder in raw)
    below_raw = re.compile(rf"[^\s'\"(:]*(?:{tails or '(?!)'})/")

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {clean(key): clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        if not isinstance(value, str):
            return value
        value = below_raw.sub("", value)
        return LEFT_OUT if _FOLDER.search(value) else value

    return clean


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


def private_lines(licences: Mapping[str, Licence], *, public: bool = False) -> list[str]:
    """A line for each dataset whose rows are not for everybody, or perhaps not.

    public: the user says that they are. Raises PipelineError if a dataset's terms say no.
    """
    lines = []
    for name, licence in licences.items():
        line = _PRIVATE[licence.sharing].format(name, licence)
        if public and licence.sharing == "no":
            raise PipelineError(f"--public is refused. {line}")
        if line and not public:
            lines.append(line)
    return lines
