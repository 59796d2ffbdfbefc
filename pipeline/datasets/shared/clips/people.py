"""Tracks from a detector's results: linking, boxes, selection.  [raw -> tracks] -> features

`clip.clip_tracks` calls `people` with the detections of a clip and the dataset's `Rules`:

    _apply_confidence   scores become confidences
    used_identities     identities that no people can have are left out
    _identify           detections become persons, by the detector's identities or by linking
    _cut_at_switches    a person's track ends where it continues on another person
    put_sides_right     left and right are exchanged where the detector has exchanged them
    CorrectedPeople     people are cut and joined as the user's corrections say
    _Selection.parts    a person is split into parts with smoothed boxes; bad frames are dropped
    reason_to_drop      parts that are too short, or whose grade is too bad, are dropped

`bridging` then adds the frames in which a person was missed. A detection is one person in one
frame. Shapes: T frames of a person, J joints in the detector's order, 49 joints of spin49.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np

from cache.windows import spread
from pipeline.accounting import VideoAccount
from pipeline.cli.text import count
from pipeline.clips.labels.detections import Detections
from pipeline.clips.labels.label_content import NOT_STATED, StatedIdentities
from pipeline.clips.tracks.cleaning import Cleaning, clean
from pipeline.clips.tracks.corrections import NOBODY, CorrectedPeople
from pipeline.clips.tracks.identities import UsedIdentities, used_identities
from pipeline.clips.tracks.linking import SECOND, link, split_at_gaps
from pipeline.clips.tracks.sides import put_sides_right
from pipeline.clips.tracks.switches import find_switches
from pipeline.datasets.shared.checks import finite_joints
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.raw.corrections import Correction
from pipeline.grades import grade
from pipeline.grades.words import Word
from pipeline.people.boxes import smooth_boxes, tight_boxes
from pipeline.people.hands import NO_HANDS, exchange_hands
from pipeline.people.skeletons import (
    Array,
    Bools,
    Doubles,
    Float32s,
    Ints,
    Skeleton,
    convert,
    joint_names,
)
from pipeline.people.track import CROP_SCALE, free_name
from pipeline.processes import show_done

MIN_CONFIDENCE: Final = 0.3
MIN_VISIBLE: Final = 6  # joints
BOX_FACTOR: Final = 1.1
MOST_TOO_SHORT: Final = 30  # of a clip's stretches that are too short, those that are recorded
BOX_SCALE: Final = 1.1  # crop side / larger side of a detector's box, which has a margin already


@dataclass(frozen=True, slots=True)
class Rules:
    """How a dataset's people are linked and cleaned."""

    min_frames: int
    max_gap: float = 1.0  # s that a person may be missing and still be the same person
    # filter for arbitrary clips, which have scene cuts; None: only drop frames with few joints
    cleaning: Cleaning | None = None
    bridge: bool = False  # add frames in which a person was missed, with interpolated boxes
    cuts: bool = True  # link no one across a scene cut
    # Limits of `pipeline.grades`; tracks beyond one are dropped. None: no limit
    max_jitter: float | None = None  # % of the box
    max_limb_spread: float | None = None  # %
    min_grade: Word | None = None
    identities: StatedIdentities = NOT_STATED.identities
    corrections: Sequence[Correction] = ()  # of the clip's people
    # frames a second at which the clip was filmed, if the user states it
    filmed_fps: float = math.nan
    # put left and right right, as `sides` does; None: those of `python -m pipeline detect`
    put_sides_right: bool | None = None
    # cut tracks that continue on another person, as `switches` finds; None: as `put_sides_right`
    cut_at_switches: bool | None = None


# the rules with which HMMR's authors cleaned InstaVariety and VLOG-people
ANY_CLIP: Final = Rules(Cleaning().min_frames, cleaning=Cleaning())


