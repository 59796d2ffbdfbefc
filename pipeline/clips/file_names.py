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

PACKED: Final = (".zip", ".gz", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".rar")
_SUFFIXES: Final = (*SUFFIXES, *UNREAD, *PACKED, *VIDEOS, ".part", ".crdownload", ".tmp", ".bak")
_ADDED: Final = re.compile(  # endings that programs and browsers add to a clip's name
    rf"({'|'.join(map(re.escape, _SUFFIXES))}|_keypoints|[ _]?\(\d+\)| - copy)+$"
)
NAMES_OF_ALL: Final = frozenset(  # usual names of one file with the people of all clips
    (
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
)


def plain(name: str) -> str:
    """Reduce a name to small letters and digits, without endings that programs add.

    >>> plain("My clip (1).JSON"), plain("my_clip_keypoints.json.gz")
    ('myclip', 'myclip')
    """
    return re.sub(r"[\W_]", "", _ADDED.sub("", _to_nfc(name).casefold()))


def require_own_name(keypoints: Path, video: RawVideo, labels: Path, clip: str) -> None:
    """Raise RawDataError unless `labels` have a name and a folder of the clip's own labels.

    Labels that `ClipLabels.find_similar` found do not; the error says what differs.

    Args:
        keypoints: The folder `keypoints` in the raw folder.
        video: The clip.
        labels: The file or folder of its labels.
        clip: The clip's file name.
    """
    names = (clip, clip.rpartition(".")[0] or clip)
    is_a_folder = labels.is_dir()
    own_names = list(names)
    if not is_a_folder:
        for name in names:
            own_names += [f"{name}{suffix}" for suffix in (*SUFFIXES, *UNREAD)]
    # a clip's labels may lie in the folders of its path; in `keypoints` itself if it has none
    *folders, top = (keypoints / parent for parent in PurePath(video.name).parents)
    is_in_place = labels.parent in (folders or [top])
    if labels.name in own_names and is_in_place:
        return
    place = PurePath(keypoints.name, video.name).parent
    expected = (
        f"{clip}.json or {names[1]}.json (.txt, .csv; or a folder {clip}/ or {names[1]}/) "
        f"in {place}/"
    )
    do = "Rename it."
    if plain(labels.name) != plain(names[1]):
        found = "a name of no clip"
        do = "Write a file for each clip, named as the clip."
    elif labels.name.casefold().endswith(PACKED):
        found = "a packed file"
        do = "Unpack it."
    elif not is_in_place:
        found = "one in another folder"
        do = f"Move it to {place}/."
    elif is_a_folder:
        found = "a folder of another name"
    elif _to_nfc(labels.name) in map(_to_nfc, own_names):
        found = "the same letters in another Unicode form"
        do = "Rename it, for example with convmv --nfc or --nfd."
    elif labels.name.casefold() in [name.casefold() for name in own_names]:
        found = "other capitals"
    else:
        found = "another name"
    raise RawDataError(labels, "name", expected, found, do)


def _to_nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
