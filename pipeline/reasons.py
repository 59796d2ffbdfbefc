"""What each reason means under which something was left out.  raw -> [tracks] -> features -> report

The pages of docs/datasets/ describe what a reason means in each dataset; a test holds that they name the same reasons.
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

_WHOLE_TRACK: Final = "every frame of the track was left out for other reasons, under which they are counted"

REASONS: Final[dict[str, Reason]] = {
    "after_last_detection": Reason("the frame is after the last one in which the person can be seen", True),
    "bad_camera": Reason("the camera's rotation in the label file is none", False),
    "bad_label_file": Reason("a label file cannot be read, or holds something other than expected", False),
    "before_first_detection": Reason("the frame is before the first one in which the person can be seen", True),
    "degenerate_box": Reason("the person's box has no extent", False),
    "duplicate_person": Reason("the labels have one person twice in a frame", False),
    "face_only": Reason("too many frames show nothing of the person but face and shoulders", True),
    "frame_count_mismatch": Reason("there are more or fewer frames than labels: it is not known which fit", False),
    "huge_box": Reason("the person's box reaches absurdly far out of the picture", False),
    "joint_outside_picture": Reason("a joint is outside the picture", True),
    "keypoints_outside": Reason("most joints are outside the picture: they are of another size or video", False),
    "label_not_finite": Reason("NaN, infinity or an absurd number in the labels", False),
    "low_score": Reason("the detector is not sure of the person: its score is too low", True),
    "name_not_utf8": Reason("the name of a file or folder is no UTF-8: rename it", False),
    "no_annotations": Reason("pictures without annotations", True),
    "no_box": Reason("the person has no box in the frame, or not yet, or no more", True),
    "no_detection": Reason("the person is not seen well enough in any frame", True),
    "no_frame_left": Reason(_WHOLE_TRACK, True),
    "no_keypoints": Reason("the video has no keypoint files: no detector was run on it", True),
    "no_label": Reason("there are pictures, but no label, or only one of two", False),
    "no_picture": Reason("there is a label, but the picture is missing or cannot be read", False),
    "no_tfrecord": Reason("the file is no TFRecord: empty, compressed, a web page", False),
    "no_visible_joint": Reason("no joint of the person is visible, or the detector finds no joints", True),
    "not_sampled": Reason("the reader takes every second frame only", True),
    "not_good": Reason("the release marks the frame's labels as not good", True),
    "not_readable_now": Reason("permission denied, or its disk did not answer: read again by the next run", False),
    "other_file_name": Reason("the picture is not called like the sequence's other ones", False),
    "other_picture_size": Reason("the pictures have another size than in the camera's calibration", False),
    "other_unit": Reason("the labels are in another unit: mm, degrees, per cent, shares of the picture", False),
    "path_outside": Reason("the labels name a picture outside the dataset's folder", False),
    "reader_crashed": Reason("the process that read the video crashed", False),
    "reader_memory": Reason("reading the video needs more memory than a process may take", False),
    "reader_timeout": Reason("reading the video made no progress for longer than the time limit", False),
    "record_damaged": Reason("a record of the file is damaged, or the file ends early", False),
    "resampled": Reason("the frame is not among those at 25 fps, to which the motion was resampled", True),
    "too_few_visible_joints": Reason("fewer joints of the person are visible than the reader asks for", True),
    "track_too_short": Reason("too few frames are left of the person for training", True),
    "unexpected_error": Reason("the reader raised an exception that it should not: a defect of the reader", False),
    "unknown_joint_order": Reason("the joints are in no known joint order", False),
    "unsafe_pickle": Reason("reading the file could run code: it was not read", False),
    "video_missing": Reason("there are labels, but no video", False),
    "video_unreadable": Reason("the video cannot be opened or decoded", False),
}

UNKNOWN: Final = Reason("of a reader from another package: see its documentation", False)


def reason(name: str) -> Reason:
    """What it means; `UNKNOWN` for one of a reader from elsewhere."""
    return REASONS.get(name, UNKNOWN)
