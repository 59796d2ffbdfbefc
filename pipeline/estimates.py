"""Labels that an estimator of bodies made: no ground truth.  [tracks]"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cache import Split


class BodyFit(NamedTuple):
    """How far an estimated person's projected joints are from the 2D joints of a track."""

    person: str  # "WHAM's person 0"
    distance: float  # median over shoulders, hips, knees and ankles, in heights of the box
    cause: str = ""  # the likeliest one of a large distance

    def __str__(self) -> str:
        text = f"{self.person}, {self.distance:.1%} off"
        if self.cause:
            text += f"; likely: {self.cause}"
        return text


def fits_of(account: Mapping[str, Any], track: str) -> tuple[BodyFit, ...]:
    """Of the persons whose bodies a track has, by its clip's account; () without."""
    return tuple(BodyFit(*fit) for fit in account.get("body_fits", {}).get(track, ()))


def recorded_estimates(split: Split) -> Mapping[str, Any]:
    """The tool and files (name -> SHA-256) of each clip with estimated bodies; empty for a split
    without.
    """
    imported = (split.manifest.get("reader") or {}).get("imported") or {}
    return dict(imported.get("estimates", {}))


def estimates_of(split: Split) -> str:
    """Whose estimates its bodies are, as "estimates of WHAM"; "" for a split without."""
    tools = sorted({clip["tool"] for clip in recorded_estimates(split).values()})
    return f"estimates of {', '.join(tools)}" if tools else ""


def files_of(estimates: Mapping[str, Any], videos: Collection[str]) -> list[str]:
    """ "CLIP: FILE" of each file of these clips."""
    files = []
    for video in sorted(estimates.keys() & videos):
        files += [f"{video}: {file}" for file in estimates[video]["files"]]
    return files
