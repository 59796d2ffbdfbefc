"""Find the frames of a video, and check that labels belong to them.  [raw pixels] -> tracks ->
features -> windows

Readers list the files of a video's frames (`inputs`), choose among them (`pictures_or_video`), ask
which labelled frames have an image (`frames_there`) and which of these are damaged (`lost_frames`),
and check that size, frame numbers and joints of the labels fit (`require_...`).

MPI-INF-3DHP and Human3.6M are published as videos, from which users extract images under names of
their choice. The numbers in these names decide which frame an image is (`numbering`). For videos,
the number of frames is that of frames that decode, not the one in the header.

Functions that refuse labels call `pipeline.errors.refuse`: it raises RawDataError, except for
`pipeline show`, which collects the errors and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.datasets.shared.in_pixels import (
    DETECTED_OUTSIDE,
    STRAY_JOINTS,
    far_outside,
    require_pixels,
)
from pipeline.datasets.shared.numbering import (
    frame_mismatch,
    number_from_0_or_1,
    require_numbers,
    require_rate,
)
from pipeline.errors import RawDataError, refuse
from pipeline.files.pixels.frames import MOST_LOST, Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.pixels.sources import match_numbered, picture_pattern
from pipeline.files.raw import is_demo_data
from pipeline.files.raw.files import is_litter, scan_names
from pipeline.people.skeletons import Bools, Doubles, Floats, Ints

MIN_LABELLED: Final = 50  # frames; of fewer, the most common step between them is not noted

# sizes of images
OFF_CENTRE: Final = 0.05  # of the image's size: distance of a principal point from the centre
RESIZED: Final = 0.05  # of a size that labels state: a smaller difference may be the release's

# advice
SAME_VIDEO: Final = (
    "Run the detector on this very file, on every frame of it, into an empty folder, and "
    "write pixels."
)
SAME_SIZE: Final = "Use the release's own frames for its labels, without resizing them."
FROM_0: Final = "Count frames from 0: the first frame is 0."
CUT_AGAIN: Final = "Encode the video again (ffmpeg without -c copy), and make labels of the result."


def inputs(
    raw: Path, folders: Sequence[Path], videos: Sequence[Path]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the video files and image folders of a video, (files, folders), for its `RawVideo`.

    `folders` and `videos` are candidates below `raw`, the preferred one first. Returns those that
    exist; video files only if no folder has numbered images. Opens no file.
    """
    present = tuple(folder for folder in folders if (raw / folder).is_dir())
    for folder in present:
        if any(map(match_numbered, scan_names(raw / folder))):
            return (), present
    return tuple(_existing_files(raw, videos)), present


def _existing_files(raw: Path, videos: Sequence[Path]) -> list[Path]:
    return [video for video in videos if (raw / video).is_file()]


def pictures_or_video(
    raw: Path,
    folders: Sequence[Path],
    videos: Sequence[Path],
    n_labels: int,
    account: VideoAccount,
) -> Pictures | Video:
    """Return a video's frames: the first of `folders` with images, else the first existing video.

    All paths are below `raw`. Other candidates with frames are noted as unused. Opens no file.
    Raises RawDataError: `no_picture` if there is none, and `frame_count_mismatch` unless the images
    of `n_labels` frames are numbered from 0 or from 1.
    """
    sources: list[Pictures | Video] = []
    for folder in folders:
        pictures = picture_pattern(raw, folder)
        if pictures is not None:
            sources.append(pictures)
    sources += [Video(raw, video.as_posix()) for video in _existing_files(raw, videos)]
    if not sources:
        paths = " or ".join(path.as_posix() for path in (*folders, *videos))
        expected = f"numbered jpg or png files, or a video: {paths}"
        do = "Extract the images, or unpack the videos."
        path = raw / folders[0] if folders else raw
        raise RawDataError(path, "pictures", expected, "neither", do, reason="no_picture")

    used, *unused = [source.place.relative_to(raw).as_posix() for source in sources]
    account.notes.extend(f"{path} is not used: {used} is" for path in unused)
    source = sources[0]
    return number_from_0_or_1(source, n_labels) if isinstance(source, Pictures) else source


