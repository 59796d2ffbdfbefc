"""One clip with a detector's labels: which file they are in, whether they belong to the clip, and
its tracks.  [raw -> tracks] -> features

`clip_tracks` is the reader that Kinetics, InstaVariety's videos and the user's clips share. It
finds and reads a clip's labels, compares them with the clip's frames, and links the people to
tracks (`people`). Labels are the keypoints, or boxes alone, that a detector wrote for a clip.

`info` is the header of a label file that `python -m pipeline detect` wrote, empty for files of
other tools:

    {"width": 1280, "height": 720, "clip_digest": "9f3c...", "cuts": [51], "record": {...}}
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount, describe_counts
from pipeline.cli.text import count, first_few
from pipeline.clips.files import KEYPOINTS, MADE_BY, read_info
from pipeline.clips.labels.checks import find_cause
from pipeline.clips.labels.detections import Detections, read_detections, read_results
from pipeline.clips.labels.label_content import UPLOADED, Stated
from pipeline.clips.labels.label_files import UNREAD, is_upload_of, own_labels
from pipeline.clips.labels.people_table import ByFrame
from pipeline.clips.tracks.linking import SECOND
from pipeline.datasets.shared.clips.bridging import bridge_gaps
from pipeline.datasets.shared.clips.clip_dataset import ClipDataset
from pipeline.datasets.shared.clips.people import (
    MIN_CONFIDENCE,
    PersonTrack,
    Rules,
    people,
)
from pipeline.datasets.shared.contradictions import note_contradictions
from pipeline.datasets.shared.images import require_frames
from pipeline.datasets.shared.in_pixels import DETECTED_OUTSIDE, STRAY_JOINTS, require_pixels
from pipeline.errors import RawDataError, refuse
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.cuts import cuts_of
from pipeline.files.pixels.frames import MOST_LOST, Video
from pipeline.files.raw import RawVideo
from pipeline.files.raw.corrections import CUT, EXCHANGE, IDENTITIES, JOIN
from pipeline.files.raw.files import file_digest
from pipeline.grades.same_person import find_same_people
from pipeline.people.homography import CORNERS, LARGEST_MOVE, transfer
from pipeline.people.skeletons import Doubles, zero_invalid_joints
from pipeline.people.track import Track

DETECTORS: Final = "`python -m pipeline detect`, OpenPose or another one"


class _ClipDetections(NamedTuple):
    """A clip's labels, as read."""

    place: Path  # the file or folder
    info: Mapping[str, Any]  # `width`, `height`, `clip_digest`, `cuts` and `record`, or empty
    detections: Detections


def clip_tracks(
    dataset: ClipDataset,
    raw: Path,
    split: str,
    video: RawVideo,
    account: VideoAccount,
    rules: Rules,
    find_clip: Callable[[], Video] | None = None,
) -> Sequence[Track]:
    """Read a clip's labels and link them to tracks: one per person and uninterrupted stretch.

    A clip without labels is rejected in `account`. Raises RawDataError if the labels or the clip
    cannot be used, or do not belong together.

    Args:
        find_clip: Returns the clip, or raises RawDataError; it may add notes to `account`. It is
            called once, after the labels are found, so that these are counted even if there is no
            clip. By default, the clip is the video's first file.
    """
    stated = _correct_identities(dataset.stated(video.name), video, account)
    path = own_labels(raw, video, knows_clip=find_clip is not None)
    open_clip = functools.cache(find_clip or (lambda: Video(raw, video.files[0].as_posix())))
    labels = None
    if path is not None:
        labels = _read_labels(path, video, open_clip, account, stated)
    clip = open_clip()
    _require_clip(clip, labels)
    if labels is None:
        account.reject("no_keypoints", f"{raw / video.name}: {_no_keypoints(raw, video, path)}")
        return []

    record = _note_record(clip, labels, account, rules.filmed_fps)
    every = rules.bridge and labels.detections.complete
    require_frames(labels.place, clip, labels.detections.frames, account, every=every)
    _note_unlisted(raw, labels, record, account)

    is_ours = labels.info.get("description") == MADE_BY
    rules = _complete_rules(rules, stated, is_ours=is_ours)
    of_people = [line for line in video.corrections if line.verb in (CUT, EXCHANGE, JOIN)]
    rules = replace(rules, corrections=of_people)
    detections = _fit_to_clip(labels, clip)
    detections = _drop_lost_frames(detections, record.lost, account)
    cuts = _scene_cuts(labels.info, clip, account, rules)
    account.cuts = cuts
    persons = _link_people(detections, record, cuts, account, rules)
    if rules.min_grade == "good":
        persons = _drop_same_people(persons, record.usual_fps, account)
    tracks = []
    for person in persons:
        fps = record.fps_of(person.frame_index)
        track = dataset.track(
            split,
            video,
            person.person,
            fps=fps,
            crop_scale=person.crop_scale,
            frames=clip,
            **person.columns(),
        )
        if person.identity_changes:
            account.identity_changes[track.name] = person.identity_changes
        if any(stretch[0] != person.person for stretch in person.stretches):
            account.people[track.name] = [[*stretch] for stretch in person.stretches]
        note_contradictions(track, account)
        tracks.append(track)
    return tracks


