"""One clip with a detector's labels: which file they are in, whether they belong to the clip, and
its tracks.  [raw -> tracks] -> features

`clip_tracks` is the reader that Kinetics, InstaVariety's videos and the user's clips share. Labels
are the keypoints, or boxes alone, that a detector wrote for a clip. `info` is the header of a label
file that `python -m pipeline detect` wrote; it is empty for files of other tools.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.cli.text import count
from pipeline.clips.file_names import require_own_name
from pipeline.clips.files import EXTENSIONS, KEYPOINTS, labels_of, read_info, require_own_labels
from pipeline.datasets.base import Dataset, Origin
from pipeline.datasets.detected.people import (
    MIN_CONFIDENCE,
    PersonTrack,
    Rules,
    bridge_gaps,
    people,
)
from pipeline.datasets.pixels import DETECTED_OUTSIDE, require_frames, require_in_picture
from pipeline.errors import RawDataError
from pipeline.files.formats.people.detections import Detections, read_detections, read_results
from pipeline.files.pixels.clip_record import ClipRecord, restore_record
from pipeline.files.pixels.cuts import cuts_of
from pipeline.files.pixels.frames import MOST_LOST, Video
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import file_digest
from pipeline.linking import SECOND
from pipeline.skeletons import Doubles, joint_names, zero_invalid_joints
from pipeline.track import Track

DETECTORS: Final = "`python -m pipeline detect`, OpenPose or another one"


@dataclass(frozen=True)
class ClipDataset(Dataset):
    """A dataset of clips whose people a detector finds. Clips without its labels are rejected."""

    keypoints_from: ClassVar[str] = "detected"
    harmless: ClassVar[frozenset[str]] = frozenset({"no_keypoints"})
    recording: ClassVar[str] = "video"

    def origin(self, video: str) -> Origin:
        """The recording is the published video: the stem of the clip's file name, in any folder.

        The start and end seconds that Kinetics appends to the name are removed.

        >>> from pipeline import datasets
        >>> datasets.get("kinetics").origin("train/abseiling/jB8CPlU9xjA_000012_000022").recording
        'jB8CPlU9xjA'
        """
        path = PurePath(video)
        name = path.stem if path.suffix.lower() in EXTENSIONS else path.name
        return Origin(recording=re.sub(r"_[0-9]{6}_[0-9]{6}$", "", name))


def clip_tracks(
    dataset: Dataset,
    raw: Path,
    split: str,
    video: RawVideo,
    account: VideoAccount,
    rules: Rules,
    source_of: Callable[[], Video] | None = None,
) -> Sequence[Track]:
    """Read a clip's labels and link them to tracks: one per person and uninterrupted stretch.

    `source_of` returns the clip, or raises RawDataError; by default, it is the video's first file.
    A clip without labels is rejected in `account`. Raises RawDataError if the labels or the clip
    cannot be used, or do not belong together.
    """
    labels = _find_labels(raw, video, knows_clip=source_of is not None)

    @functools.cache  # `source_of` may add notes to the account
    def source() -> Video:
        if source_of is None:
            return Video(raw, video.files[0].as_posix())
        return source_of()

    detections = None
    info: Mapping[str, Any] = {}
    if labels is not None:
        info = _read_labels_info(labels)
        detections = _read_labels(labels, video, lambda: _labelled_sizes(info, source()), account)

    clip = source()
    clip.require_decodable()
    clip.require_whole()
    if labels is None or detections is None:  # if `labels` is None, `detections` is, too
        account.reject("no_keypoints", f"{raw / video.name}: {_no_keypoints(raw, video, labels)}")
        return []

    _require_own_info(labels, info, clip)
    record = _note_record(clip, labels, info, account, rules.filmed_fps)
    is_every_frame = rules.bridge and detections.complete
    require_frames(labels, clip, detections.frames, account, every=is_every_frame)
    _note_unlisted(labels.relative_to(raw).as_posix(), detections, record, account)

    detections = _fit_to_clip(detections, labels, info, clip)
    detections = _drop_lost_frames(detections, record.lost, account)
    cuts: list[int] = []
    if rules.cuts:
        cuts = _scene_cuts(info, clip, account, decode=rules.cleaning is not None)
    return [
        dataset.track(
            split,
            video,
            person.person,
            fps=record.fps,
            frame_index=person.frame_index,
            bbox=person.bbox,
            kp_2d=person.kp_2d,
            crop_scale=person.crop_scale,
            frames=clip,
        )
        for person in _link_people(detections, record, cuts, account, rules)
    ]


def _find_labels(raw: Path, video: RawVideo, *, knows_clip: bool) -> Path | None:
    """Find the file or folder of a clip's labels; None if it has none.

    Raises RawDataError if the labels may belong to another clip. knows_clip: the reader knows that
    all files of the video are the same clip, so that none is another clip.
    """
    labels = labels_of(raw, video)
    if labels is None:
        return None
    if not knows_clip:
        require_own_labels(video, labels)
    path = PurePath(video.files[0] if video.files else video.name)
    require_own_name(raw / KEYPOINTS, video, labels, path.name)
    return labels


def _read_labels(
    labels: Path, video: RawVideo, sizes: Callable[[], list[tuple[int, int]]], account: VideoAccount
) -> Detections | None:
    """Read the labels, and count their persons as found; None for an empty folder.

    sizes: gives the possible image sizes (width, height) px that the labels refer to.
    """
    stem = PurePath(video.name).name
    if video.files:
        stem = video.files[0].stem
    detections = read_detections(labels, stem, sizes)
    if detections is not None:
        account.found = detections.n_persons
        account.notes.extend(detections.notes)
        if not detections.n_persons:
            account.notes.append(f"{labels.name} has no person in any frame")
    return detections


def _link_people(
    detections: Detections,
    record: ClipRecord,
    cuts: Sequence[int],
    account: VideoAccount,
    rules: Rules,
) -> Iterator[PersonTrack]:
    max_gap = rules.max_gap
    if max_gap is None:
        max_gap = _frames_of_a_second(record.usual_fps, account)
    clock = None if record.is_even else record.clock()
    persons = people(detections, account, rules, max_gap, cuts, clock)
    if rules.bridge:
        persons = bridge_gaps(persons, max_gap, account)
    return persons


def _note_record(
    source: Video, labels: Path, info: Mapping[str, Any], account: VideoAccount, filmed_fps: float
) -> ClipRecord:
    """Return the clip's record (frames, times, damage), from `info` or else by decoding the clip.

    Adds the record and its remarks to the account. filmed_fps: as in `Rules`. Raises RawDataError
    if the labels come from an earlier version of `detect` that decoded other images.
    """
    recorded = restore_record(info.get("record"))
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
    """Note frames that are missing from a label file with an entry for each frame.

    Frames lost to damage do not count: they are noted already.
    """
    n_unlisted = record.n_frames - len({*detections.frames, *record.lost})
    # A decoder may hide up to MOST_LOST frames at the end. If fewer frames are listed than not,
    # `require_frames` has already noted it.
    if detections.complete and MOST_LOST < n_unlisted < len(detections.frames):
        account.notes.append(
            f"{file} has no entry for {count(n_unlisted, 'frame')} of {record.n_frames}"
        )


def _no_keypoints(raw: Path, video: RawVideo, labels: Path | None) -> str:
    """Message of a clip without keypoints: where they were searched, and what to do."""
    if labels is not None:
        return f"no keypoints in {labels}, which is empty: run {DETECTORS} on it"

    problem = f"no keypoints in {raw / KEYPOINTS}"
    for clip in video.files:
        for file in (raw / f"{clip}.json", (raw / clip).with_suffix(".json")):
            with contextlib.suppress(RawDataError):
                if file.is_file() and read_results(file).n_persons:
                    folder = PurePath(KEYPOINTS, video.name).parent
                    return f"{problem}, but {file} has some. Move it to {folder}/"
    return f"{problem}: run {DETECTORS} on it"


def _read_labels_info(labels: Path) -> dict[str, Any]:
    """Read the `info` of a label file of `detect`; {} for a folder or another detector's file."""
    if labels.is_dir():
        return {}
    return read_info(labels)


