"""Identities of splits and streams, and their differences.  raw -> [tracks -> features]

An identity is a JSON object with everything that decides a split's or stream's rows besides the raw
files: for a split, the reader's version and options and the body model; for a stream, its network,
weights and crops. The manifest records it, and a later command compares it with the current one;
`report_other_work` tells of uncommitted work by other code or options, which is not used. A
split's:

    {"dataset": "3dpw", "split": "train", "version": 4, "parameters": {"model": "neutral"},
     "stand_in": false, "body": "<digest of the body model's files>", "extra": {...}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cache
from cache.write.parts import find_other_work
from pipeline.cli.text import count
from pipeline.datasets.base import Dataset
from pipeline.files.raw import is_demo_data, refuse_mixture
from pipeline.people import smpl_files
from pipeline.plug_ins import drop_neutral, raised_versions
from pipeline.steps.conversion.selection import ALL_ROWS, RowSelection

_DIGEST: Final = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")


def reader_parts(
    dataset: Dataset,
    split: str,
    raw: Path,
    body: Path | None,
    selection: RowSelection = ALL_ROWS,
) -> dict[str, Any]:
    """A split's identity: everything that can change its tracks besides its raw files.

    Args:
        body: the folder of the body model's files; None: read without a body model.

    Raises StandInMixed if demo and real data are mixed, MissingAssets if files of the body model
    are missing, or if the dataset needs one that is not named.
    """
    dataset.require_body(body)
    parts: dict[str, Any] = {
        "dataset": dataset.name,
        "split": split,
        "version": dataset.version,
        **raised_versions(dataset.versions()),
        "parameters": drop_neutral(dataset.parameters(), dataset.added),
        "stand_in": is_demo_data(raw),
        "body": None,
    }
    reads_body = dataset.labels.uses_body or dataset.labels.checks_fits
    if reads_body and body is not None:
        model = dataset.labels.body_model
        bodies = [smpl_files.body_files(body, gender, model) for gender in dataset.genders]
        refuse_mixture(raw, body, is_demo=parts["stand_in"])
        parts["body"] = " ".join(files.digest for files in bodies)
        # The genders decide with which vertices of SMPL evaluation compares.
        if model == "smpl" and dataset.genders != ("neutral",):
            parts["genders"] = list(dataset.genders)
    extra = dataset.extra_columns(split, body=parts["body"] is not None)
    if extra:
        parts["extra"] = {column.name: column.stored_as for column in extra}
    if selection.max_fps is not None:
        parts["max_fps"] = selection.max_fps
    shared = dataset.shared(raw)
    if shared:
        parts["shared"] = shared
    # in the form that the manifest returns: a tuple becomes a list
    stored: dict[str, Any] = json.loads(json.dumps(parts))
    return stored


class Difference(NamedTuple):
    """A part of an identity that differs: its dotted name, and both values as JSON."""

    part: str
    was: Any
    now: Any

    def __str__(self) -> str:
        """
        >>> str(Difference("version", 1, 2))
        'version was 1, is 2'
        """
        return f"{self.part} was {_as_text(self.was)}, is {_as_text(self.now)}"


def find_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], within: str = ""
) -> list[Difference]:
    """Find the parts that differ in two identities, sorted by name. `within`: prefix of the names.

    >>> at_25 = {"version": 1, "parameters": {"fps": 25}}
    >>> find_differences(at_25, {"version": 1, "parameters": {"fps": 30}})
    [Difference(part='parameters.fps', was=25, now=30)]
    """
    differences = []
    for key in sorted(before.keys() | now.keys()):
        before_value = before.get(key)
        value = now.get(key)
        if isinstance(before_value, Mapping) and isinstance(value, Mapping):
            differences += find_differences(before_value, value, f"{within}{key}.")
        elif before_value != value:
            differences.append(Difference(f"{within}{key}", before_value, value))
    return differences


def describe(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The differences of two identities as text, with weights as in `--weights`; "" if equal.

    >>> untrained = {"kind": "untrained", "argument": "0"}
    >>> other = {**untrained, "argument": "1"}
    >>> describe({"weights": untrained}, {"weights": other, "precision": "fast"})
    'precision was not set, is fast; weights was untrained:0, is untrained:1'
    """
    before = {**before, "weights": _as_text(before.get("weights"))}
    now = {**now, "weights": _as_text(now.get("weights"))}
    return "; ".join(map(str, find_differences(before, now)))


def _as_text(value: Any) -> str:
    """A value of an identity as text for a message. Digests are cut to twelve digits.

    >>> untrained = {"kind": "untrained", "argument": "0"}
    >>> [_as_text(value) for value in ("0123456789abcdef0123456789abcdef", None, untrained)]
    ['0123456789ab...', 'not set', 'untrained:0']
    """
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()  # as luigi.cfg writes it
    if isinstance(value, Mapping):
        # {"kind": "untrained", "argument": "0"} or {"kind": "file", "file_sha256": "..."}: see
        # `features.weights.WeightsSpec.identity`. The text is in the form of --weights.
        is_weights = "kind" in value and len(value) == 2
        if is_weights:
            (argument_key,) = value.keys() - {"kind"}
            return f"{value['kind']}:{_as_text(value[argument_key])}"
        return ", ".join(f"{key} {_as_text(part)}" for key, part in value.items()) or "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(_as_text, value)) or "nothing"
    return _DIGEST.sub(r"\1...", str(value))


def report_other_work(
    root: cache.Root, split: str, stream: str | None, plan: Mapping[str, Any]
) -> None:
    """Print a line if the split or stream has uncommitted work of another plan (`staging_plan`).
    Such work is computed again, since all rows of a commit must come from the same code.
    """
    # here, since processes that read videos print nothing
    from pipeline.cli.console import err

    work = find_other_work(root, split, stream, plan)
    if work is None:
        return
    before = work.plan if isinstance(work.plan, Mapping) else {}
    software = find_differences(before.get("software", {}), plan["software"])
    why = "; ".join(map(str, software)) or "other options, or other code of the dataset"
    pieces = count(work.pieces, "piece")
    name = split if stream is None else f"{split}, {stream}"
    host = work.host or "an unknown machine"
    text = f"{name}: unfinished work of {host} is computed again ({pieces}: {why})"
    err.warn(text)