def _correct_identities(stated: Stated, video: RawVideo, account: VideoAccount) -> Stated:
    """What the user states about a clip's files, with the correction of its identities."""
    for line in video.corrections:
        if line.verb == IDENTITIES and line.names[0] == video.name:
            account.corrections[line.text] = []
            stated = stated._replace(identities=stated.identities._replace(value=line.value))
    return stated


def read_people(
    dataset: ClipDataset, place: Path, clip: Video, account: VideoAccount
) -> Detections | None:
    """Read the people of a clip from the file or folder `place`, in pixels of the clip, as
    `clip_tracks` does. Only the clip's first frame is decoded, so that frames are not compared.

    None for an empty folder. Raises RawDataError.
    """
    stated = dataset.stated(clip.path)
    video = RawVideo(clip.path, (Path(clip.path),))
    labels = _read_labels(place, video, lambda: clip, account, stated)
    if labels is None:
        return None
    _require_clip(clip, labels)
    return _fit_to_clip(labels, clip)


def _drop_same_people(
    persons: Iterable[PersonTrack], fps: float, account: VideoAccount
) -> Iterator[PersonTrack]:
    """Drop tracks that are doubtful because they may be one person with another one."""
    listed = [*persons]
    columns = [person.columns() for person in listed]
    partners = find_same_people(columns, fps, account.cuts)
    for person, partner in zip(listed, partners, strict=True):
        if math.isnan(partner):
            yield person
        else:
            account.take_back_track("low_grade", len(person.frame_index))


def _complete_rules(rules: Rules, stated: Stated, *, is_ours: bool) -> Rules:
    """Rules without None. is_ours: whether `detect` wrote the labels."""
    rules = replace(rules, identities=stated.identities)
    if rules.put_sides_right is None:
        rules = replace(rules, put_sides_right=is_ours)
    if rules.cut_at_switches is None:
        rules = replace(rules, cut_at_switches=is_ours)
    return rules


def _read_labels(
    place: Path,
    video: RawVideo,
    open_clip: Callable[[], Video],
    account: VideoAccount,
    stated: Stated,
) -> _ClipDetections | None:
    """Read the labels, and count their persons as found; None for an empty folder.

    The clip is opened only for labels that need its size: boxes, and shares of the image.
    """
    info: Mapping[str, Any] = {}
    if not place.is_dir():
        info = read_info(place)
    stem = PurePath(video.name).name
    if video.files:
        stem = video.files[0].stem
    detections = read_detections(place, stem, lambda: _labelled_sizes(info, open_clip()), stated)
    if detections is None:
        return None
    account.found = detections.n_persons + sum(detections.bad_boxes.values())
    for reason, n in detections.bad_boxes.items():
        account.drop(reason, n)
    account.notes.extend([*detections.remarks, *detections.notes, *detections.doubts])
    account.doubts = len(detections.doubts)
    account.unread = {kind: dict(names) for kind, names in detections.unread.items()}
    if is_upload_of(place.name, stem):
        account.unread[UPLOADED] = {place.name: 1}
    if detections.is_order_assumed:
        account.assume(f"the joint order {detections.skeleton}", setting=stated.joints.setting)
    if not detections.n_persons:
        unread = [f"{what}: {describe_counts(n)}" for what, n in account.unread.items()]
        account.note("; ".join([f"{place.name} has no person in any frame", *unread]))
    return _ClipDetections(place, info, detections)