class PersonTrack(NamedTuple):
    """T frames of one person."""

    frame_index: Ints  # (T,)
    # (T, J, 3) px px confidence, in the detector's joint order; without rows for the frames that
    # `bridging` adds
    keypoints: Doubles
    bbox: Float32s  # (T, 4)
    kp_2d: Float32s  # (T, 49, 3); all 0 of people who are known by boxes alone
    crop_scale: float = CROP_SCALE
    hands: Array = NO_HANDS  # (T, 42, 3) as kp_2d; (T, 0, 3): not read
    person: str = ""  # the detector's identity, or a number by order of appearance
    # whose rows they were before corrections: name, first and last frame of each stretch
    stretches: Sequence[Sequence[str | int]] = ()
    identity_changes: int = 0  # frames in which the identity seems to change places with another

    def columns(self) -> dict[str, Array]:
        columns: dict[str, Array] = {"frame_index": self.frame_index, "bbox": self.bbox}
        columns["kp_2d"] = self.kp_2d
        if self.hands.size:
            columns["kp_2d_hands"] = self.hands
        return columns


def people(
    detections: Detections,
    account: VideoAccount,
    rules: Rules,
    max_gap: int = SECOND,
    cuts: Sequence[int] = (),
    clock: Ints | None = None,
    fps: float = SECOND,
) -> Iterator[PersonTrack]:
    """Link detections, and yield the tracks that `rules` accept; counts the rest in `account`.

    A person who is missing for more than `max_gap` frames, or across a cut, is a new person
    afterwards. Cleaning (`_Selection`) may split a person into `<name>`, `<name>.1`, ...

    Args:
        detections: Not to be used afterwards: their joints are changed in place.
        cuts: First frames of new scenes.
        clock: `ClipRecord.clock` of a clip with uneven frame times, by which gaps are counted.
            None: gaps are counted in frames.
        fps: Ticks of the clock, or frames, a second; nan if unknown.

    Raises RawDataError for a correction that does not fit the people.
    """
    ticks = detections.frame_index if clock is None else clock[detections.frame_index]
    used = confident_people(detections, ticks / fps, account, rules.identities, cuts)
    detections = used.detections
    record = ClipRecord.from_dict(account.clip)
    selection = _Selection(detections.skeleton, detections.boxes_alone, rules, account, record)
    identified = _identify(detections, account, max_gap, cuts, clock, fps)
    frames = np.repeat(detections.frame_index, np.diff(detections.keypoints.start))
    joints = detections.keypoints.rows
    if rules.cut_at_switches and not detections.boxes_alone:
        identified = _cut_at_switches(identified, detections, frames, account)
    rate = fps if math.isfinite(fps) else SECOND
    if rules.put_sides_right and not detections.boxes_alone:
        _put_sides_right(identified, detections, frames, ticks / rate, account)
    names = np.full(len(frames), NOBODY, object)
    for name, rows in identified:
        names[rows] = name
    hands = detections.hands
    corrected = CorrectedPeople(joints, hands, detections.skeleton, frames, names, names.copy())
    if rules.corrections:
        corrected.correct(rules.corrections, account, rate)
        identified = [*corrected.people.items()]
    used_names = {*corrected.before, *corrected.now}
    n_labels = sum(len(rows) for _, rows in identified)
    n_done = 0
    for name, rows in identified:
        show_done(n_done, n_labels, "labels tracked")
        n_done += len(rows)
        n_short = len(selection.too_short)
        frame_index = frames[rows]
        changed = frame_index[used.is_changed[rows]]
        for k, track in enumerate(selection.parts(frame_index, joints[rows])):
            n_frames = len(track.frame_index)
            n_changes = int(np.isin(track.frame_index[1:], changed).sum())
            of_track = rows[np.isin(frame_index, track.frame_index)]
            stretches = corrected.stretches(of_track)
            track = track._replace(
                hands=hands[of_track].astype(np.float32),
                identity_changes=n_changes,
                stretches=stretches,
            )
            reason = selection.reason_to_drop(track)
            if reason is not None:
                account.drop_track(reason, n_frames)
                continue
            account.keep_track(n_frames)
            yield track._replace(person=free_name(name, ".", k, used_names))
        for part in selection.too_short[n_short:]:
            account.too_short += corrected.stretches(rows[np.isin(frame_index, part)])

    longest = sorted(account.too_short, key=lambda stretch: stretch[1] - stretch[2])
    account.too_short = longest[:MOST_TOO_SHORT]
    _note_too_short(selection, detections)


