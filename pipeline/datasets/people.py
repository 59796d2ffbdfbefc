"""Tracks from a detector's results: linking, boxes, selection.  [raw -> tracks] -> features

`clip_tracks` is shared by Kinetics, InstaVariety's videos and the user's clips.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.boxes import smooth_boxes, tight_boxes
from pipeline.cli.text import count
from pipeline.clips.file_names import require_own_name
from pipeline.clips.files import EXTENSIONS, KEYPOINTS, labels_of, read_info, require_own_labels
from pipeline.datasets.base import Dataset, Origin, finite_joints
from pipeline.datasets.pixels import DETECTED_OUTSIDE, require_frames, require_in_picture
from pipeline.errors import RawDataError
from pipeline.files.formats.detections import Detections, read_detections, read_results
from pipeline.files.pixels.clip_record import ClipRecord, record_from
from pipeline.files.pixels.cuts import cuts_of
from pipeline.files.pixels.frames import MOST_LOST, Video
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import file_digest
from pipeline.grades import grade
from pipeline.linking import SECOND, Cleaning, clean, link, split_at_gaps
from pipeline.skeletons import (
    Bools,
    Doubles,
    Ints,
    Skeleton,
    convert,
    joint_names,
    without_non_finite,
)
from pipeline.track import CROP_SCALE, Track

DETECTORS: Final = "`python -m pipeline detect`, OpenPose or another one"
MIN_CONFIDENCE: Final = 0.3
MIN_VISIBLE: Final = 6  # joints
BOX_FACTOR: Final = 1.1
BOX_SCALE: Final = 1.1  # crop side / larger side of a detector's box, which has a margin already


@dataclass(frozen=True, slots=True)
class Rules:
    """How a dataset's people are linked and cleaned."""

    min_frames: int
    max_gap: int | None = None  # frames; a second
    # for arbitrary clips, with scene cuts; None: only drop frames with few joints
    cleaning: Cleaning | None = None
    bridge: bool = False  # add the frames in which a person was missed, with boxes in between
    cuts: bool = True  # link no one across a scene cut
    max_jitter: float | None = None  # % of the box (`pipeline.grades`); no limit
    max_limb_spread: float | None = None  # %; no limit
    # frames a second at which the clip was filmed, if the user states it
    filmed_fps: float = math.nan


@dataclass(frozen=True)
class ClipDataset(Dataset):
    """Clips in which a detector finds the people, if it was run on them."""

    keypoints_from: ClassVar[str] = "detected"
    harmless: ClassVar[frozenset[str]] = frozenset({"no_keypoints"})
    recording: ClassVar[str] = "video"

    def origin(self, video: str) -> Origin:
        """The published video of a clip: its file's stem, in any folder, without the seconds that
        Kinetics appends.

        >>> from pipeline import datasets
        >>> datasets.get("kinetics").origin("train/abseiling/jB8CPlU9xjA_000012_000022").recording
        'jB8CPlU9xjA'
        """
        path = PurePath(video)
        name = path.stem if path.suffix.lower() in EXTENSIONS else path.name
        return Origin(recording=re.sub(r"_[0-9]{6}_[0-9]{6}$", "", name))


# HMMR's, for InstaVariety and VLOG-people
ANY_CLIP: Final = Rules(Cleaning().min_frames, cleaning=Cleaning())


class _PersonTrack(NamedTuple):
    """T frames of one person."""

    frame_index: Ints  # (T,)
    detected: Doubles  # (T, J, 3) as the detector has them, without bridged frames
    bbox: NDArray[np.float32]  # (T, 4)
    kp_2d: NDArray[np.float32]  # (T, 49, 3); all 0 of people who are known by boxes alone
    crop_scale: float = CROP_SCALE
    person: str = ""  # the detector's identity, or a number by order of appearance


