"""Whether a model is better than those beside it, in words, and what that decides.  evaluation -> report: [comparison]

Sentences are computed from the numbers of the table above them. How far results spread over seeds was measured once,
on stand-ins: benchmarks/learning.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pipeline.cli.text import count
from report.training.run_folder import Run
from vibe_model.metrics import ERRORS

LOWER: Final = ("pa_mpjpe", "mpjpe", "pve", "accel_error")
HIGHER: Final = ("pck", "auc", "pck_2d")
SEED_SPREAD_MM: Final = (2, 6)  # of PA-MPJPE, standard deviations over three seeds: benchmarks/learning.md
FEW_TRACKS: Final = 30

Errors = Mapping[str, float]


def against(model: str, own: Errors, other: str, its: Errors) -> str:
    """By which errors the model is better than the other one, by which it is worse, and by how much.

    >>> against("a", {"pa_mpjpe": 50.0, "pck": 80.0}, "b", {"pa_mpjpe": 55.0, "pck": 81.5})
    'a against b: better by PA-MPJPE (5.0 mm); worse by PCK (1.5 points).'
    """
    sides: dict[str, list[str]] = {"better": [], "worse": [], "the same": []}
    for name in (*LOWER, *HIGHER):
        if name in own and name in its:
            gain = its[name] - own[name] if name in LOWER else own[name] - its[name]
            side = "the same" if abs(gain) < 0.05 else "better" if gain > 0 else "worse"
            sides[side].append(
                ERRORS[name] if side == "the same" else f"{ERRORS[name]} ({abs(gain):.1f} {_unit(name)})"
            )
    told = [f"{side} by {', '.join(names)}" for side, names in sides.items() if names]
    return f"{model} against {other}: {'; '.join(told) or 'no error that both have'}."


def by_track(one: Run, other: Run, split: str) -> str:
    """In how many tracks of the split the first one's PA-MPJPE is lower; "" where that is not known of both."""
    own, its = _by_track(one, split), _by_track(other, split)
    both = own.keys() & its.keys()
    lower = sum(own[track] < its[track] for track in both)
    return f"By track, its PA-MPJPE is lower than that of {other.name} in {lower} of {len(both)}." if both else ""


def decides(model: str, own: Errors, others: Mapping[str, Errors], run: Run, split: str, frames: int) -> Iterator[str]:
    """How much the differences stand for."""
    n_tracks = len({row.get("track") for row in run.sequences if row.get("split") == split})
    of = f"{count(frames, 'frame')} of {count(n_tracks, 'track')}" if n_tracks else count(frames, "frame")
    seed = f", seed {run.config.seed}" if run.config is not None else ""
    yield f"Counted: {of}; one training run of each model{seed}."
    bound = 2 * SEED_SPREAD_MM[1]
    known = [name for name in others if "pa_mpjpe" in own and "pa_mpjpe" in others[name]]
    near = [name for name in known if abs(own["pa_mpjpe"] - others[name]["pa_mpjpe"]) <= bound]
    if near:
        named = _list([f"“{name}”" for name in near])
        yield (
            f"Between “{model}” and {named} this decides nothing: runs of other seeds differ by a few mm. On "
            f"stand-ins, the standard deviation of PA-MPJPE over three seeds was {SEED_SPREAD_MM[0]} to "
            f"{SEED_SPREAD_MM[1]} mm (benchmarks/learning.md), and what lies within {bound} mm may turn round. How it "
            "is with your data, only runs of other seeds tell."
        )
    if 0 < n_tracks < FEW_TRACKS:
        yield f"{count(n_tracks, 'track')}: too few to speak for other people and other videos."
    if run.stand_in:
        yield "And it is about stand-ins: nothing follows from it for VIBE on real video."


def of_labels(baseline: Errors, model: str, own: Errors) -> str:
    """The labels' own acceleration, which is the acceleration error of a body that never moves; "" without one."""
    if baseline.get("accel") != 0 or "accel_error" not in baseline:
        return ""
    told = f"The labels' own acceleration is {baseline['accel_error']:.1f} mm per frame²: accel is to be near that"
    return f"{told}; that of {model} is {own['accel']:.1f}." if "accel" in own else f"{told}."


def _unit(name: str) -> str:
    return "points" if name in HIGHER else "mm per frame²" if name == "accel_error" else "mm"


def _by_track(run: Run, split: str) -> dict[str, float]:
    rows: Sequence[Mapping[str, Any]] = [row for row in run.sequences if row.get("split") == split]
    return {str(row.get("track")): row["pa_mpjpe"] for row in rows if isinstance(row.get("pa_mpjpe"), int | float)}


def _list(names: Sequence[str]) -> str:
    """
    >>> _list(["a"]), _list(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
