"""Links to single clips and their keypoints, in a raw folder beside the cache.  clips -> [raw]"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Final

import cache
from pipeline.clips.files import KEYPOINTS
from pipeline.clips.labels.label_files import ClipLabels, own_labels
from pipeline.clips.listing import ENDINGS, visible_entries
from pipeline.errors import ConfigError
from pipeline.files.raw import MARKER, is_demo_data
from pipeline.files.raw.files import VIDEOS

# ending of the folder of links to single clips: CACHE-clips; for a cache in a bucket: OUT/clips
CLIPS: Final = "clips"


def clips_folder(named: Path, root: cache.Root, out: Path) -> Path:
    """The raw folder of clips: `named`, or for a single clip the cache's folder of links.

    Links the clip and its keypoints there beside those of earlier commands, so that one cache holds
    all of them. A clip takes the place of an earlier one of its name, keypoints included:

        CACHE-clips/a.mp4                     link to the clip
        CACHE-clips/keypoints/a.mp4.json      link to its keypoints in a file, or
        CACHE-clips/keypoints/a.mp4           link to its keypoints in a folder
        CACHE-clips/keypoints/.a.mp4.json     copy of keypoints in a ZIP file, which the link needs
        CACHE-clips/STAND_IN.json             copy of the marker, if this clip is demo data

    The link to keypoints has the clip's whole file name, which no other clip shares: keypoints of
    a.mp4 may be in a.json, and the link to them is a.mp4.json.

    Raises ConfigError for a file that is no clip, and for a file in the link's place; RawDataError
    for keypoints that may belong to another clip.
    """
    if named.is_dir():
        return named
    if not named.is_file() or named.suffix.lower() not in VIDEOS:
        actual = "another file" if named.is_file() else "no such file or folder"
        raise ConfigError(
            f"{named}: expected a clip ({ENDINGS}) or a folder of clips, found {actual}"
        )

    raw = out / CLIPS  # for a cache in a bucket
    folder = cache.local_folder(root)
    if folder is not None:
        raw = folder.with_name(f"{folder.name}-{CLIPS}")
    clip = named.absolute()
    if clip.parent.resolve() == raw.resolve():  # a link of an earlier command
        return raw

    keypoints = raw / KEYPOINTS
    keypoints.mkdir(parents=True, exist_ok=True)
    links = {raw / clip.name: clip}  # link -> target
    labels = _find_labels(clip)
    if labels is not None:
        name = clip.name
        if not labels.is_dir():
            name += labels.suffix
        links[keypoints / name] = labels

    _require_no_files(links)
    _remove_label_links(clip.name, keypoints)
    for link, target in links.items():
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    _copy_demo_marker(clip, raw)
    return raw


def _find_labels(clip: Path) -> Path | None:
    """Find the file or folder of a clip's keypoints, in the folder `keypoints` beside the clip.

    Raises RawDataError for keypoints that may belong to another clip.
    """
    folder = clip.parent
    names = [entry.name for entry in visible_entries(folder)]
    siblings = [name for name in names if name.lower().endswith(VIDEOS)]
    video = ClipLabels(folder, siblings).video(clip.name)
    return own_labels(folder, video.raw_video())


def _remove_label_links(clip_name: str, keypoints: Path) -> None:
    """Remove links to the labels of an earlier clip of this name."""
    for entry in [*visible_entries(keypoints)]:
        if clip_name in (entry.name, PurePath(entry.name).stem) and entry.is_symlink():
            Path(entry).unlink()


def _require_no_files(links: Mapping[Path, Path]) -> None:
    """Raise ConfigError for a file in a link's place. links: link -> target."""
    for link, target in links.items():
        if link.exists() and not link.is_symlink():
            raise ConfigError(
                f"{link}: expected a link to {target}, found a file. Move the file away."
            )


def _copy_demo_marker(clip: Path, raw: Path) -> None:
    """Mark `raw` as demo data if the clip is in a folder of demo data; else remove the mark."""
    (raw / MARKER).unlink(missing_ok=True)
    for folder in clip.parents:
        if is_demo_data(folder):
            shutil.copyfile(folder / MARKER, raw / MARKER)
            break
