"""The order of a file's joints: named in the file, stated, fixed by its format, or assumed.
[raw] -> tracks

Several joint orders have the same number of joints: 25 joints are OpenPose's BODY_25 or BODY_25B,
17 are COCO's, Human3.6M's or PoseTrack's. `order_joints` never searches for the one that fits best:
a better fit is no proof. Whatever the order comes from, `checks` refuses joints that cannot be in
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.cli.text import first_few
from pipeline.errors import RawDataError
from pipeline.files.formats.names import shown_names
from pipeline.people.hands import BODY_JOINTS
from pipeline.people.joint_spellings import (
    JOINT_OF_SPELLING,
    SPELLINGS,
    correct_spelling,
    joint_called,
)
from pipeline.people.skeletons import Doubles, Skeleton, joint_names

# number of joints -> the known orders, the usual one first
ORDERS: Final = {
    17: ("coco", "h36m_lifters", "h36m", "posetrack", "mpi_inf_3dhp_test"),
    18: ("openpose_coco", "coco_neck"),
    25: ("body_25", "body_25b", "insta_variety"),
    23: ("coco_feet",),
    26: ("halpe_26",),
}
# all of them: what the option `joints` of a dataset may state
ORDER_NAMES: Final = tuple(order for orders in ORDERS.values() for order in orders)
# how many joints a person may have if the file does not name them
JOINT_COUNTS: Final = (*ORDERS, *sorted(BODY_JOINTS))

FEWEST: Final = 6  # least number of joints that a file must name and that are known here


class KnownBy(StrEnum):
    """How the order of a file's joints is known."""

    NAMES = "named in the file"
    SETTING = "stated by a setting"
    FORMAT = "fixed by the format"
    ASSUMPTION = "assumed, because nothing in the file says so"


class StatedOrder(NamedTuple):
    """What the user states about files that do not name their joints."""

    name: str | None = None  # one of ORDER_NAMES; None: nothing
    setting: str = "COCO's JSON with the joints' names"  # what can state it


class OrderedJoints(NamedTuple):
    """Joints in a known order."""

    skeleton: Skeleton
    points: Doubles  # (N, J, 3)
    known_by: KnownBy = KnownBy.ASSUMPTION
    unread: Sequence[str] = ()  # names in the file that are not known here

    @property
    def is_assumed(self) -> bool:
        """Whether nothing says that it is this order."""
        return self.known_by is KnownBy.ASSUMPTION

    @property
    def order(self) -> str:
        """The order, for messages."""
        if not isinstance(self.skeleton, str):
            return "the order of their names"
        usual = ", the usual one of this number" if self.is_assumed else ""
        return f"the order {self.skeleton}{usual}"


def order_joints(
    place: Path,
    points: Doubles,
    names: Sequence[str] | None,
    orders: Mapping[int, str],
    stated: StatedOrder,
) -> OrderedJoints:
    """Order the joints of a video's people, (N, K, 3): by their names in the file, else as
    stated, as the format fixes it (`orders`: number of joints -> order), or by the usual order of
    that number.

    Raises RawDataError for unknown names, and for a stated order of another number of joints.
    """
    if names is not None:
        ordered = _joints_by_name(place, points, names)
    elif len(points):
        bodies = points[:, : BODY_JOINTS.get(points.shape[1])]  # without face and hands
        n_joints = bodies.shape[1]
        if stated.name is not None and len(joint_names(stated.name)) != n_joints:
            raise _other_number(place, n_joints, stated)
        ordered = OrderedJoints(ORDERS[n_joints][0], bodies)
        if stated.name is not None:
            ordered = OrderedJoints(stated.name, bodies, known_by=KnownBy.SETTING)
        elif n_joints in orders:
            ordered = OrderedJoints(orders[n_joints], bodies, known_by=KnownBy.FORMAT)
    else:
        return OrderedJoints("coco", points, known_by=KnownBy.FORMAT)
    return ordered


def _joints_by_name(place: Path, points: Doubles, names: Sequence[str]) -> OrderedJoints:
    """The joints that a file names, as far as they are known here.

    Raises RawDataError if too few are known, or if an unknown name is that of a missing joint but
    for one letter.
    """
    column_of: dict[str, int] = {}
    unread = []
    for column, name in enumerate(names):
        joint = joint_called(name)
        if joint is None or joint in column_of:
            unread.append(name)
        else:
            column_of[joint] = column
    if len(column_of) < FEWEST:
        expected = f"{FEWEST} or more of {', '.join(JOINT_OF_SPELLING)}"
        actual = f"{len(column_of)} among {shown_names(names)}"
        raise _order_error(place, expected, actual, "Give the joints these names.")
    missing = [spelling for spelling, joint in SPELLINGS.items() if joint not in column_of]
    corrections = {name: correct_spelling(name, missing) for name in unread}
    misspelt = [name for name, spelling in corrections.items() if spelling is not None]
    if misspelt:
        expected = first_few([corrections[name] for name in misspelt])
        do = "Correct them; joints that are others need names that differ more."
        raise _order_error(place, expected, first_few(misspelt), do)
    skeleton: Skeleton = tuple(column_of)
    columns = [*column_of.values()]
    if len(points) and columns != [*range(points.shape[1])]:
        points = points[:, columns]
    if skeleton == joint_names("coco"):
        skeleton = "coco"
    return OrderedJoints(skeleton, points, known_by=KnownBy.NAMES, unread=unread)


def _order_error(place: Path, expected: str, found: str, do: str) -> RawDataError:
    """An error about the order of joints."""
    return RawDataError(place, "joints", expected, found, do, reason="unknown_joint_order")


def _other_number(place: Path, n_joints: int, stated: StatedOrder) -> RawDataError:
    """The error that the stated order has another number of joints."""
    expected = f"the order {stated.name}, which {stated.setting} states"
    do = f"Name another order in {stated.setting}: {' or '.join(ORDERS[n_joints])}."
    return _order_error(place, expected, f"{n_joints} joints a person", do)
