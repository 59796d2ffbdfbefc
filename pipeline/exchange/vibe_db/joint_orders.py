"""The joint orders and the crop scale of a database file.  [database files] -> tracks

The dataset's layout tells what its files usually have. A file may have other joints: the user's
options, the file's provenance and its number of joints tell which, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from pipeline.errors import PipelineError, RawDataError
from pipeline.exchange.vibe_db.database import Database
from pipeline.exchange.vibe_db.layouts import Layout
from pipeline.exchange.vibe_db.provenance import Provenance
from pipeline.skeletons import JOINTS, Skeleton, joint_names

WITHOUT_NECK: Final = "common13"
ORDERS: Final[Mapping[str, Skeleton]] = {  # the values of --joints-2d
    **{name: name for name in JOINTS if name != "smpl54"},
    WITHOUT_NECK: tuple(name for name in JOINTS["common14"] if name != "neck"),
}
_BY_NUMBER: Final = {49: "spin49", 14: "common14"}  # number of joints -> their order
_SAMPLE: Final = 4096  # rows that are read to guess the order of 13 joints


def resolve_layout(
    layout: Layout,
    database: Database,
    provenance: Provenance,
    joints_2d: str | None,
    crop_scale: float | None,
) -> Layout:
    """Set the layout's joint orders and crop scale to those of this file.

    joints_2d, crop_scale: the user's options. Raises PipelineError for a crop scale out of range,
    RawDataError for joints in an unknown order.
    """
    scale = _first_known(crop_scale, provenance.crop_scale, layout.crop_scale)
    if not isinstance(scale, int | float) or not 0 < scale < 10:
        raise PipelineError(f"crop scale {scale!r}: expected crop side / box side, such as 1.3")
    layout = replace(layout, crop_scale=float(scale))
    if "joints2D" in database.fields:
        layout = replace(layout, joints_2d=_joints_2d(layout, database, provenance, joints_2d))
    if "joints3D" in database.fields:
        layout = replace(layout, joints_3d=_joints_3d(layout, database))
    return layout


def _first_known(*values: object) -> object:
    """The first value that is not None."""
    return next(value for value in values if value is not None)


def _joints_2d(
    layout: Layout, database: Database, provenance: Provenance, chosen: str | None
) -> Skeleton:
    """Joint order of joints2D. chosen: the user's option."""
    n_joints = database.fields["joints2D"].shape[1]
    is_usual = n_joints == len(joint_names(layout.joints_2d))
    order: Skeleton
    if chosen is not None:
        order = ORDERS[chosen]
    elif provenance.joints_2d is not None:
        order = provenance.joints_2d
    elif is_usual and layout.joints_2d == "penn_action":
        raise _ambiguous_order(database)
    elif is_usual or n_joints not in _BY_NUMBER:
        order = layout.joints_2d
    else:
        order = _BY_NUMBER[n_joints]
    n_expected = len(joint_names(order))
    if n_expected != n_joints:
        do = "Set their order: --joints-2d NAME."
        raise database.error("joints2D", f"{n_expected} joints", f"{n_joints}", do)
    return order


def _joints_3d(layout: Layout, database: Database) -> str:
    """Joint order of joints3D."""
    n_joints = database.fields["joints3D"].shape[1]
    if n_joints == len(JOINTS["spin49"]):
        return "spin49"
    if layout.joints_3d == "spin49":
        do = "Only test and validation files have 14."
        raise database.error("joints3D", "49 joints", f"{n_joints}", do)
    return layout.joints_3d


def _ambiguous_order(database: Database) -> RawDataError:
    """The error for 13 joints, with what speaks for one order."""
    joints = database.read("joints2D", 0, min(database.rows, _SAMPLE))
    first = joints[:, 0]
    last = joints[:, -1]
    is_visible = (first[:, 2] > 0) & (last[:, 2] > 0)
    n_visible = np.count_nonzero(is_visible)
    share = "none"
    if n_visible:
        # y points down and most people stand: the head's joint is above the feet's.
        is_above = first[is_visible, 1] < last[is_visible, 1]
        share = f"{float(is_above.mean()):.0%}"
    return database.error(
        "joints2D",
        "13 joints in a known order",
        f"13 joints, the first above the last in {share} of {n_visible:,} frames "
        f"(penn_action: most, {WITHOUT_NECK}: few)",
        "VIBE's scripts write 13 joints in LSP's order without the neck, but read them as "
        "Penn Action's. Set "
        f"--joints-2d {WITHOUT_NECK} (VIBE's) or --joints-2d penn_action.",
    )
