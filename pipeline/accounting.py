"""Accounting of every raw video: found = kept + dropped by reason, in person-frames and in tracks.

The reader of a dataset fills a `VideoAccount` for each video; the manifest of a split has them, and
their sum (`Accounting.totals`). REASONS has all reasons:

    account = VideoAccount("clip", found=3)
    account.keep_rows({"no_visible_joint": [True, False, False]})   # dropped 1, kept 2

docs/datasets/ describes each reason per dataset; a test checks that the names agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from cache.arrays import Bools, Ints
from pipeline.cli.text import count, first_few


@dataclass(frozen=True, slots=True)
class Totals:
    """Size of a split in the full release, in the units of the accounting; None if unknown."""

    videos: int | None = None
    frames: int | None = None  # person-frames found

    def as_dict(self) -> dict[str, int]:
        return {name: n for name, n in asdict(self).items() if n is not None}


# Reasons for rows that the user does not take (`pipeline.steps.conversion.selection`).
LEFT_OUT: Final = "left_out_by_hand"
ABOVE_MAX_FPS: Final = "above_max_fps"
# Reason to reject a video: a correction does not fit its tracks.
OTHER_TRACK: Final = "no_such_track"
BY_USER: Final = (LEFT_OUT, ABOVE_MAX_FPS)

# fields of `VideoAccount` that are counts by reason
_COUNTED: Final = ("dropped", "tracks_dropped")
# those that were added later
_ADDED: Final = (
    *("subjects", "corrections", "people", "too_short", "identity_changes", "cuts", "clip"),
    *("assumed", "unread", "contradictions", "doubts"),
)


@dataclass(slots=True)
class VideoAccount:
    """Account of one raw video. A reader fills it; `check` verifies it at commit.

    Frames are person-frames: one person in one frame, which is one row in the cache. A reader sets
    `found`. Then it calls one method for each track: `keep_rows` with reasons for its rows, or
    `keep_track` or `drop_track` with a number of frames. It counts frames that it drops before it
    knows the tracks by `drop` or `drop_rows`. `reject` drops the whole video.
    """

    name: str
    found: int = 0  # annotated person-frames in the raw files
    kept: int = 0  # person-frames in the tracks that the reader returned
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> person-frames
    tracks_kept: int = 0  # tracks that the reader returned
    tracks_dropped: Counter[str] = field(default_factory=Counter)  # reason -> tracks
    other_split: bool = False  # the labels say that the video belongs to another split
    set_aside: str = ""  # the reason why the whole video was rejected; "": it was not rejected
    message: str = ""  # the error message behind `set_aside`
    # sentences about differences that cost no frame, or that explain a reason
    notes: list[str] = field(default_factory=list)
    # Names of the people in the tracks, in their order, if the labels have them; None: an unnamed
    # person. Whoever drops a track later deletes its name, too.
    subjects: list[str | None] = field(default_factory=list)
    # correction -> of each of its tracks or people, frame, cx, cy and side (px) of a box
    corrections: dict[str, list[list[float]]] = field(default_factory=dict)
    # track, if not of the person in its name -> whose rows: `CorrectedPeople.stretches`
    people: dict[str, list[list[Any]]] = field(default_factory=dict)
    # the longest such stretches that are too short for a track
    too_short: list[list[Any]] = field(default_factory=list)
    doubts: int = 0  # notes about its people, whose tracks are at most doubtful by them
    # name of a track -> frames in which its identity seems to change places with another one
    identity_changes: dict[str, int] = field(default_factory=dict)
    # first frames of new scenes, where no one is linked across them
    cuts: list[int] = field(default_factory=list)
    # record of the video file (`ClipRecord.as_dict`); {} if the video is a folder of images
    clip: dict[str, Any] = field(default_factory=dict)
    # what no file states and was assumed -> the setting that states it, "" if none does
    assumed: dict[str, str] = field(default_factory=dict)
    # what its labels have and nobody reads: a kind, such as "joints not read" -> name -> how often
    unread: dict[str, dict[str, int]] = field(default_factory=dict)
    # what its labels state twice, differently -> in how many frames
    contradictions: Counter[str] = field(default_factory=Counter)

    def assume(self, what: str, *, setting: str = "") -> None:
        """Count on something that no file states, such as "joints in COCO's order". A line for the
        split says so (`assumption_lines`). setting: what states it, such as "[videos] joints".
        """
        self.assumed[what] = setting

    def note(self, sentence: str) -> None:
        """Add a sentence to `notes`."""
        self.notes.append(sentence)

    def drop(self, reason: str, frames: int) -> None:
        """Count `frames` person-frames as dropped for `reason`, if there are any."""
        if frames:
            self.dropped[reason] += int(frames)

    def drop_rows(self, reasons: Mapping[str, ArrayLike]) -> Bools:
        """Count each of N rows as dropped for the first reason that applies to it.

        Returns a mask (N,) of the rows to which no reason applies. reasons: name -> (N,) whether
        the reason applies to a row.
        """
        is_kept = np.array(True)
        for reason, applies in reasons.items():
            rows = is_kept & np.asarray(applies, np.bool_)
            self.drop(reason, int(rows.sum()))
            is_kept = is_kept & ~rows
        return is_kept

    def keep_rows(self, reasons: Mapping[str, ArrayLike]) -> Ints:
        """Count the N rows of one track by `drop_rows`, and the track and its other rows as kept.

        A track without such rows is counted as dropped (`no_frame_left`). Returns the indices of
        the kept rows.
        """
        rows = np.flatnonzero(self.drop_rows(reasons)).astype(np.int64)
        if len(rows):
            self.keep_track(len(rows))
        else:
            self.drop_track("no_frame_left", 0)
        return rows

    def drop_track(self, reason: str, frames: int) -> None:
        """Count a track, and `frames` person-frames of it, as dropped."""
        self.tracks_dropped[reason] += 1
        self.drop(reason, frames)

    def keep_track(self, frames: int) -> None:
        """Count a track, and its frames, as kept."""
        self.tracks_kept += 1
        self.kept += int(frames)

    def take_back_track(self, reason: str, frames: int) -> None:
        """Count a track that counts as kept, and its frames, as dropped."""
        self.tracks_kept -= 1
        self.tracks_dropped[reason] += 1
        self.take_back_rows(reason, frames)

    def take_back_rows(self, reason: str, frames: int) -> None:
        """Count person-frames that count as kept as dropped."""
        self.kept -= frames
        self.drop(reason, frames)

    @property
    def read(self) -> int:
        """Person-frames that the reader gave, also those that the user does not take."""
        return self.kept + sum(self.dropped[reason] for reason in BY_USER)

    def reject(self, reason: str, message: str) -> None:
        """Reject the video as a whole: everything found in it counts under `reason`."""
        self.set_aside = reason
        self.message = message
        self.kept = 0
        self.tracks_kept = 0
        self.dropped = Counter({reason: self.found} if self.found else {})
        self.tracks_dropped = Counter()
        self.assumed = {}
        self.unread = {}
        self.identity_changes = {}

    @property
    def rejection(self) -> str:
        """One line with the rejected video's name, the reason and the message."""
        return f"{self.name}: {self.set_aside}: {self.message.removeprefix(f'{self.name}: ')}"

    def check(self) -> None:
        """Raise AssertionError unless found = kept + dropped: the reader has a bug."""
        accounted = self.kept + sum(self.dropped.values())
        if self.found != accounted:
            reasons = dict(self.dropped)
            raise AssertionError(
                f"{self.name}: found {self.found} person-frames, but kept {self.kept} + dropped "
                f"{reasons} = {accounted}"
            )

    def as_dict(self) -> dict[str, Any]:
        """The account as JSON values; `from_dict` restores it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in _COUNTED:
            values[name] = dict(sorted(values[name].items()))
        values["notes"] = list(self.notes)
        # a manifest of a dataset without them stays as it was
        for name in _ADDED:
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        # an import may have added others
        values = {name: value for name, value in raw.items() if name in _FIELDS}
        for name in _COUNTED:
            values[name] = Counter(values[name])
        return cls(**values)


_FIELDS: Final = frozenset(field.name for field in fields(VideoAccount))


class Accounting:
    """The accounts of all videos of a split, in reading order."""

    def __init__(self, accounts: Iterable[VideoAccount] = ()) -> None:
        self._accounts: dict[str, VideoAccount] = {a.name: a for a in accounts}

    def video(self, name: str) -> VideoAccount:
        """The account of `name`, created at the first call."""
        return self._accounts.setdefault(name, VideoAccount(name))

    def __iter__(self) -> Iterator[VideoAccount]:
        return iter(self._accounts.values())

    def __len__(self) -> int:
        return len(self._accounts)

    def totals(self, known: Totals | None = None) -> dict[str, Any]:
        """Sum the accounts of all videos of the split, as it stands in the manifest.

        For frames, and for tracks of videos that were not rejected: found = kept + dropped by
        reason. For videos: found = kept + rejected by reason (`set_aside`) + without tracks. Videos
        of other splits are not counted. known: totals of the full release.
        """
        rejected = Counter(a.set_aside for a in self if a.set_aside)
        n_used = sum(a.tracks_kept > 0 and not a.set_aside for a in self)
        without_tracks = [a for a in self if not a.tracks_kept and not a.set_aside]
        n_of_other_splits = sum(a.other_split for a in without_tracks)
        tracks_kept = sum(a.tracks_kept for a in self)
        tracks_dropped = _by_reason(a.tracks_dropped for a in self)
        return {
            "frames": {
                "found": sum(a.found for a in self),
                "kept": sum(a.kept for a in self),
                "dropped": _by_reason(a.dropped for a in self),
            },
            "tracks": {
                "found": tracks_kept + sum(tracks_dropped.values()),
                "kept": tracks_kept,
                "dropped": tracks_dropped,
            },
            "videos": {
                "found": len(self) - n_of_other_splits,
                "kept": n_used,
                "set_aside": dict(sorted(rejected.items())),
                "without_tracks": len(without_tracks) - n_of_other_splits,
            },
            "known": (known or Totals()).as_dict(),
        }


def _by_reason(counts: Iterable[Counter[str]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for by_reason in counts:
        total.update(by_reason)
    return dict(sorted(total.items()))


class _Reason(NamedTuple):
    """Why a video, a track or a person-frame was left out."""

    meaning: str
    by_design: bool  # the reader's rules leave it out; False: something about the files is wrong


# reason of a video that could not be read for now
NOT_NOW: Final = "not_readable_now"
# reason of a video at which a library failed (`errors.library_of`)
LIBRARY: Final = "library_error"
# reasons for which every run reads a video again
PASSING: Final = frozenset({NOT_NOW, LIBRARY, OTHER_TRACK})
# Reasons that a faulty disk may have caused: the next plan reads the files' content again.
UNSETTLED: Final = PASSING | frozenset(
    {"reader_crashed", "reader_memory", "reader_timeout", "unexpected_error"}
)

# reason of boxes smaller than a pixel; `datasets.shared.checks` refuses a video with nothing else
DEGENERATE_BOX: Final = "degenerate_box"

# Reasons for frames that sampling skips; no person is lost by them.
SAMPLED: Final = frozenset({"not_sampled", "resampled", ABOVE_MAX_FPS})

# Reasons by which the reader's rules leave something out although the files are valid
_BY_DESIGN: Final = {
    ABOVE_MAX_FPS: "the frame follows the one before sooner than [convert] max_fps",
    "after_last_detection": "the frame is after the last one in which the person can be seen",
    "before_first_detection": "the frame is before the first one in which the person can be seen",
    "face_only": "too many frames show only the face and shoulders of the person",
    "joint_outside_picture": "a joint is outside the image",
    "joints_shake": "a joint of the person shakes more than the setting allows",
    LEFT_OUT: "a line of [convert] corrections leaves the track or its frames out",
    "limbs_vary": "the length of an arm or leg varies more than the setting allows",
    "low_grade": "the person's grade is worse than the setting allows",
    "low_score": "the score of the detection is too low",
    "no_annotations": "images without annotations",
    "no_box": "the person has no box in the frame, or not yet, or no more",
    "no_detection": "the person is not seen well enough in any frame",
    "no_frame_left": "all frames of the track were left out for other reasons, which count them",
    "no_identity": "the person has no identity in its file, and the setting identities asks for it",
    "no_keypoints": (
        "the video has no keypoint files: no detector was run; or the person has only a box"
    ),
    "no_visible_joint": "no joint of the person is visible",
    "not_sampled": "the frame is between those that are read",
    "not_good": "the official labels mark the frame as not good",
    "resampled": "the frame is not among those at 25 fps, to which the motion was resampled",
    "too_few_visible_joints": "too few joints of the person are visible",
    "track_too_short": "too few frames are left of the person for training",
}
# and those by which something about the files is wrong
_FAULTS: Final = {
    "bad_camera": "a camera in the label file is not a rotation, or does not see the person",
    "bad_label_file": "a label file cannot be read, or has unexpected content",
    DEGENERATE_BOX: "the person's box has no extent",
    "duplicate_person": "the labels have one person twice in a frame",
    "frame_count_mismatch": "the numbers of frames and labels differ, so the match is unknown",
    "frame_damaged": "the video is damaged here: the frame cannot be decoded",
    "huge_box": "the person's box reaches far out of the image",
    "keypoints_outside": "most joints are outside the image: they are of another size or video",
    "label_not_finite": "NaN, infinity or a huge number in the labels",
    LIBRARY: "a library lacks something in its version; the next run reads the video again",
    "name_not_utf8": "the name of a file or folder is not UTF-8: rename it",
    "no_camera": "the camera has no calibration, as moving cameras",
    "no_label": "there are images, but no label, or only one of two",
    "no_picture": "there is a label, but the image is missing or cannot be read",
    OTHER_TRACK: "a line of [convert] corrections does not fit the video's tracks, or not any more",
    "no_tfrecord": "the file is not a TFRecord, but empty, compressed or a web page",
    NOT_NOW: "permission denied, or the disk did not answer; the next run reads it again",
    "other_picture_size": "the images have another size than their labels or camera state",
    "other_unit": "the labels are in another unit: mm, degrees, per cent, shares of the image",
    "path_outside": "the labels name an image outside the dataset's folder",
    "reader_crashed": "the process that read the video crashed",
    "reader_memory": "reading the video needs more memory than a process may take",
    "reader_timeout": "reading the video made no progress for longer than the time limit",
    "record_damaged": "a record of the file is damaged, or the file ends early",
    "unexpected_error": "the dataset's code raised an unexpected exception: a bug in it",
    "unknown_joint_order": "the joints cannot be in the joint order of the file",
    "unsafe_pickle": "reading the file could run code: it was not read",
    "video_missing": "there are labels, but no video",
    "video_unreadable": "the video cannot be opened or decoded",
}
REASONS: Final[dict[str, _Reason]] = {
    **{name: _Reason(meaning, by_design=True) for name, meaning in _BY_DESIGN.items()},
    **{name: _Reason(meaning, by_design=False) for name, meaning in _FAULTS.items()},
}

UNKNOWN: Final = _Reason("a reason of another package: see its documentation", by_design=False)


def reason(name: str) -> _Reason:
    """The meaning of a reason; `UNKNOWN` for one of another package."""
    return REASONS.get(name, UNKNOWN)


def is_error(set_aside: str) -> bool:
    """Whether a video was rejected because something is wrong with it.

    set_aside: as in `VideoAccount`; "" for a video that was not rejected.
    """
    return bool(set_aside) and not reason(set_aside).by_design


class VideoState(StrEnum):
    """What became of a video of a committed split, in words for tables and pages."""

    KEPT = "kept"
    REJECTED = "rejected"  # for a fault of its files
    NOT_LABELLED = "not labelled"  # rejected by the reader's rules
    WITHOUT_TRACK = "without a track"
    OTHER_SPLIT = "of another split"
    NOT_RECORDED = "not recorded"  # in a cache of another program


class VideoOutcome(NamedTuple):
    """What became of a video of a committed split, and why."""

    state: VideoState
    reason: str = ""  # name of the main reason (REASONS); "" for a kept video
    message: str = ""

    @classmethod
    def from_account(cls, account: Mapping[str, Any]) -> Self:
        """account: as the cache has it (`VideoAccount.as_dict`)."""
        if "tracks_kept" not in account:
            return cls(VideoState.NOT_RECORDED)
        message = "; ".join(filter(None, [account["message"], *account["notes"]]))
        rejection = account["set_aside"]
        if rejection:
            state = VideoState.REJECTED if is_error(rejection) else VideoState.NOT_LABELLED
            return cls(state, rejection, message)
        if account["tracks_kept"]:
            return cls(VideoState.KEPT, "", message)
        if account["other_split"]:
            return cls(VideoState.OTHER_SPLIT, "", message)
        if not account["found"]:
            return cls(VideoState.WITHOUT_TRACK, "no_person", message or "no person")
        dropped = account["dropped"]
        main_reason = max(dropped, key=dropped.get, default="no_person")
        why = "; ".join(filter(None, [describe_dropped(dropped), *account["notes"]]))
        return cls(VideoState.WITHOUT_TRACK, main_reason, why)


def assumption_lines(accounts: Iterable[VideoAccount]) -> list[str]:
    """A line about each assumption (`VideoAccount.assume`): for how many videos, the first of them,
    and the setting.
    """
    names = defaultdict[tuple[str, str], list[str]](list)
    for account in accounts:
        for assumption in account.assumed.items():
            names[assumption].append(account.name)
    lines = []
    for (what, setting), videos in sorted(names.items()):
        n_videos = count(len(videos), "video")
        how = f": {setting} states it" if setting else ""
        lines.append(f"assumed {what} for {n_videos} ({first_few(videos)}){how}")
    return lines


def unread_lines(accounts: Iterable[VideoAccount]) -> list[str]:
    """A line about each kind of what nobody reads (`VideoAccount.unread`): in how many videos, the
    first of them, and the names, each with how often it is there.
    """
    videos = defaultdict[str, list[str]](list)
    names = defaultdict[str, Counter[str]](Counter)
    for account in accounts:
        for kind, of_video in account.unread.items():
            videos[kind].append(account.name)
            names[kind].update(of_video)
    lines = []
    for kind, of_kind in sorted(videos.items()):
        line = f"{kind} in {count(len(of_kind), 'video')} ({first_few(of_kind)})"
        listed = describe_counts(names[kind])
        lines.append(f"{line}: {listed}" if listed else line)
    return lines


def describe_counts(n_by_name: Mapping[str, int]) -> str:
    """The commonest names, and how often each is there, such as "ball (527), dog (3)"."""
    return first_few([f"{name} ({n:,})" for name, n in Counter(n_by_name).most_common()])


def describe_dropped(dropped: Mapping[str, int]) -> str:
    """Numbers of person-frames by reason, such as "20 no_visible_joint, 3 no_box"."""
    return ", ".join(f"{n:,} {why}" for why, n in dropped.items())


def describe_no_rows(why: str, n: int) -> str:
    """A line about n videos that were rejected for one of the reasons by design."""
    return f"{count(n, 'video')} without rows: {why}, {reason(why).meaning}"
