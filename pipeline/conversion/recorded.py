"""A committed split's reader, raw folder and body, as its manifest and provenance record them.  [raw -> tracks]"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cache
from pipeline import datasets
from pipeline.conversion.missing import names_with_rows, recorded_raw
from pipeline.conversion.plan import ConversionPlan, compare
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.files.raw import changes


def recorded_plan(
    split: cache.Split,
    raw: Path | None = None,
    body: Path | None = None,
    *,
    drop_removed: bool = False,
    retry: bool = False,
) -> ConversionPlan:
    """The plan of a committed split. Arguments and errors as of `recorded_reader` and `compare`."""
    reader, folder, body = recorded_reader(split, raw, body)
    where: dict[str, Any] = {"raw": folder, "root": split.root, "body": body}
    return compare(split, reader, split.name.partition("/")[2], **where, drop_removed=drop_removed, retry=retry)


def recorded_reader(
    split: cache.Split, raw: Path | None = None, body: Path | None = None
) -> tuple[Dataset, Path, Path | None]:
    """The reader with its options, the raw folder and the body model's folder of a committed split's conversion.

    `raw`, `body`: where they are now, when they have moved. Raises PipelineError where one of them is not known or not
    there, and for a split that was not converted by this project.
    """
    if "parameters" not in split.manifest.get("reader", {}):
        raise PipelineError(f"{split.name}: was not converted from raw data here: it cannot be converted again")
    return _recorded_dataset(split), raw_folder(split, raw), _body_folder(split, body)


def _recorded_dataset(split: cache.Split) -> Dataset:
    parameters: Mapping[str, Any] = split.manifest["reader"]["parameters"]
    # JSON has no tuples; an option of many values is one.
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}
    return datasets.get(split.name.partition("/")[0], **options)


def missing_now(split: cache.Split) -> dict[str, str]:
    """Committed videos with rows that are gone from the recorded raw folder -> which of their files; "": all.

    Folders are listed, no file is opened. {} where that folder is not there at all: a cache is used without its raw
    data, too. Raises PipelineError where it is not the dataset's.
    """
    raw = Path(recorded_raw(split))
    if "parameters" not in split.manifest.get("reader", {}) or not recorded_raw(split) or not raw.is_dir():
        return {}
    listed = {changes.utf8(v.name): v for v in _recorded_dataset(split).videos(raw, split.name.partition("/")[2])}
    seen, missing = changes.read_stamps(split.root, split.name), {}
    for name in sorted(names_with_rows(split)):
        was = seen[name][0] if name in seen else None
        lost = changes.lost_input(was, changes.stamp(raw, listed[name])) if name in listed else ""
        if lost or name not in listed:
            missing[name] = lost
    return missing


def raw_folder(split: cache.Split, given: Path | None) -> Path:
    """The given one, or where it was at conversion. Raises PipelineError where it is not known, and for no folder."""
    recorded, do = split.provenance.get("raw"), "Name the dataset's own raw folder: --raw DIR."
    if given is None and recorded is None:
        raise PipelineError(f"{split.name}: its raw folder is not known, provenance.json is lost. {do}")
    raw = given or Path(str(recorded))
    if not raw.is_dir():
        was = f"its raw data were in {recorded}" if given is None else f"--raw is {raw}"
        raise PipelineError(f"{split.name}: {was}, and that folder is not there now. {do}")
    return raw


def _body_folder(split: cache.Split, given: Path | None) -> Path | None:
    if given is not None or split.manifest["reader"]["body"] is None:
        return given
    if (recorded := split.provenance.get("body")) is None:
        raise PipelineError(
            f"{split.name}: was converted with a body model whose folder is not recorded. Name it: --body DIR."
        )
    return Path(str(recorded))