def _labelled_sizes(info: Mapping[str, Any], clip: Video) -> list[tuple[int, int]]:
    """Sizes (width, height) in px that a label file may refer to, the likeliest first.

    They differ only for clips whose pixels are not square. `detect` uses the shown size, and states
    it in `info`. Other tools often read the stored pixels, as OpenCV does.
    """
    shown = clip.size()
    if (info.get("width"), info.get("height")) == shown:
        return [shown]
    return clip.sizes()


def _no_keypoints(raw: Path, video: RawVideo, place: Path | None) -> str:
    """Message of a clip without keypoints: where they were searched, and what to do.

    place: the clip's folder of labels, if it is empty.
    """
    if place is not None:
        return f"no keypoints in {place}, which is empty: run {DETECTORS} on it"

    problem = f"no keypoints in {raw / KEYPOINTS}"
    for clip in video.files:
        for file in (raw / f"{clip}.json", (raw / clip).with_suffix(".json")):
            with contextlib.suppress(RawDataError):
                if file.is_file() and read_results(file).n_persons:
                    folder = PurePath(KEYPOINTS, video.name).parent
                    return f"{problem}, but {file} has some. Move it to {folder}/"
        for file in (raw / clip.with_suffix(ending) for ending in sorted(UNREAD)):
            if file.is_file():
                try:
                    read_results(file)
                except RawDataError as error:
                    return f"{problem}, but there is {error}"
    return f"{problem}: run {DETECTORS} on it"


def _require_clip(clip: Video, labels: _ClipDetections | None) -> None:
    """Raise RawDataError for a clip that cannot be decoded, that is cut off, or of which the digest
    in `info` is not.
    """
    clip.require_decodable()
    clip.require_whole()
    if labels is None or "clip_digest" not in labels.info:
        return
    try:
        digest = file_digest(clip.place)
    except OSError as error:
        raise clip.unreadable(str(error)) from error
    if labels.info["clip_digest"] != digest:
        raise RawDataError(
            labels.place,
            "clip_digest",
            expected=f"keypoints of {clip.place}",
            found="another clip's, or an older one's",
            do="Run `python -m pipeline detect` again.",
        )


def _note_record(
    clip: Video, labels: _ClipDetections, account: VideoAccount, filmed_fps: float
) -> ClipRecord:
    """Return the clip's record (frames, times, damage), from `info` or else by decoding the clip.

    Adds the record and its remarks to the account. filmed_fps: as in `Rules`.
    """
    stored = ClipRecord.from_dict(labels.info.get("record"))
    if stored is not None:
        clip.remember(stored)
    record = clip.record()
    account.clip = record.as_dict()
    if math.isfinite(filmed_fps):
        record = replace(record, filmed_fps=filmed_fps)
    account.notes.extend(record.remarks())
    return record


def _note_unlisted(
    raw: Path, labels: _ClipDetections, record: ClipRecord, account: VideoAccount
) -> None:
    """Note frames that are missing from a label file with an entry for each frame.

    Frames lost to damage do not count: they are noted already.
    """
    detections = labels.detections
    if not detections.complete:
        return
    n_unlisted = record.n_frames - len({*detections.frames.tolist(), *record.lost})
    # A decoder may hide up to MOST_LOST frames at the end. If fewer frames are listed than not,
    # `require_frames` has already noted it.
    if MOST_LOST < n_unlisted < len(detections.frames):
        file = labels.place.relative_to(raw).as_posix()
        account.note(f"{file} has no entry for {count(n_unlisted, 'frame')} of {record.n_frames}")


def _fit_to_clip(labels: _ClipDetections, clip: Video) -> Detections:
    """Convert the detections and the camera's motion to pixels of the clip's images.

    Raises RawDataError if too many people are outside the images.
    """
    detections = labels.detections
    width, height = clip.size()
    labelled_width, labelled_height = _labelled_sizes(labels.info, clip)[0]
    if (labelled_width, labelled_height) != (width, height):
        factor = np.array([width / labelled_width, height / labelled_height, 1])
        keypoints = detections.keypoints
        scaled = ByFrame(keypoints.rows * factor, keypoints.start)
        detections = replace(detections, keypoints=scaled, hands=detections.hands * factor)
    persons, _ = zero_invalid_joints(detections.keypoints.rows)
    persons[persons[..., 2] < MIN_CONFIDENCE] = 0
    _require_turned(labels.place, persons, clip)
    require_pixels(
        labels.place,
        persons,
        (width, height),
        DETECTED_OUTSIDE,
        skeleton=detections.skeleton,
        find_cause=find_cause,
    )
    _require_motions(labels.place, detections.camera)
    return replace(detections, camera=_pixel_camera(detections.camera, width, height))