def confident_people(
    detections: Detections,
    seconds: Doubles,
    account: VideoAccount,
    identities: StatedIdentities,
    cuts: Sequence[int] = (),
) -> UsedIdentities:
    """The people who are seen well enough, with the identities that are used, as `used_identities`
    does. Scores become confidences, in place.
    """
    detections = _apply_confidence(detections, account)
    return used_identities(detections, seconds, account, identities, cuts)


def _put_sides_right(
    people: Sequence[tuple[str, Ints]],
    detections: Detections,
    frames: Ints,
    seconds: Doubles,
    account: VideoAccount,
) -> None:
    """Put left and right of people right, in place, and note in how many frames.

    people: name and rows (n,) of each. frames: (N,) of the detections. seconds: (T,) of frames.
    """
    joints = detections.keypoints.rows
    times = np.repeat(seconds, np.diff(detections.keypoints.start))
    exchanged = []  # a text for each person
    n_undecided = 0
    for name, rows in people:
        show_done(int(rows[0]), len(frames), "labels tracked")
        order = detections.skeleton
        sides = put_sides_right(joints[rows], frames[rows], times[rows], order, detections.camera)
        joints[rows] = sides.keypoints
        exchange_hands(detections.hands, rows[sides.are_arms_exchanged])
        n_undecided += int(sides.is_undecided.sum())
        if sides.is_exchanged.any():
            of_all = count(len(rows), "frame")
            exchanged.append(f"person {name} in {sides.is_exchanged.sum():,} of {of_all}")
    if exchanged:
        account.note(f"left and right put right: {', '.join(exchanged)}")
    if n_undecided:
        account.note(f"sides undecided in {count(n_undecided, 'frame')}, which stay as detected")


def _note_too_short(selection: _Selection, detections: Detections) -> None:
    """Note the longest of the parts that are too short, if no track is kept."""
    longest = max(map(len, selection.too_short), default=0)
    if longest and not selection.account.tracks_kept:
        note = f"the longest stretch of a person has {longest} frames < min_frames"
        setting = selection.rules.identities.setting
        advice = _describe_identities(detections, setting)
        selection.account.note(f"{note} {selection.rules.min_frames}{advice}")


def _describe_identities(detections: Detections, setting: str) -> str:
    """Hint that a detector may have given new identities to the same people."""
    if detections.identity is None:
        return ""
    n_people = len(np.unique(detections.identity.rows))
    n_frames = len(detections.frame_index)
    if n_people == 1:
        return ""
    return (
        f": {n_people:,} identities in {count(n_frames, 'frame')}; if one person has many, "
        f"{setting} = link links people"
    )


