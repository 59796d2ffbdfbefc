"""How files and people spell the names of joints.  [raw] -> tracks"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final


def bare_name(joint: str) -> str:
    """A joint's name in lower case, also of OpenPose's."""
    return joint.removeprefix("OP ").lower()


def _joints_by_spelling() -> dict[str, str]:
    """Lower-case names of joints in files of PoseTrack, COCO, COCO-WholeBody and MPII -> our names:
    "left_eye" -> "leye", "left_big_toe" -> "OP LBigToe".
    """
    names = {
        "nose": "nose",
        "head_bottom": "neck",
        "upper_neck": "neck",
        "head_top": "headtop",
        "top_head": "headtop",
        "op_neck": "OP Neck",
    }
    for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        for side in ("left", "right"):
            names[f"{side}_{joint}"] = f"{side[0]}{joint}"
    for joint in ("big_toe", "small_toe", "heel"):
        for side in ("left", "right"):
            title = joint.title().replace("_", "")
            names[f"{side}_{joint}"] = f"OP {side[0].upper()}{title}"
    return names


JOINT_OF_SPELLING: Final[Mapping[str, str]] = _joints_by_spelling()


def _spellings() -> dict[str, str]:
    """All spellings, with one letter for the side, too ("lbigtoe") -> our names."""
    spellings = dict(JOINT_OF_SPELLING)
    for spelling, joint in JOINT_OF_SPELLING.items():
        if spelling.startswith(("left_", "right_")):
            spellings[bare_name(joint)] = joint
    return spellings


SHORT: Final = 4  # letters: another first letter makes another word
SPELLINGS: Final[Mapping[str, str]] = _spellings()


def joint_called(name: str) -> str | None:
    """Our name of a joint; None if it is unknown. Case, blanks, hyphens, underscores and dots do
    not matter, and a side may be one letter.

    "Neck" alone is unknown: some tools mean the middle of the shoulders, others the upper neck.

    >>> [joint_called(name) for name in ("RHip", "left-shoulder", "LBigToe", "Left Ankle", "Neck")]
    ['rhip', 'lshoulder', 'OP LBigToe', 'lankle', None]
    """
    return _JOINT_OF_COMPACT.get(compact(name))


def correct_spelling(name: str, spellings: Iterable[str]) -> str | None:
    """The first of these spellings that a name is but for one letter: it is left out, added,
    another one, or exchanged with the next one; None without one.

    It is not the first letter of a short word: a wheel is no heel, and a knee no rknee. A digit
    numbers joints, and a waist is no wrist.

    >>> correct_spelling("Left Sholder", SPELLINGS), correct_spelling("rigth_hip", SPELLINGS)
    ('left_shoulder', 'right_hip')
    """
    written = compact(name)
    if re.search(r"\d|waist", written):
        return None
    return next((each for each in spellings if _is_misspelt(written, each)), None)


def _is_misspelt(written: str, spelling: str) -> bool:
    """Whether a compact name is a spelling but for one letter, as of `correct_spelling`."""
    right = compact(spelling)
    if "_" in spelling:
        first = 0
        joint = spelling.index("_")  # where its word begins
        is_short = len(right) - joint <= SHORT
    else:  # one letter for the side, or nose
        first = joint = 1
        is_short = True
    for i in range(first, len(right) + 1):
        without = right[:i] + right[i + 1 :]
        exchanged = right[:i] + right[i : i + 2][::-1] + right[i + 2 :]
        cut = written[:i] + written[i + 1 :]
        is_one_letter = written in (without, exchanged) or cut in (right, without)
        if is_one_letter and not (is_short and i == joint):
            return True
    return False


def compact(name: str) -> str:
    """A name in lower case, without separators."""
    return re.sub(r"[\s_.-]", "", name).lower()


_JOINT_OF_COMPACT: Final = {compact(name): joint for name, joint in SPELLINGS.items()}