def _require_motions(place: Path, camera: Mapping[int, Doubles]) -> None:
    """Raise RawDataError for a homography that moves a corner of the image farther than `detect`
    writes, or nowhere.
    """
    for frame, matrix in camera.items():
        moves = np.linalg.norm(transfer(matrix, CORNERS) - CORNERS, axis=1)
        if not (moves < 1.01 * LARGEST_MOVE).all():  # of rounded numbers
            raise RawDataError(
                place,
                f"frame {frame}: camera",
                expected="a homography that moves no corner by more than half of the image",
                found=f"{matrix.ravel()[:8].tolist()}",
                do="Delete the file, and run `python -m pipeline detect` again.",
            )


def _require_turned(labels: Path, persons: Doubles, clip: Video) -> None:
    """Raise RawDataError if joints (N, J, 3) are beyond the border of the image, but within it as
    it is stored, before it is turned.
    """
    points = persons[..., :2][persons[..., 2] > 0]
    if not len(points) or not clip.view().is_turned:
        return

    def share_beyond(size: tuple[int, int]) -> float:
        return float(((points < -1) | (points > size)).any(axis=1).mean())

    width, height = clip.size()
    share = share_beyond((width, height))
    if share_beyond((height, width)) < STRAY_JOINTS < share:
        expected = f"keypoints of the {width} x {height} image, as players turn it"
        found = f"{share:.0%} of the joints beyond it: those of the stored {height} x {width} image"
        do = "Run the detector on the clip as it is decoded, turned as its rotation flag says."
        error = RawDataError(labels, "keypoints", expected, found, do, reason="keypoints_outside")
        refuse(error)


def _pixel_camera(camera: Mapping[int, Doubles], width: int, height: int) -> dict[int, Doubles]:
    """Convert homographies between frames from points in [-1, 1] to points in px.

    camera: frame -> (3, 3), from the frame before it. -1 and 1 are the image's outer edges; pixel 0
    has its centre at 0.
    """
    to_px = np.array(
        [[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]]
    )
    return {frame: to_px @ matrix @ np.linalg.inv(to_px) for frame, matrix in camera.items()}


def _drop_lost_frames(
    detections: Detections, lost: Collection[int], account: VideoAccount
) -> Detections:
    """Remove, and count as dropped, detections in frames that cannot be decoded (`lost`)."""
    is_lost = np.isin(detections.frame_index, [*lost])
    if not is_lost.any():
        return detections

    of_persons = np.repeat(is_lost, np.diff(detections.keypoints.start))
    return detections.select(account.drop_rows({"frame_damaged": of_persons}))


def _scene_cuts(
    info: Mapping[str, Any], clip: Video, account: VideoAccount, rules: Rules
) -> list[int]:
    """First frames of new scenes, from `info`, or by decoding the clip if its people are cleaned;
    none if the rules want no cuts. Adds a note.
    """
    cuts: list[int] = []
    if not rules.cuts:
        return cuts
    stored = info.get("cuts")
    if isinstance(stored, list) and all(type(cut) is int for cut in stored):
        cuts = sorted({cut for cut in stored if cut > 0})  # the file may have been edited
    elif rules.cleaning is not None:
        cuts = cuts_of(clip, clip.count_frames())
    if cuts:
        account.note(
            f"{len(cuts) + 1} scenes, from the frames 0, {first_few(cuts)}: no one is linked across"
        )
    return cuts


def _link_people(
    detections: Detections,
    record: ClipRecord,
    cuts: Sequence[int],
    account: VideoAccount,
    rules: Rules,
) -> Iterator[PersonTrack]:
    fps = record.usual_fps
    if not math.isfinite(fps):
        account.note(f"the clip states no frame rate: {SECOND} missing frames count as a second")
        fps = SECOND
    max_gap = round(rules.max_gap * fps)
    clock = None if record.is_even else record.clock
    persons = people(detections, account, rules, max_gap, cuts, clock, record.usual_fps)
    if rules.bridge:
        persons = bridge_gaps(persons, max_gap, account)
    return persons
