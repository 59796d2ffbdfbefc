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

    def __str__(self) -> str:
        return f"{self.person}, {self.distance:.1%} off"


def fits_of(account: Mapping[str, Any], track: str) -> tuple[BodyFit, ...]:
    """The `BodyFit` of each estimated person that was imported for a track; () without any.

    account: the account of the track's clip in the manifest.
    """
    recorded = account.get("body_fits", {}).get(track, ())
    return tuple(BodyFit(person, distance) for person, distance, *_ in recorded)


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
