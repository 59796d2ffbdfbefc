"""What our export recorded beside a database file.  [database files] -> tracks, features"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RawDataError
from pipeline.exchange.formats import provenance_path
from pipeline.files.formats.arrays import load_json
from pipeline.skeletons import JOINTS, Skeleton


@dataclass(frozen=True, slots=True)
class Provenance:
    """The recorded origin of a database file. None: it is unknown."""

    split: str | None = None
    split_digest: str | None = None
    joints_2d: Skeleton | None = None  # order of joints2D
    crop_scale: Any = None  # as recorded, perhaps no number
    estimates: Any = None  # the recorded origin of estimated bodies
    weights: Any = None  # identity of the stream of the features
    backbone: Mapping[str, Any] | None = None  # weights of that stream's network
    is_demo: bool = False
    is_stand_in: bool = False  # demo data, or features of random weights


def read_provenance(file: Path, sha256: str) -> Provenance:
    """Read the provenance of a file with this SHA-256; an unknown one without a provenance file.

    Raises RawDataError for an invalid provenance file, or one that belongs to other content.
    """
    source = provenance_path(file)
    if not source.exists():
        return Provenance()
    do = f"Restore it, or delete it: then the origin of {file.name} is unknown."
    content = load_json(source, do=do)
    if not isinstance(content, dict):
        raise _foreign_provenance(file, sha256, type(content).__name__)
    if content.get("sha256") != sha256 or not isinstance(content.get("stand_in"), bool):
        raise _foreign_provenance(file, sha256, str(content.get("sha256", "dict")))

    stream = content.get("stream")
    if not isinstance(stream, dict):
        stream = {}
    return Provenance(
        split=content.get("split"),
        split_digest=content.get("split_digest"),
        joints_2d=_joint_order(content.get("joints", {}).get("joints2D")),
        crop_scale=content.get("crop_scale"),
        estimates=content.get("estimates"),
        weights=stream.get("identity"),
        backbone=stream.get("backbone") or None,
        is_demo=bool(content.get("demo")),
        is_stand_in=content["stand_in"],
    )


def _joint_order(recorded: object) -> Skeleton | None:
    """The joint order of these names, under its own name if it has one; None for other content."""
    if not isinstance(recorded, list) or not all(isinstance(joint, str) for joint in recorded):
        return None
    order = tuple(recorded)
    name_of = {joints: name for name, joints in JOINTS.items()}
    return name_of.get(order, order)


def _foreign_provenance(file: Path, sha256: str, found: str) -> RawDataError:
    """The error for a provenance file that belongs to another database file."""
    do = (
        f"It belongs to another file: copy the one that was written with {file.name}, or delete it."
    )
    expected = f"{sha256}, that of {file.name}"
    return RawDataError(provenance_path(file), "sha256", expected, found, do)