def _labelled_sizes(info: Mapping[str, Any], source: Video) -> list[tuple[int, int]]:
    """Sizes (width, height) in px that a label file may refer to, the likeliest first.

    They differ only for clips whose pixels are not square. `detect` uses the shown size, and states
    it in `info`. Other tools often read the stored pixels, as OpenCV does.
    """
    shown = source.size()
    if (info.get("width"), info.get("height")) == shown:
        return [shown]
    return source.sizes()


def _refuse_other_pixels(labels: Path, record: ClipRecord) -> None:
    """Raise RawDataError if an earlier version of `detect` decoded this clip wrongly.

    Called for labels without a record, which only such a version writes.
    """
    if record.otherwise:
        expected = "keypoints of the clip as it is decoded now"
        kinds = ", ".join(record.otherwise)
        found = f"those of an earlier version, which decoded it wrongly ({kinds})"
        do = (
            "Run `python -m pipeline detect` again; if it names the clip as done, delete the "
            "file first."
        )
        raise RawDataError(labels, "keypoints", expected, found, do)


def _drop_lost_frames(
    detections: Detections, lost: Collection[int], account: VideoAccount
) -> Detections:
    """Remove, and count as dropped, detections in frames that cannot be decoded (`lost`)."""
    is_lost = np.isin(detections.frame_index, [*lost])
    if not is_lost.any():
        return detections

    for t in np.flatnonzero(is_lost).tolist():
        account.drop("frame_damaged", len(detections.keypoints[t]))
    rows = np.flatnonzero(~is_lost).tolist()
    identity = detections.identity
    if identity is not None:
        identity = [identity[t] for t in rows]
    return replace(
        detections,
        frame_index=detections.frame_index[rows],
        keypoints=[detections.keypoints[t] for t in rows],
        identity=identity,
    )


