"""Degrees of freedom of a moving person, and an action's curves.  [motion] -> pixels and labels

Motion is described by degrees of freedom with a meaning (`knee`: flexion of a knee) and a range.
Thigh angles are relative to the vertical and foot angles to the ground (toes up is positive),
independent of the pelvis.
"""

# ruff: noqa: RUF009  `_freedom` returns a dataclass field
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from pipeline.skeletons import Doubles

SIDES: Final = "lr"
Curve = Doubles | float | None  # (T,) degrees, or one number for all times; None: relaxed


class _Range(NamedTuple):
    """Degrees of a degree of freedom."""

    low: float
    high: float
    relaxed: float  # in relaxed standing

    def clip(self, degrees: Doubles) -> Doubles:
        return degrees.clip(self.low, self.high)


def _freedom(low: float, high: float, relaxed: float = 0) -> Any:
    """A field for the curve of a degree of freedom."""
    return field(default=None, metadata={"range": _Range(low, high, relaxed)})


def _ranges_of(curves: type[Any]) -> dict[str, _Range]:
    """The ranges of the degrees of freedom that a class has a curve for."""
    return {curve.name: curve.metadata["range"] for curve in fields(curves) if curve.metadata}


@dataclass(frozen=True)
class Limbs:
    """The curves of the arm and the leg of one side."""

    # upper arm: 0 hangs, 90 level, 180 overhead
    lift: Curve = _freedom(4, 172, relaxed=12)
    # of that raise: 0 sideways, 90 forward, above it across the chest
    plane: Curve = _freedom(-40, 125, relaxed=25)
    twist: Curve = _freedom(-80, 80)  # about the upper arm; outward is positive
    elbow: Curve = _freedom(2, 145, relaxed=18)
    wrist: Curve = _freedom(-60, 60)
    flex: Curve = _freedom(-25, 120, relaxed=2)  # hip: the thigh forward
    abduct: Curve = _freedom(-15, 60, relaxed=4)  # hip: the leg sideways
    turnout: Curve = _freedom(-30, 45, relaxed=6)  # hip: the toes outward
    knee: Curve = _freedom(1, 140, relaxed=4)
    ankle: Curve = _freedom(-40, 38)  # toes up is positive
    toes: Curve = _freedom(-5, 50)  # bent up against the foot, as when the heel lifts


@dataclass(frozen=True)
class ActionCurves:
    """The curves of an action: those of the limbs, and of trunk and head."""

    limbs: Sequence[Limbs]  # left, right
    hop: Doubles | float = 0.0  # (T,) m above the ground

    pelvis_pitch: Curve = _freedom(-25, 70)  # leaning forward is positive
    pelvis_roll: Curve = _freedom(-25, 25)  # towards the person's right is positive
    pelvis_yaw: Curve = _freedom(-50, 50)  # turning left is positive, here and below
    spine_bend: Curve = _freedom(-25, 80, relaxed=3)
    spine_side: Curve = _freedom(-35, 35)
    spine_turn: Curve = _freedom(-50, 50)
    head_nod: Curve = _freedom(-45, 45, relaxed=3)
    head_tilt: Curve = _freedom(-35, 35)
    head_turn: Curve = _freedom(-70, 70)

    def by_freedom(self) -> dict[str, Curve]:
        """The curves of the degrees of freedom that the action moves, by their names in DOFS."""
        curves = {name: getattr(self, name) for name in CENTRAL}
        for side, limbs in zip(SIDES, self.limbs, strict=True):
            for name in SIDED:
                curves[f"{side}_{name}"] = getattr(limbs, name)
        return {name: curve for name, curve in curves.items() if curve is not None}


CENTRAL: Final = _ranges_of(ActionCurves)
SIDED: Final = _ranges_of(Limbs)
DOFS: Final = dict(CENTRAL)  # of the whole person: spine_bend, l_knee, r_knee
for _side in SIDES:
    DOFS.update({f"{_side}_{name}": dof for name, dof in SIDED.items()})
