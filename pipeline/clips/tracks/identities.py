"""Which identities of a file are used, and where they change places.  raw -> [tracks] -> features
-> windows

Identities that a file states are used, but for those that no people can have: some tools number the
people of a frame by score or place, and then identities change places in every second step. Fewer
changes are noted: a tracker's mistakes, or people who cross in a list from left to right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.cli.text import count
from pipeline.clips.labels.detections import NO_IDENTITY, Detections
from pipeline.clips.labels.label_content import LINK, StatedIdentities
from pipeline.clips.labels.people_table import ByFrame
from pipeline.people.boxes import extents
from pipeline.people.skeletons import Bools, Doubles

LONGEST_S: Final = 0.101  # longer steps from a frame to the next one are not looked at
SHORT_S: Final = 0.0425  # in longer ones, people who run past each other seem to change places
CLEARLY: Final = 0.5  # two people changed places if this shortens their ways to this share
# least way of two people who changed places, in diagonals of their boxes: people who run past each
# other at 6 m a second move less in SHORT_S
FAR: Final = 0.15
IMPOSSIBLE: Final = 0.2  # share of people's steps; those who change places more often are none
MIN_STEPS: Final = 20  # with several of the same people; with fewer, identities are used
UNCHECKED: Final = f"the file's identities (fewer than {MIN_STEPS} steps can be checked)"


class UsedIdentities(NamedTuple):
    """Detections with the identities that are used."""

    detections: Detections
    is_changed: Bools  # (N,) whether a person changed places with another since the frame before


def used_identities(
    detections: Detections,
    seconds: Doubles,
    account: VideoAccount,
    stated: StatedIdentities,
    cuts: Sequence[int] = (),
) -> UsedIdentities:
    """Return the detections without identities that no people can have. Notes say so, and where
    others change places.

    If too few steps can be checked, that is an assumption in the account. What the user states is
    done without these rules; then people without an identity are counted as dropped.

    seconds: (T,) times of the frames. cuts: first frames of new scenes.
    """
    if stated.value is not None:
        used = _as_stated(detections, account, stated.value)
        return UsedIdentities(used, np.zeros(used.n_persons, np.bool_))
    identity = detections.identity
    if identity is None or not detections.n_persons:
        return UsedIdentities(detections, np.zeros(detections.n_persons, np.bool_))

    n_persons = np.diff(identity.start)
    frame = np.repeat(detections.frame_index, n_persons)
    is_compared, is_changed = _find_changes(detections, identity, seconds, cuts)
    n_steps = len(np.unique(frame[is_compared]))
    is_impossible = n_steps >= MIN_STEPS and is_changed.sum() > IMPOSSIBLE * is_compared.sum()
    if not is_impossible:
        is_changed &= np.repeat(np.diff(seconds, prepend=-np.inf) <= SHORT_S, n_persons)
    frames = np.unique(frame[is_changed])
    changes = ""
    if len(frames):
        changes = f"people change places in {count(len(frames), 'frame')}, first in {frames[0]}"

    problem = _why_nobodys(identity) or (changes if is_impossible else "")
    if problem:
        use = f"{stated.setting} = file uses them"
        account.note(f"identities are not used: {problem}. People are linked; {use}")
        linked = replace(detections, identity=None, names=())
        return UsedIdentities(linked, np.zeros_like(is_changed))
    if n_steps < MIN_STEPS and n_persons.max() > 1:
        account.assume(UNCHECKED, setting=stated.setting)
    if changes:
        account.note(f"identities: {changes}; {stated.setting} = link does not use them")
    return UsedIdentities(detections, is_changed)


def _as_stated(detections: Detections, account: VideoAccount, stated: str) -> Detections:
    """The detections without identities, or without the people who have none."""
    identity = detections.identity
    if stated == LINK:
        return replace(detections, identity=None, names=())
    has_none = np.full(detections.n_persons, identity is None)
    if identity is not None:
        has_none = identity.rows == NO_IDENTITY
    return detections.select(account.drop_rows({"no_identity": has_none}))


def _why_nobodys(identity: ByFrame) -> str:
    """Why identities cannot be people, whoever they are of; "" if they can."""
    numbers = identity.rows
    n_persons = np.diff(identity.start)
    n_without = int((numbers == NO_IDENTITY).sum())
    if n_without:
        return f"{n_without:,} of {count(len(numbers), 'detection')} have none"
    n_numbers = len(np.unique(numbers))
    if n_numbers == 1 and n_persons.max() > 1:
        return "everybody has the same one"
    if n_numbers == len(numbers) and np.count_nonzero(n_persons) > 1:
        return "each is used once"
    return ""


def _find_changes(
    detections: Detections, identity: ByFrame, seconds: Doubles, cuts: Sequence[int]
) -> tuple[Bools, Bools]:
    """(N,) whether a person can be compared with the frame before, and (N,) whether the person
    changed places with another one since then.
    """
    is_compared = np.zeros(detections.n_persons, np.bool_)
    is_changed = is_compared.copy()
    scene = np.searchsorted(cuts, detections.frame_index, side="right")
    is_step = (np.diff(seconds) <= LONGEST_S) & (np.diff(scene) == 0)
    step = np.repeat(np.arange(len(seconds)), np.diff(identity.start))
    names, number = np.unique(identity.rows, return_inverse=True)
    key = step * len(names) + number
    # rows of the same person in a frame and in the one after it
    _, before, after = np.intersect1d(key + len(names), key, return_indices=True)
    is_usable = is_step[step[before]]
    before = before[is_usable]
    after = after[is_usable]

    rows = detections.keypoints.rows
    corners, _ = extents(rows)
    far = FAR * np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1)[after]
    way = _lengths(rows[before], rows[after])
    starts = np.flatnonzero(np.diff(step[after], prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(after)]):
        if end - start < 2:
            continue
        pairs = slice(start, end)
        is_compared[after[pairs]] = True
        if (way[pairs] > far[pairs]).any():
            # (P, P): from each person to each
            across = _lengths(rows[before[pairs], None], rows[after[pairs]])
            stated = np.add.outer(way[pairs], way[pairs])
            is_shorter = across + across.T < CLEARLY * stated
            is_far = stated > np.add.outer(far[pairs], far[pairs])
            is_changed[after[pairs]] = (is_shorter & is_far).any(axis=1)
    return is_compared, is_changed


def _lengths(old: Doubles, new: Doubles) -> Doubles:
    """Mean way (...) of the joints (..., J, 3) that are seen before and after, px; NaN of none."""
    is_shared = (old[..., 2] > 0) & (new[..., 2] > 0)
    lengths = np.linalg.norm((new - old)[..., :2], axis=-1) * is_shared
    mean: Doubles = lengths.sum(axis=-1) / np.maximum(is_shared.sum(axis=-1), 1)
    return np.where(is_shared.any(axis=-1), mean, np.nan)
