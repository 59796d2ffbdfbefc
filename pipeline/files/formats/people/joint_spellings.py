"""Recognise the names of joints in label files, in the spellings of annotation tools and detectors.
[raw] -> tracks -> features -> windows
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final


def _names() -> dict[str, str]:
    """Lower-case names of joints in files of PoseTrack, COCO, COCO-WholeBody and MPII -> our names:
    "left_eye" -> "leye", "left_big_toe" -> "OP LBigToe".
    """
    names = {
        "nose": "nose",
        "head_bottom": "neck",
        "upper_neck": "neck",
        "head_top": "headtop",
        "top_head": "headtop",
    }
    for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        for side in ("left", "right"):
            names[f"{side}_{joint}"] = f"{side[0]}{joint}"
    for joint in ("big_toe", "small_toe", "heel"):
        for side in ("left", "right"):
            title = joint.title().replace("_", "")
            names[f"{side}_{joint}"] = f"OP {side[0].upper()}{title}"
    return names


JOINT_OF_SPELLING: Final[Mapping[str, str]] = _names()


def joint_called(name: str) -> str | None:
    """Our name of a joint; None if it is unknown. Case, blanks, hyphens, underscores and dots do
    not matter, and a side may be one letter.

    "Neck" alone is unknown: some tools mean the middle of the shoulders, others the upper neck.

    >>> [joint_called(name) for name in ("RHip", "left-shoulder", "LBigToe", "Left Ankle", "Neck")]
    ['rhip', 'lshoulder', 'OP LBigToe', 'lankle', None]
    """
    return _SPELLED.get(_compact(name))


def _compact(name: str) -> str:
    """A name in lower case, without separators."""
    return re.sub(r"[\s_.-]", "", name).lower()


def _spellings() -> dict[str, str]:
    """All compact spellings -> our names."""
    spelled = {}
    for name, ours in JOINT_OF_SPELLING.items():
        spelled[_compact(name)] = ours
        side, _, joint = name.partition("_")
        if side in ("left", "right"):
            spelled[side[0] + _compact(joint)] = ours
    return spelled


_SPELLED: Final = _spellings()