def people(
    detections: Detections,
    account: VideoAccount,
    rules: Rules,
    max_gap: int = SECOND,
    cuts: Sequence[int] = (),
    clock: Ints | None = None,
) -> Iterator[_PersonTrack]:
    """Everybody with at least `rules.min_frames` frames; others are counted as dropped in
    `account`.

    A person missing for more than `max_gap` frames, or across `cuts` (first frames of new scenes),
    is a new one afterwards. clock: of `ClipRecord`, where gaps are counted by it; None: by frames.
    `_Selection` has what of a person is used; cleaning may split one into `<name>`, `<name>.1`, ...
    """
    detections = _apply_confidence(detections, account)
    selection = _Selection(detections.skeleton, rules, account)
    if detections.boxes_alone:
        select = selection.boxes
    else:
        select = selection.visible if rules.cleaning is None else selection.clean_parts
    identified = _identify(detections, account, max_gap, cuts, clock)
    taken = {name for name, _ in identified}
    for name, members in identified:
        kp_2d = np.stack([detections.keypoints[t][p] for t, p in members])
        for k, track in enumerate(select(detections.frame_index[members[:, 0]], kp_2d)):
            n_frames = len(track.frame_index)
            if n_frames < rules.min_frames:
                account.drop_track("track_too_short", n_frames, track.frame_index, track.detected)
                selection.too_short.append(n_frames)
                continue
            if doubt := _doubt(track, rules):
                account.drop_track(doubt, n_frames, track.frame_index, track.detected)
                continue
            account.keep_track(n_frames)
            yield track._replace(person=_free_name(f"{name}.", k, taken) if k else name)
    if (longest := max(selection.too_short, default=0)) and not account.tracks_kept:
        account.notes.append(
            f"the longest stretch of a person has {longest} frames < min_frames {rules.min_frames}"
        )


def _doubt(track: _PersonTrack, rules: Rules) -> str:
    """The reason to drop a track for its grade; "" if there is none."""
    limits = {"joints_shake": rules.max_jitter, "limbs_vary": rules.max_limb_spread}
    if not any(limits.values()):
        return ""
    found = grade({"frame_index": track.frame_index, "bbox": track.bbox, "kp_2d": track.kp_2d})[1:3]
    return next(
        (
            why
            for (why, most), number in zip(limits.items(), found, strict=True)
            if most and number > most
        ),
        "",
    )