def frames_there(
    source: Pictures | Video, n_labels: int, account: VideoAccount, *, spare: int | None = None
) -> Bools:
    """Whether each labelled frame has an image, (n_labels,).

    For a video, these are the frames before its end, including damaged ones, which `lost_frames`
    tells. Notes how many frames or labels are left over; the reader counts them.

    Args:
        spare: Number of images that the release may have after the labelled ones; None: unknown.

    Raises:
        RawDataError: `no_picture`: there is no image. `frame_count_mismatch`: the frames seem to
            have another rate or other numbers than the labels, or the video's header states
            labelled frames that do not decode.
    """
    if isinstance(source, Pictures):
        indices = source.indices()
    else:
        indices = np.arange(source.count_frames())
        if len(indices) < n_labels and _count_not_shown(source):
            refuse(_not_shown_mismatch(source.place, source, f"{n_labels} labels"))
        if len(indices):
            _note_hidden(source, account)
            account.notes.extend(source.record().remarks())

    n_there = len(indices)
    n_beyond = int((indices >= n_labels).sum())
    has_picture: Bools = np.isin(np.arange(n_labels), indices)
    if not n_there:
        raise no_pictures(source.place, f"{n_labels} images", "Unpack the images again.")
    require_rate(source, n_labels)
    if isinstance(source, Pictures):
        require_numbers(source, 0, n_labels - 1, spare=spare)
    if n_beyond:
        account.note(
            f"{n_labels} frames are labelled, {n_there} are there: the last {n_beyond} not used"
        )
    if not has_picture.all():
        n_absent = int((~has_picture).sum())
        first = int(np.argmin(has_picture))
        name = f"frame {first}"
        if isinstance(source, Pictures):
            name = source.path(first).name
        account.note(
            f"{n_absent} of {n_labels} labelled frames have no picture, the first is {name}"
        )
    return has_picture


def lost_frames(source: Pictures | Video, n_labels: int) -> Bools:
    """Whether each labelled frame of a video is damaged, (n_labels,). False for images."""
    lost = source.record().lost if isinstance(source, Video) else ()
    return np.isin(np.arange(n_labels), [*lost])


def no_pictures(folder: Path, expected: str, do: str) -> RawDataError:
    """The error for a folder without the expected images; it names a file that is there instead."""
    visible = sorted(name for name in scan_names(folder) if not is_litter(name))
    actual = "none"
    if visible:
        actual = f"none, but {len(visible):,} files of other names, such as {visible[0]}"
    return RawDataError(folder, "pictures", expected, actual, do, reason="no_picture")


def require_size(
    source: Pictures | Video,
    size: tuple[float, float] | Doubles | None,
    labels: Path,
    do: str,
    intrinsics: Floats | None = None,
    tolerance: float = 0,
) -> None:
    """Refuse frames that differ in size from what their labels state (`other_picture_size`).

    Args:
        size: Width and height px that the labels state; None if they do not.
        do: Advice for the message.
        intrinsics: Camera matrix (3, 3) px; refused if its principal point is far from the image's
            centre.
        tolerance: Accepted difference, as a share of `size`.
    """
    actual = _size(source)
    if actual is None:
        return

    found = f"{actual[0]} x {actual[1]}"
    file = source.place
    key = "size"
    if size is not None and (np.abs(np.subtract(actual, size)) > tolerance * np.abs(size)).any():
        expected = f"{size[0]:.10g} x {size[1]:.10g} px, as in {labels.name}"
    elif intrinsics is not None and (np.abs(intrinsics[:2, 2] / actual - 0.5) > OFF_CENTRE).any():
        file = labels
        key = "intrinsics"
        expected = f"a principal point near the centre of images of {found} px"
        point = ", ".join(f"{value:.10g}" for value in intrinsics[:2, 2])
        found = f"a camera with one at ({point})"
    else:
        return
    refuse(RawDataError(file, key, expected, found, do, reason="other_picture_size"))


def require_released_size(
    source: Pictures | Video, size: tuple[int, int], labels: Path, tolerance: float = 0
) -> None:
    """Refuse frames of another size than the release's, in whose pixels the `labels` are, as
    `require_size` does. Demo data have sizes of their own.
    """
    if not is_demo_data(source.root):
        require_size(source, size, labels, SAME_SIZE, tolerance=tolerance)


def _size(source: Pictures | Video) -> tuple[int, int] | None:
    try:
        return source.size()
    except RawDataError:  # conversion rejects a video without a readable image
        return None


def require_frames(
    labels: Path,
    source: Pictures | Video,
    frames: Ints,
    account: VideoAccount,
    *,
    every: bool = False,
) -> None:
    """Refuse labels whose frame numbers do not fit the decoded frames (`frame_count_mismatch`).

    Args:
        labels: The labels' file or folder, for messages.
        frames: Numbers of labelled frames, ascending, counted from 0.
        account: Gets a note about labels of every second frame, of few frames, or without frame 0.
        every: Labels must reach the end of the video, except for the last `MOST_LOST` frames.
    """
    if not len(frames):
        return

    n_decoded = source.count_frames()
    last = frames[-1]
    _note_labelled_part(frames, n_decoded, account)
    error = _find_mismatch(labels, source, frames, every=every)
    if error is not None:
        refuse(error)
    elif frames[0] == 1 and len(frames) == last:
        account.note(
            f"labels of the frames 1 to {last}, of {n_decoded}: if they are counted from 1, "
            "correct that"
        )
    if isinstance(source, Video) and n_decoded:
        _note_hidden(source, account)


