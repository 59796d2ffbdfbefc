"""Degrees of freedom of a moving person, and an action's curves.  [motion] -> pixels and labels

Motion is described by degrees of freedom with a meaning (`knee`: flexion of a knee) and a range.
Thigh angles are relative to the vertical and foot angles to the ground (toes up is positive),
independent of the pelvis.
"""

# ruff: noqa: RUF009  a `_Range` cannot be changed
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pipeline.people.skeletons import Doubles

SIDES: Final = "lr"


class _Range(NamedTuple):
    """Degrees of a degree of freedom that stays relaxed."""

    low: float
    high: float
    relaxed: float = 0  # in relaxed standing

    def clip(self, degrees: Doubles) -> Doubles:
        return degrees.clip(self.low, self.high)


Curve = Doubles | float | _Range  # (T,) degrees, or one number for all times


@dataclass(frozen=True)
class Limbs:
    """The curves of the arm and the leg of one side."""

    # upper arm: 0 hangs, 90 level, 180 overhead
    lift: Curve = _Range(4, 172, 12)
    # of that raise: 0 sideways, 90 forward, above it across the chest
    plane: Curve = _Range(-40, 125, 25)
    twist: Curve = _Range(-80, 80)  # about the upper arm; outward is positive
    elbow: Curve = _Range(2, 145, 18)
    wrist: Curve = _Range(-60, 60)
    flex: Curve = _Range(-25, 120, 2)  # hip: the thigh forward
    abduct: Curve = _Range(-15, 60, 4)  # hip: the leg sideways
    turnout: Curve = _Range(-30, 45, 6)  # hip: the toes outward
    knee: Curve = _Range(1, 140, 4)
    ankle: Curve = _Range(-40, 38)  # toes up is positive
    toes: Curve = _Range(-5, 50)  # bent up against the foot, as when the heel lifts


@dataclass(frozen=True)
class ActionCurves:
    """The curves of an action: those of the limbs, and of trunk and head."""

    limbs: Sequence[Limbs]  # left, right
    hop: Doubles | float = 0.0  # (T,) m above the ground

    pelvis_pitch: Curve = _Range(-25, 70)  # leaning forward is positive
    pelvis_roll: Curve = _Range(-25, 25)  # towards the person's right is positive
    pelvis_yaw: Curve = _Range(-50, 50)  # turning left is positive, here and below
    spine_bend: Curve = _Range(-25, 80, 3)
    spine_side: Curve = _Range(-35, 35)
    spine_turn: Curve = _Range(-50, 50)
    head_nod: Curve = _Range(-45, 45, 3)
    head_tilt: Curve = _Range(-35, 35)
    head_turn: Curve = _Range(-70, 70)

    def by_freedom(self) -> dict[str, Curve]:
        """The curves of the degrees of freedom that the action moves, by their names in DOFS."""
        curves = {name: curve for name, curve in vars(self).items() if name in CENTRAL}
        for side, limbs in zip(SIDES, self.limbs, strict=True):
            for name, curve in vars(limbs).items():
                curves[f"{side}_{name}"] = curve
        return {name: curve for name, curve in curves.items() if not isinstance(curve, _Range)}


CENTRAL: Final[dict[str, _Range]] = {
    name: dof for name, dof in vars(ActionCurves(())).items() if isinstance(dof, _Range)
}
SIDED: Final[dict[str, _Range]] = vars(Limbs())
DOFS: Final = dict(CENTRAL)  # of the whole person: spine_bend, l_knee, r_knee
for _side in SIDES:
    DOFS.update({f"{_side}_{name}": dof for name, dof in SIDED.items()})