@dataclass(frozen=True, slots=True)
class _Selection:
    """The parts of one person's detections that are used, in one of three ways; the rest is counted
    as dropped.

    Each way takes `frame_index` (T,) and `kp_2d` (T, J, 3), the detections of a person.
    """

    skeleton: Skeleton
    rules: Rules
    account: VideoAccount
    # numbers of frames of parts that are dropped for it
    too_short: list[int] = field(default_factory=list)

    def boxes(self, frame_index: Ints, kp_2d: Doubles) -> Iterator[_PersonTrack]:
        """All boxes without joints, square by the larger side and not smoothed, in parts of
        `max_frames`.
        """
        most = self.rules.cleaning.max_frames if self.rules.cleaning else len(frame_index)
        for rows in np.array_split(np.arange(len(frame_index)), -(-len(frame_index) // most)):
            unknown = np.zeros((len(rows), len(joint_names("spin49")), 3), np.float32)
            yield _PersonTrack(
                frame_index[rows], kp_2d[rows], tight_boxes(kp_2d[rows])[0], unknown, BOX_SCALE
            )

    def visible(self, frame_index: Ints, kp_2d: Doubles) -> Iterator[_PersonTrack]:
        """The frames with at least MIN_VISIBLE joints."""
        yield self._smooth(frame_index, kp_2d, (kp_2d[..., 2] > 0).sum(axis=1) >= MIN_VISIBLE)

    def clean_parts(self, frame_index: Ints, kp_2d: Doubles) -> Iterator[_PersonTrack]:
        """The parts that `rules.cleaning` leaves."""
        parts, dropped = clean(kp_2d[..., 2] > 0, joint_names(self.skeleton), self.rules.cleaning)
        for reason, rows in dropped.items():
            self.account.drop(reason, len(rows), frame_index[rows], kp_2d[rows])
        short = dropped.get("track_too_short", np.empty(0, np.intp))
        self.too_short.extend(map(len, np.split(short, np.flatnonzero(np.diff(short) > 1) + 1)))
        if not parts:
            self.account.drop_track(max(dropped, key=lambda reason: len(dropped[reason])), 0)
        for rows in parts:
            yield self._smooth(frame_index[rows], kp_2d[rows], np.full(len(rows), True))

    def _smooth(self, frame_index: Ints, kp_2d: Doubles, enough: Bools) -> _PersonTrack:
        """A track with boxes that are smoothed over time, missing frames included.

        enough: (T,) frames that show enough joints. Other frames are counted as dropped.
        """
        dense = frame_index - frame_index[0]
        over_time = np.zeros((dense[-1] + 1, *kp_2d.shape[1:]))
        over_time[dense] = kp_2d
        boxes, first, stop = smooth_boxes(over_time, threshold=MIN_CONFIDENCE)
        reasons = {"no_box": (dense < first) | (dense >= stop), "too_few_visible_joints": ~enough}
        kept = np.flatnonzero(self.account.drop_rows(reasons, frame_index, kp_2d))
        bbox = boxes[dense[kept] - first] * np.array([1, 1, BOX_FACTOR, BOX_FACTOR], np.float32)
        in_spin49 = convert(kp_2d[kept], source=self.skeleton, target="spin49").astype(np.float32)
        return _PersonTrack(frame_index[kept], kp_2d[kept], bbox, in_spin49)


def _bridge_gaps(
    persons: Iterable[_PersonTrack], max_gap: int, account: VideoAccount
) -> Iterator[_PersonTrack]:
    """Add frames in gaps of up to `max_gap`, with an interpolated box and no joint, so that windows
    are not split.

    Added frames count as found and kept, with a note after the last person.
    """
    added = []
    for person in persons:
        whole = _bridge_person(person, max_gap)
        if n := len(whole.frame_index) - len(person.frame_index):
            added.append(n)
        yield whole
    if added:
        account.found += sum(added)
        account.kept += sum(added)
        of_tracks = f" of {len(added)} tracks" if len(added) > 1 else ""
        total = count(sum(added), "frame")
        account.notes.append(
            f"{total} between detections{of_tracks} are predicted with interpolated boxes"
        )


def _bridge_person(person: _PersonTrack, max_gap: int) -> _PersonTrack:
    frames = person.frame_index
    stops = np.where(np.diff(frames) <= max_gap + 1, frames[1:], frames[:-1] + 1)
    every = np.concatenate([*map(np.arange, frames[:-1], stops), frames[-1:]])
    bbox = np.column_stack([np.interp(every, frames, column) for column in person.bbox.T]).astype(
        np.float32
    )
    kp_2d = np.zeros((len(every), *person.kp_2d.shape[1:]), np.float32)
    kp_2d[np.searchsorted(every, frames)] = person.kp_2d
    return person._replace(frame_index=every, bbox=bbox, kp_2d=kp_2d)


def confident(detections: Detections) -> Doubles:
    """(N, J, 3) all persons of all frames; scores below MIN_CONFIDENCE are 0."""
    n_joints = len(joint_names(detections.skeleton))
    persons, _ = without_non_finite(
        np.concatenate([*detections.keypoints, np.empty((0, n_joints, 3))])
    )
    persons[persons[..., 2] < MIN_CONFIDENCE] = 0
    return persons


def _apply_confidence(detections: Detections, account: VideoAccount) -> Detections:
    """Scores become confidences (0 under 0.3, at most 1); persons without a visible joint or box
    are dropped.
    """
    if not detections.keypoints:
        return detections
    everyone = finite_joints(np.concatenate(detections.keypoints), account)
    reason = "low_score" if detections.boxes_alone else "no_visible_joint"
    everyone[..., 2] = np.where(
        everyone[..., 2] < MIN_CONFIDENCE, 0, np.minimum(everyone[..., 2], 1)
    )
    sizes = [len(persons) for persons in detections.keypoints]
    frame_index = np.repeat(detections.frame_index, sizes)
    stops = np.cumsum(sizes)[:-1]
    seen = np.split(
        account.drop_rows({reason: ~everyone[..., 2].any(axis=1)}, frame_index, everyone), stops
    )
    keypoints = [
        persons[kept] for persons, kept in zip(np.split(everyone, stops), seen, strict=True)
    ]
    identity = detections.identity and [
        ids[kept] for ids, kept in zip(detections.identity, seen, strict=True)
    ]
    return replace(detections, keypoints=keypoints, identity=identity)


def _identify(
    detections: Detections,
    account: VideoAccount,
    max_gap: int,
    cuts: Sequence[int],
    clock: Ints | None,
) -> list[tuple[str, Ints]]:
    """Name and (n, 2) rows (t, p) of every person, by the detector's identities or by linking."""
    frames = detections.frame_index
    camera = detections.camera
    if clock is not None:
        frames = clock[frames]
        cuts = clock[list(cuts)].tolist()
        camera = {
            int(clock[frame]): matrix for frame, matrix in camera.items() if frame < len(clock)
        }
    if detections.identity is None:
        linked = link(detections.keypoints, frames, max_gap, cuts=cuts, camera=camera)
        return [(str(k), rows) for k, rows in enumerate(linked)]
    members: dict[int, dict[int, int]] = {}  # identity -> t -> p
    for t, identities in enumerate(detections.identity):
        confidence = detections.keypoints[t][..., 2].sum(axis=1)
        for p in np.argsort(-confidence, kind="stable"):
            by_frame = members.setdefault(int(identities[p]), {})
            # of two persons with one identity in a frame, it is the one of higher confidence
            if t in by_frame:
                account.drop(
                    "duplicate_person", 1, detections.frame_index[[t]], detections.keypoints[t][[p]]
                )
            else:
                by_frame[t] = int(p)
    named = []
    taken = {*(detections.names or map(str, members))}
    for identity in sorted(members):
        called = detections.names[identity] if detections.names else str(identity)
        rows = np.array(sorted(members[identity].items()), np.int64)
        for k, segment in enumerate(split_at_gaps(frames[rows[:, 0]], max_gap, cuts)):
            named.append((_free_name(f"{called}-", k, taken) if k else called, rows[segment]))
    return named


def _free_name(start: str, k: int, taken: set[str]) -> str:
    """`start` with the number k or, if that name is `taken`, the next free one; adds it to
    `taken`.
    """
    name = next(name for i in itertools.count(k) if (name := f"{start}{i}") not in taken)
    taken.add(name)
    return name


def clip_tracks(
    dataset: Dataset,
    raw: Path,
    split: str,
    video: RawVideo,
    account: VideoAccount,
    rules: Rules,
    source_of: Callable[[], Video] | None = None,
) -> Sequence[Track]:
    """One track per person and uninterrupted stretch.

    `source_of` gives the clip, or raises RawDataError; by default, it is the video's first file.
    Raises RawDataError if labels or clip cannot be used, or do not belong together.
    """
    clip = PurePath(video.files[0] if video.files else video.name).name
    stem = PurePath(clip).stem if video.files else clip
    labels = labels_of(raw, video)
    # else the reader knows that its files of one stem are one clip
    if labels is not None and source_of is None:
        require_own_labels(video, labels)
    if labels is not None:
        require_own_name(raw / KEYPOINTS, video, labels, clip)
    source_of = functools.cache(source_of or (lambda: Video(raw, video.files[0].as_posix())))
    detections = None if labels is None else _read_labels(labels, stem, source_of, account)
    source = source_of()
    source.require_decodable()
    source.require_whole()
    if labels is None or detections is None:
        account.reject("no_keypoints", f"{raw / video.name}: {_no_keypoints(raw, video, labels)}")
        return []
    info = _info_of(labels, source)
    record = _note_record(source, labels, info, account, rules.filmed_fps)
    require_frames(
        labels, source, detections.frames, account, every=rules.bridge and detections.complete
    )
    _note_unlisted(labels.relative_to(raw).as_posix(), detections, record, account)
    detections = _stretch(detections, _labelled_sizes(labels, source)[0], source.size())
    require_in_picture(
        labels, confident(detections), source.size(), DETECTED_OUTSIDE, boxes=detections.boxes_alone
    )
    detections = _drop_lost_frames(detections, record.lost, account)
    cuts = (
        _scene_cuts(info, source, account, decode=rules.cleaning is not None) if rules.cuts else []
    )
    detections = replace(detections, camera=pixel_camera(detections.camera, *source.size()))
    max_gap = (
        rules.max_gap
        if rules.max_gap is not None
        else _frames_of_a_second(record.usual_fps, account)
    )
    clock = None if record.is_even else record.clock()
    persons = people(detections, account, rules, max_gap, cuts, clock)
    if rules.bridge:
        persons = _bridge_gaps(persons, max_gap, account)
    return [
        dataset.track(
            split,
            video,
            name,
            fps=record.fps,
            frame_index=index,
            bbox=bbox,
            kp_2d=kp_2d,
            crop_scale=scale,
            frames=source,
        )
        for index, _, bbox, kp_2d, scale, name in persons
    ]


def _read_labels(
    labels: Path, stem: str, source_of: Callable[[], Video], account: VideoAccount
) -> Detections | None:
    """`read_detections`, with what was found in the account."""
    detections = read_detections(labels, stem, lambda: _labelled_sizes(labels, source_of()))
    if detections is not None:
        account.found = detections.n_persons
        account.notes.extend(detections.notes)
    return detections


def _note_record(
    source: Video, labels: Path, info: Mapping[str, Any], account: VideoAccount, filmed_fps: float
) -> ClipRecord:
    """What the clip is, by `info` of its labels or by decoding it, with its remarks in the account.

    filmed_fps: as in `Rules`. Raises RawDataError if `detect` of an earlier version saw other
    images.
    """
    recorded = record_from(info.get("record"))
    if recorded is not None:
        source.remember(recorded)
    record = source.record()
    account.clip = record.as_dict()
    if math.isfinite(filmed_fps):
        record = replace(record, filmed_fps=filmed_fps)
    account.notes.extend(record.remarks())
    if info and recorded is None:
        _refuse_other_pixels(labels, record)
    return record


def _note_unlisted(
    file: str, detections: Detections, record: ClipRecord, account: VideoAccount
) -> None:
    """Note frames without an entry in a file that has one for each frame; those that damage lost
    are noted already.
    """
    n_unlisted = record.n_frames - len({*detections.frames, *record.lost})
    if detections.complete and MOST_LOST < n_unlisted < len(detections.frames):
        account.notes.append(
            f"{file} has no entry for {count(n_unlisted, 'frame')} of {record.n_frames}"
        )


def _no_keypoints(raw: Path, video: RawVideo, labels: Path | None) -> str:
    """Where keypoints were searched, and what to do."""
    if labels is not None:
        return f"no keypoints in {labels}, which is empty: run {DETECTORS} on it"
    for clip in video.files:
        for file in (raw / f"{clip}.json", (raw / clip).with_suffix(".json")):
            with contextlib.suppress(RawDataError):
                if file.is_file() and read_results(file).n_persons:
                    place = PurePath(KEYPOINTS, video.name).parent
                    return (
                        f"no keypoints in {raw / KEYPOINTS}, but {file} has some. Move it to "
                        f"{place}/"
                    )
    return f"no keypoints in {raw / KEYPOINTS}: run {DETECTORS} on it"


def _labelled_sizes(labels: Path, source: Video) -> list[tuple[int, int]]:
    """Widths and heights px of the images that labels may be made of, where pixels are not square.

    Files of `detect` state it. Other tools read stored pixels, as OpenCV does, unless the file
    states the size.
    """
    info = {} if labels.is_dir() else read_info(labels)
    is_shown = (info.get("width"), info.get("height")) == source.size()
    return [source.size()] if is_shown else source.sizes()


def _refuse_other_pixels(labels: Path, record: ClipRecord) -> None:
    """Raise RawDataError if `detect` of an earlier version, which kept no record, saw other images
    of this clip.
    """
    if record.otherwise:
        found = (
            f"those of an earlier version, which decoded it wrongly ({', '.join(record.otherwise)})"
        )
        do = (
            "Run `python -m pipeline detect` again; if it names the clip as done, delete the "
            "file first."
        )
        raise RawDataError(
            labels, "keypoints", "keypoints of the clip as it is decoded now", found, do
        )


def _drop_lost_frames(
    detections: Detections, lost: Collection[int], account: VideoAccount
) -> Detections:
    """The detections without those of frames that cannot be decoded."""
    is_lost = np.isin(detections.frame_index, [*lost])
    if not is_lost.any():
        return detections
    for t in np.flatnonzero(is_lost).tolist():
        account.drop("frame_damaged", len(detections.keypoints[t]))
    kept = np.flatnonzero(~is_lost).tolist()
    return replace(
        detections,
        frame_index=detections.frame_index[kept],
        keypoints=[detections.keypoints[t] for t in kept],
        identity=None if detections.identity is None else [detections.identity[t] for t in kept],
    )


def _stretch(detections: Detections, size: tuple[int, int], shown: tuple[int, int]) -> Detections:
    """Detections in px of images of one size -> of another."""
    if size == shown:
        return detections
    factor = np.array([shown[0] / size[0], shown[1] / size[1], 1])
    return replace(detections, keypoints=[persons * factor for persons in detections.keypoints])


def _frames_of_a_second(fps: float, account: VideoAccount) -> int:
    if math.isfinite(fps):
        return round(fps)
    account.notes.append(
        f"the clip states no frame rate: people are linked across {SECOND} missing frames"
    )
    return SECOND


def pixel_camera(camera: Mapping[int, Doubles], width: int, height: int) -> dict[int, Doubles]:
    """Homographies of points in [-1, 1] -> of px."""
    to_px = np.array(
        [[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]]
    )
    return {frame: to_px @ matrix @ np.linalg.inv(to_px) for frame, matrix in camera.items()}


def _info_of(labels: Path, source: Video) -> Mapping[str, Any]:
    """`info` of a file of `detect`; {} for another detector. Raises RawDataError if it belongs to
    another clip.
    """
    info = {} if labels.is_dir() else read_info(labels)
    if "clip_digest" in info and info["clip_digest"] != file_digest(source.place):
        expected = f"keypoints of {source.place}"
        do = "Run `python -m pipeline detect` again."
        raise RawDataError(labels, "clip_digest", expected, "another clip's, or an older one's", do)
    return info


def _scene_cuts(
    info: Mapping[str, Any], source: Video, account: VideoAccount, *, decode: bool
) -> list[int]:
    """First frames of new scenes: from `info`, else by decoding the clip."""
    stored = info.get("cuts")
    if isinstance(stored, list) and all(type(cut) is int for cut in stored):
        cuts = sorted({cut for cut in stored if cut > 0})  # the file may have been edited
    else:
        cuts = cuts_of(source, source.count_frames()) if decode else []
    if cuts:
        first = ", ".join(map(str, cuts[:5])) + (", ..." if len(cuts) > 5 else "")
        account.notes.append(
            f"{len(cuts) + 1} scenes, from the frames 0, {first}: no one is linked across"
        )
    return cuts