def _find_mismatch(
    labels: Path, source: Pictures | Video, frames: Ints, *, every: bool
) -> RawDataError | None:
    """The error of `require_frames`, with the likeliest cause; None if the frame numbers fit."""
    n_decoded = source.count_frames()
    first = frames[0]
    last = frames[-1]
    if last == n_decoded and first > 0:
        expected = f"frames 0 to {n_decoded - 1}, which {source.place} has"
        actual = f"frames {first} to {last}, counted from 1"
        return frame_mismatch(labels, expected, actual, FROM_0)

    actual = f"labels up to frame {last}"
    ends_too_late = last >= n_decoded
    if ends_too_late and isinstance(source, Video):
        if last < n_decoded + _count_not_shown(source):
            return _not_shown_mismatch(labels, source, actual)
    if ends_too_late and 0 < last - first < n_decoded:
        actual = f"frames {first} to {last}: counted from {first}, or another video's"
        return frame_mismatch(labels, f"frames 0 to {n_decoded - 1}", actual, FROM_0)
    ends_too_early = every and last + 1 < n_decoded - MOST_LOST
    if ends_too_late or ends_too_early:
        expected = f"labels of the {n_decoded} frames of {source.place}"
        do = f"{SAME_VIDEO} A number at the end of an image's name is its frame, not a time."
        return frame_mismatch(labels, expected, actual, do)
    return None


def _note_labelled_part(frames: Ints, n_decoded: int, account: VideoAccount) -> None:
    """Note labels of one frame in n, of one stretch, or of at most half of a stretch's frames."""
    n_labelled = len(frames)
    first = int(frames[0])
    last = int(frames[-1])
    n_spanned = last + 1 - first
    steps, counts = np.unique(np.diff(frames), return_counts=True)
    if n_labelled >= MIN_LABELLED and steps[0] > 1 and counts[0] > n_labelled / 2:
        note = f"labels of one frame in {steps[0]}, from {first} to {last}"
    elif n_labelled == n_spanned and 4 * (last + 1) <= 3 * n_decoded:
        note = f"labels of the frames {first} to {last} alone, of {n_decoded}"
        rate = round(n_decoded / n_labelled)
        if abs(n_decoded / rate - n_labelled) <= 1:
            note += f", one in {rate}: are they of another frame rate?"
    elif 2 * n_labelled <= n_spanned:
        note = f"labels of {n_labelled} of the frames {first} to {last}: the others have none"
    else:
        return
    account.note(note)


def _count_not_shown(video: Video) -> int:
    """Number of frames that the header states but that decoding does not yield.

    These are frames that the edit list hides, and missing ones if more than MOST_LOST are missing.
    """
    if not video.count_frames():
        return 0
    record = video.record()
    if record.n_missing <= MOST_LOST:
        return record.n_hidden
    return record.n_hidden + record.n_missing


def _note_hidden(video: Video, account: VideoAccount) -> None:
    """Note frames that the video's edit list hides: labels may have been made with them."""
    record = video.record()
    if record.n_hidden:
        stored = record.n_frames + record.n_hidden
        account.note(
            f"the edit list hides {record.n_hidden} of {stored} frames: labels count those that "
            "are shown"
        )


def _not_shown_mismatch(labels: Path, video: Video, found: str) -> RawDataError:
    """The error for labels of frames that the header states but that decoding does not yield."""
    record = video.record()
    n_decoded = record.n_frames
    n_stated = n_decoded + _count_not_shown(video)
    cause = "its edit list hides the others" if record.n_hidden else "it is cut off or damaged"
    expected = f"labels of the {n_decoded} frames that decode of {video.place}"
    found += f", while the video's header states {n_stated} frames and {n_decoded} decode ({cause})"
    return frame_mismatch(labels, expected, found, CUT_AGAIN)


def require_source_pixels(
    labels: Path,
    keypoints: Floats,
    source: Pictures | Video,
    stated: tuple[float, float] | None = None,
) -> None:
    """`require_pixels` for the size of the source's images, unless the labels have `stated` this
    size, or no image can be read.
    """
    size = _size(source)
    if size is not None and size != stated:
        require_pixels(labels, keypoints, size, do=SAME_SIZE)


def require_visible(
    labels: Path, keypoints: Floats, pictures: Pictures, account: VideoAccount, reach: Doubles
) -> None:
    """Refuse joints (N, J, 3) that people have marked in images, as `require_pixels`, if over a
    fifth are far outside; note them if over 2 % are outside by more than RESIZED. Refuse images
    that end before `reach`, (2,) px, does (`other_picture_size`). For labels that state no size.
    """
    size = _size(pictures)
    points = keypoints[keypoints[..., 2] > 0][:, :2]
    if size is None or not len(points):
        return
    require_size(pictures, np.maximum(reach, size), labels, SAME_SIZE, tolerance=RESIZED)
    require_pixels(labels, keypoints, size, DETECTED_OUTSIDE, do=SAME_SIZE)
    share = far_outside(points, size, RESIZED).mean()
    if share > STRAY_JOINTS:
        account.note(
            f"{share:.0%} of the joints are far outside the {size[0]} x {size[1]} images: were "
            "they made smaller?"
        )
