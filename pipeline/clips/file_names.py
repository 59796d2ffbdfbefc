"""Names of keypoint files that resemble a clip's name but do not match it.  [pixels] -> raw
keypoints -> tracks

They are probably the clip's labels under a wrong name, so conversion refuses them with advice.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePath
from typing import Final

from pipeline.errors import RawDataError
from pipeline.files.formats.people.detections import SUFFIXES, UNREAD
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import VIDEOS

_PACKED: Final = (".zip", ".gz", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".rar")
_SUFFIXES: Final = (*SUFFIXES, *UNREAD, *_PACKED, *VIDEOS, ".part", ".crdownload", ".tmp", ".bak")
_ADDED: Final = re.compile(  # endings that programs and browsers add to a clip's name
    rf"({'|'.join(map(re.escape, _SUFFIXES))}|_keypoints|[ _]?\(\d+\)| - copy)+$"
)
# usual names of one file with the people of all clips
NAMES_OF_ALL: Final = (
    "all",
    "annotations",
    "detections",
    "keypoints",
    "labels",
    "output",
    "poses",
    "predictions",
    "results",
)


def plain(name: str) -> str:
    """Reduce a name to small letters and digits, without endings that programs add.

    >>> plain("My clip (1).JSON"), plain("my_clip_keypoints.json.gz")
    ('myclip', 'myclip')
    """
    return re.sub(r"[\W_]", "", _ADDED.sub("", _to_nfc(name).casefold()))


def require_own_name(keypoints: Path, video: RawVideo, labels: Path, clip: str) -> None:
    """Raise RawDataError unless `labels` have a name and a folder of the clip's own labels.

    Labels that `ClipLabels.find_similar` found do not.

    Args:
        keypoints: The folder `keypoints` in the raw folder.
        video: The clip.
        labels: The file or folder of its labels.
        clip: The clip's file name.
    """
    stem = clip.rpartition(".")[0] or clip
    own_names = [clip, stem]
    if not labels.is_dir():
        own_names = [name + suffix for name in own_names for suffix in (*SUFFIXES, *UNREAD)]
    # a clip's labels may lie in the folders of its path; in `keypoints` itself if it has none
    *folders, top = (keypoints / parent for parent in PurePath(video.name).parents)
    if labels.name not in own_names or labels.parent not in (folders or [top]):
        place = PurePath(keypoints.name, video.name).parent
        raise _other_name(labels, clip, stem, place)


def _other_name(labels: Path, clip: str, stem: str, place: PurePath) -> RawDataError:
    """The error for labels that seem to be the clip's. place: folder for the clip's labels."""
    expected = (
        f"{clip}.json or {stem}.json (.txt, .csv; or a folder {clip}/ or {stem}/) in {place}/"
    )
    do = (
        f"Rename it or move it to {place}/. Unpack a packed file; of one for several clips, write "
        "a file for each clip."
    )
    return RawDataError(labels, "name", expected, "another name or folder", do)


def _to_nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
