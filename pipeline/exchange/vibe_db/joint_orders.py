"""The joint orders and the crop scale of a database file.  [database files] -> tracks

The dataset's layout tells what its files usually have. A file may have other joints: the user's
options, the file's provenance and its number of joints tell which, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pipeline.errors import PipelineError, RawDataError
from pipeline.exchange.vibe_db.database import Database
from pipeline.exchange.vibe_db.layouts import Layout
from pipeline.exchange.vibe_db.provenance import Provenance
from pipeline.skeletons import JOINTS, Skeleton, joint_names

_WITHOUT_NECK: Final = "common13"
ORDERS: Final[Mapping[str, Skeleton]] = {  # the values of --joints-2d
    **{name: name for name in JOINTS if name != "smpl54"},
    _WITHOUT_NECK: tuple(name for name in JOINTS["common14"] if name != "neck"),
}
_BY_NUMBER: Final = {49: "spin49", 14: "common14"}  # number of joints -> their order


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
    scales = crop_scale, provenance.crop_scale, layout.crop_scale
    scale = next(scale for scale in scales if scale is not None)
    if not isinstance(scale, int | float) or not 0 < scale < 10:
        raise PipelineError(f"crop scale {scale!r}: expected crop side / box side, such as 1.3")
    layout = replace(layout, crop_scale=float(scale))
    if "joints2D" in database.fields:
        layout = replace(layout, joints_2d=_joints_2d(layout, database, provenance, joints_2d))
    if "joints3D" in database.fields:
        layout = replace(layout, joints_3d=_joints_3d(layout, database))
    return layout


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
    """The error for 13 joints, whose order the file does not record."""
    do = (
        f"Set --joints-2d {_WITHOUT_NECK}, in which VIBE's scripts write them, or --joints-2d "
        "penn_action, as which they read them."
    )
    return database.error("joints2D", "13 joints in a known order", "13 joints", do)
