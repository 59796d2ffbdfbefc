"""Reasons for which videos, tracks and frames are left out.  raw -> [tracks] -> features -> report

docs/datasets/ describes each reason per dataset; a test checks that the names agree.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Reason(NamedTuple):
    """Why a video, a track or a person-frame was left out."""

    meaning: str
    by_design: bool  # the reader's rules leave it out of sound data, too; otherwise something about the files is wrong


NOT_NOW: Final = "not_readable_now"  # the reason of a video that is read again by every run until it works

# Frames between those that are taken: nothing of a person is lost with them.
SAMPLED: Final = frozenset({"not_sampled", "resampled"})

_WHOLE_TRACK: Final = "all frames of the track were left out for other reasons, which count them"

REASONS: Final[dict[str, Reason]] = {
    "after_last_detection": Reason("the frame is after the last one in which the person can be seen", True),
    "bad_camera": Reason("the camera matrix in the label file is not a rotation", False),
    "bad_label_file": Reason("a label file cannot be read, or has unexpected content", False),
    "before_first_detection": Reason("the frame is before the first one in which the person can be seen", True),
    "degenerate_box": Reason("the person's box has no extent", False),
    "duplicate_person": Reason("the labels have one person twice in a frame", False),
    "face_only": Reason("too many frames show only the face and shoulders of the person", True),
    "frame_count_mismatch": Reason("the numbers of frames and labels differ, so the match is unknown", False),
    "huge_box": Reason("the person's box reaches far out of the image", False),
    "joint_outside_picture": Reason("a joint is outside the image", True),
    "keypoints_outside": Reason("most joints are outside the image: they are of another size or video", False),
    "label_not_finite": Reason("NaN, infinity or a huge number in the labels", False),
    "low_score": Reason("the score of the detection is too low", True),
    "name_not_utf8": Reason("the name of a file or folder is not UTF-8: rename it", False),
    "no_annotations": Reason("images without annotations", True),
    "no_box": Reason("the person has no box in the frame, or not yet, or no more", True),
    "no_detection": Reason("the person is not seen well enough in any frame", True),
    "no_frame_left": Reason(_WHOLE_TRACK, True),
    "no_keypoints": Reason("the video has no keypoint files: no detector was run on it", True),
    "no_label": Reason("there are images, but no label, or only one of two", False),
    "no_picture": Reason("there is a label, but the image is missing or cannot be read", False),
    "no_tfrecord": Reason("the file is not a TFRecord, but empty, compressed or a web page", False),
    "no_visible_joint": Reason("no joint of the person is visible", True),
    "not_sampled": Reason("the reader takes every second frame only", True),
    "not_good": Reason("the release marks the frame's labels as not good", True),
    "not_readable_now": Reason("permission denied, or the disk did not answer; the next run reads it again", False),
    "other_file_name": Reason("the image has another name pattern than the sequence", False),
    "other_picture_size": Reason("the images and the camera calibration differ in size", False),
    "other_unit": Reason("the labels are in another unit: mm, degrees, per cent, shares of the image", False),
    "path_outside": Reason("the labels name an image outside the dataset's folder", False),
    "reader_crashed": Reason("the process that read the video crashed", False),
    "reader_memory": Reason("reading the video needs more memory than a process may take", False),
    "reader_timeout": Reason("reading the video made no progress for longer than the time limit", False),
    "record_damaged": Reason("a record of the file is damaged, or the file ends early", False),
    "resampled": Reason("the frame is not among those at 25 fps, to which the motion was resampled", True),
    "too_few_visible_joints": Reason("fewer joints of the person are visible than the reader asks for", True),
    "track_too_short": Reason("too few frames are left of the person for training", True),
    "unexpected_error": Reason("the reader raised an unexpected exception, a bug of the reader", False),
    "unknown_joint_order": Reason("the joints are in no known joint order", False),
    "unsafe_pickle": Reason("reading the file could run code: it was not read", False),
    "video_missing": Reason("there are labels, but no video", False),
    "video_unreadable": Reason("the video cannot be opened or decoded", False),
}

UNKNOWN: Final = Reason("a reason of another package: see its documentation", False)


def reason(name: str) -> Reason:
    """The meaning of a reason; `UNKNOWN` for one of another package."""
    return REASONS.get(name, UNKNOWN)