@dataclass(frozen=True, slots=True)
class _Selection:
    """Selects the parts of a person's detections that are used; the rest is counted as dropped.

    There are three ways: `boxes`, `visible` and `clean_parts`; `parts` chooses one. Each takes
    `frame_index` (T,) and `kp_2d` (T, J, 3), the detections of one person.
    """

    skeleton: Skeleton  # the detector's joints
    boxes_alone: bool  # the detector finds boxes: kp_2d holds their two corners
    rules: Rules
    account: VideoAccount
    record: ClipRecord | None
    # frames (n,) of parts that are dropped because they are too short
    too_short: list[Ints] = field(default_factory=list)

    def parts(self, frame_index: Ints, kp_2d: Doubles) -> Iterator[PersonTrack]:
        """Yield the parts of a person. `reason_to_drop` may still drop them."""
        if self.boxes_alone:
            return self.boxes(frame_index, kp_2d)
        if self.rules.cleaning is None:
            return self.visible(frame_index, kp_2d)
        return self.clean_parts(frame_index, kp_2d, self.rules.cleaning)

    def boxes(self, frame_index: Ints, kp_2d: Doubles) -> Iterator[PersonTrack]:
        """For detectors of boxes alone: use all boxes, in parts of at most `max_frames` frames.

        Boxes become square by their larger side and are not smoothed. All joints are unknown.
        """
        n_frames = len(frame_index)
        n_parts = 1
        if self.rules.cleaning:
            n_parts = math.ceil(n_frames / self.rules.cleaning.max_frames)
        n_joints = len(joint_names("spin49"))
        for rows in np.array_split(np.arange(n_frames), n_parts):
            corners = kp_2d[rows]
            unknown = np.zeros((len(rows), n_joints, 3), np.float32)
            bbox = tight_boxes(corners)[0]
            yield PersonTrack(frame_index[rows], corners, bbox, unknown, BOX_SCALE)

    def visible(self, frame_index: Ints, kp_2d: Doubles) -> Iterator[PersonTrack]:
        """Use the frames with at least MIN_VISIBLE joints, as one part."""
        n_visible = (kp_2d[..., 2] > 0).sum(axis=1)
        reasons = {"too_few_visible_joints": n_visible < MIN_VISIBLE}
        yield self._smooth(frame_index, kp_2d, reasons)

    def clean_parts(
        self, frame_index: Ints, kp_2d: Doubles, cleaning: Cleaning
    ) -> Iterator[PersonTrack]:
        """Use the parts that `cleaning` accepts; its reasons for the other frames are counted."""
        parts, dropped = clean(kp_2d[..., 2] > 0, joint_names(self.skeleton), cleaning)
        for reason, rows in dropped.items():
            self.account.drop(reason, len(rows))
        if "track_too_short" in dropped:
            rows = dropped["track_too_short"]
            self.too_short.extend(frame_index[rows[part]] for part in split_at_gaps(rows, 0))
        if not parts:  # its frames are counted above; the track gets the reason of most of them
            commonest = max(dropped, key=lambda reason: len(dropped[reason]))
            self.account.drop_track(commonest, 0)
        for rows in parts:
            yield self._smooth(frame_index[rows], kp_2d[rows], {})

    def _smooth(
        self, frame_index: Ints, kp_2d: Doubles, reasons: Mapping[str, Bools]
    ) -> PersonTrack:
        """Make a track whose boxes are smoothed over time, across missing frames.

        Frames without a box are counted as dropped, and those to which one of `reasons` applies.
        """
        # kp_2d in a frame for each time, all 0 where the person is missing
        offset = frame_index - frame_index[0]
        without_gaps = np.zeros((offset[-1] + 1, *kp_2d.shape[1:]))
        without_gaps[offset] = kp_2d
        # the boxes are of [first, stop)
        boxes, first, stop = smooth_boxes(without_gaps, threshold=MIN_CONFIDENCE)

        has_no_box = (offset < first) | (offset >= stop)
        rows = np.flatnonzero(self.account.drop_rows({"no_box": has_no_box, **reasons}))
        detected = kp_2d[rows]
        factors = np.array([1, 1, BOX_FACTOR, BOX_FACTOR], np.float32)
        bbox = boxes[offset[rows] - first] * factors
        in_spin49 = convert(detected, source=self.skeleton, target="spin49").astype(np.float32)
        return PersonTrack(frame_index[rows], detected, bbox, in_spin49)

    def reason_to_drop(self, track: PersonTrack) -> str | None:
        """Why a track is dropped, by its length or its grade; None if it is kept."""
        rules = self.rules
        n_frames = len(track.frame_index)
        if n_frames < rules.min_frames:
            self.too_short.append(track.frame_index)
            return "track_too_short"
        if not (rules.max_jitter or rules.max_limb_spread or rules.min_grade):
            return None

        graded = grade(track.columns(), record=self.record)
        changes = track.identity_changes
        graded = replace(graded, identity_changes=changes, doubts=self.account.doubts)
        if rules.max_jitter and graded.jitter_2d_percent > rules.max_jitter:
            return "joints_shake"
        if rules.max_limb_spread and graded.limb_spread_2d_percent > rules.max_limb_spread:
            return "limbs_vary"
        if rules.min_grade and graded.is_below(rules.min_grade):
            return "low_grade"
        return None