def _fit_to_clip(
    detections: Detections, labels: Path, info: Mapping[str, Any], source: Video
) -> Detections:
    """Convert the detections and the camera's motion to pixels of the clip's images.

    Raises RawDataError if too many people are outside the images.
    """
    width, height = source.size()
    labelled = _labelled_sizes(info, source)[0]
    if labelled != source.size():
        factor = np.array([width / labelled[0], height / labelled[1], 1])
        keypoints = [persons * factor for persons in detections.keypoints]
        detections = replace(detections, keypoints=keypoints)
    require_in_picture(
        labels,
        _confident(detections),
        source.size(),
        DETECTED_OUTSIDE,
        boxes=detections.boxes_alone,
    )
    return replace(detections, camera=pixel_camera(detections.camera, width, height))


def _confident(detections: Detections) -> Doubles:
    """Stack all persons of all frames, (N, J, 3); scores below MIN_CONFIDENCE become 0."""
    nobody = np.empty((0, len(joint_names(detections.skeleton)), 3))
    persons, _ = zero_invalid_joints(np.concatenate([*detections.keypoints, nobody]))
    persons[persons[..., 2] < MIN_CONFIDENCE] = 0
    return persons


def _frames_of_a_second(fps: float, account: VideoAccount) -> int:
    if math.isfinite(fps):
        return round(fps)
    account.notes.append(
        f"the clip states no frame rate: people are linked across {SECOND} missing frames"
    )
    return SECOND


def pixel_camera(camera: Mapping[int, Doubles], width: int, height: int) -> dict[int, Doubles]:
    """Convert homographies between frames from points in [-1, 1] to points in px."""
    to_px = np.array(
        [[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]]
    )
    return {frame: to_px @ matrix @ np.linalg.inv(to_px) for frame, matrix in camera.items()}


def _require_own_info(labels: Path, info: Mapping[str, Any], source: Video) -> None:
    """Raise RawDataError if the digest in `info` is another clip's, or the clip cannot be read."""
    if "clip_digest" not in info:
        return
    try:
        digest = file_digest(source.place)
    except OSError as error:
        raise source.unreadable(str(error)) from error
    if info["clip_digest"] != digest:
        expected = f"keypoints of {source.place}"
        do = "Run `python -m pipeline detect` again."
        raise RawDataError(labels, "clip_digest", expected, "another clip's, or an older one's", do)


def _scene_cuts(
    info: Mapping[str, Any], source: Video, account: VideoAccount, *, decode: bool
) -> list[int]:
    """First frames of new scenes, from `info`, or by decoding the clip if `decode`. Adds a note."""
    cuts: list[int] = []
    stored = info.get("cuts")
    if isinstance(stored, list) and all(type(cut) is int for cut in stored):
        cuts = sorted({cut for cut in stored if cut > 0})  # the file may have been edited
    elif decode:
        cuts = cuts_of(source, source.count_frames())
    if cuts:
        first = ", ".join(map(str, cuts[:5]))
        more = ", ..." if len(cuts) > 5 else ""
        account.notes.append(
            f"{len(cuts) + 1} scenes, from the frames 0, {first}{more}: no one is linked across"
        )
    return cuts
