"""Bodies that another tool, such as WHAM, estimated: labels that are no ground truth.  [tracks]"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cache import Split


class BodyFit(NamedTuple):
    """How far an estimated person's projected joints are from the 2D joints of a track."""

    person: str  # "WHAM's person 0"
    distance: float  # median over frames and joints, in heights of the box
    cause: str = ""  # likeliest cause of a large distance; "" if there is none

    def __str__(self) -> str:
        text = f"{self.person}, {self.distance:.1%} off"
        if self.cause:
            text += f"; likely: {self.cause}"
        return text


def fits_of(account: Mapping[str, Any], track: str) -> tuple[BodyFit, ...]:
    """The `BodyFit` of each estimated person that was imported for a track; () without any.

    account: the account of the track's clip in the manifest.
    """
    return tuple(BodyFit(*fit) for fit in account.get("body_fits", {}).get(track, ()))


def recorded_estimates(split: Split) -> Mapping[str, Any]:
    """Clip -> the tool and the files (name -> SHA-256) of its estimated bodies; {} without any."""
    imported = (split.manifest.get("reader") or {}).get("imported") or {}
    return dict(imported.get("estimates", {}))


def estimates_of(split: Split) -> str:
    """Say whose estimates a split's bodies are, as "estimates of WHAM"; "" if it has none."""
    tools = sorted({clip["tool"] for clip in recorded_estimates(split).values()})
    if not tools:
        return ""
    return f"estimates of {', '.join(tools)}"


def files_of(estimates: Mapping[str, Any], videos: Collection[str]) -> list[str]:
    """List the files of estimates for these videos, each as "CLIP: FILE"."""
    files = []
    for video in sorted(estimates.keys() & videos):
        files += [f"{video}: {file}" for file in estimates[video]["files"]]
    return files