def _apply_confidence(detections: Detections, account: VideoAccount) -> Detections:
    """Turn scores into confidences, in place: 0 below MIN_CONFIDENCE, and at most 1.

    Persons without a visible joint (or, for boxes alone, with a low score) are dropped.
    """
    if not detections.keypoints:
        return detections

    everyone = finite_joints(detections.keypoints.rows, account, copy=False)
    scores = everyone[..., 2]
    confidence = np.minimum(scores, 1)
    everyone[..., 2] = np.where(scores < MIN_CONFIDENCE, 0, confidence)

    reason = "low_score" if detections.boxes_alone else "no_visible_joint"
    is_seen = account.drop_rows({reason: ~scores.any(axis=1)})
    highest = confidence.max()
    if 0 < highest < MIN_CONFIDENCE:
        account.note(f"scores reach only {highest:.2g}: those below {MIN_CONFIDENCE} count as 0")
    return detections.select(is_seen)


def _identify(
    detections: Detections,
    account: VideoAccount,
    max_gap: int,
    cuts: Sequence[int],
    clock: Ints | None,
    fps: float,
) -> list[tuple[str, Ints]]:
    """Group detections into persons, by the detector's identities if it has them, else by linking.

    Returns each person's name and rows (n,) among all detections, by time.
    """
    frames = detections.frame_index
    camera = detections.camera
    if clock is not None:
        cuts = clock[list(cuts)].tolist()
        frames = clock[frames]
        camera = {
            int(clock[frame]): matrix for frame, matrix in camera.items() if frame < len(clock)
        }
    if detections.identity is None:
        linked = link(detections.keypoints, frames, max_gap, cuts=cuts, camera=camera, fps=fps)
        start = detections.keypoints.start
        return [(str(k), start[rows[:, 0]] + rows[:, 1]) for k, rows in enumerate(linked)]
    return _split_identities(detections, detections.identity.rows, account, frames, max_gap, cuts)


def _split_identities(
    detections: Detections,
    identity: Ints,
    account: VideoAccount,
    frames: Ints,
    max_gap: int,
    cuts: Sequence[int],
) -> list[tuple[str, Ints]]:
    """Group detections by the detector's identities, (N,), in the form of `_identify`.

    After a gap or a cut, an identity is a new person. frames: (T,) numbers of the frames, by which
    gaps are counted. If two persons in a frame have one identity, the one with the higher
    confidence is used; the other is counted as dropped.
    """
    t, _ = spread(np.diff(detections.keypoints.start))  # (N,)
    confidence = detections.keypoints.rows[..., 2].sum(axis=1)
    order = np.lexsort((-confidence, t, identity))
    is_second = (np.diff(identity[order]) == 0) & (np.diff(t[order]) == 0)
    account.drop("duplicate_person", int(is_second.sum()))
    order = np.delete(order, np.flatnonzero(is_second) + 1)

    numbers, first = np.unique(identity[order], return_index=True)
    names = [detections.names[number] if detections.names else str(number) for number in numbers]
    used_names = {*names, *detections.names}  # also names of people who were dropped
    identified = []
    for name, rows in zip(names, np.split(order, first[1:]), strict=False):
        for k, segment in enumerate(split_at_gaps(frames[t[rows]], max_gap, cuts)):
            identified.append((free_name(name, "-", k, used_names), rows[segment]))
    return identified


def _cut_at_switches(
    identified: Sequence[tuple[str, Ints]],
    detections: Detections,
    frames: Ints,
    account: VideoAccount,
) -> list[tuple[str, Ints]]:
    """End persons where their track continues on another person; what follows is a new person.

    Takes and returns names and rows (n,) of persons; frames: (N,) of the detections. Adds a note of
    the number of places.
    """
    joints = detections.keypoints.rows
    tracks = [(frames[rows], joints[rows]) for _, rows in identified]
    switches = find_switches(tracks, detections.camera)
    used_names = {name for name, _ in identified}
    parts = []
    for (name, rows), first in zip(identified, switches, strict=True):
        for k, part in enumerate(np.split(rows, first)):
            parts.append((free_name(name, "-", k, used_names), part))
    n_cuts = len(parts) - len(identified)
    if n_cuts:
        places = count(n_cuts, "place")
        account.note(f"tracks cut at {places} where they continue on another person")
    return parts
