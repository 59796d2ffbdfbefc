"""Write, rename and pack keypoint files.  pixels -> [raw keypoints] -> tracks

`pipeline.clips.files` describes their format, and the PACK, a ZIP file with the keypoint files of
all clips of one folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from cache.storage.durable import make_folder, publish, sync_folder, temporary_file, write_synced
from pipeline.clips.detectors import People
from pipeline.clips.files import (
    END,
    MADE_BY,
    ClipFiles,
    detected_file,
    is_whole,
    list_clips,
    read_info,
)
from pipeline.files.raw.files import open_regular, read_regular
from pipeline.files.raw.pack import LARGEST, PACK, is_packed, pack_index
from pipeline.skeletons import bones, joint_names

SEEN: Final = 0.3  # least confidence of a joint that COCO's visibility calls visible (2)
# a folder with this many files is packed; a class of Kinetics-400 has 250 to 1,000 clips
MANY: Final = 200
PLACES: Final = 2  # decimals of px


def open_people(files: ClipFiles) -> IO[bytes]:
    """Open a temporary file, for the `people_text` of a clip's frames in order."""
    make_folder(files.out)
    return tempfile.TemporaryFile(dir=files.out)


def write_clip(
    files: ClipFiles,
    info: dict[str, Any],
    frames: Sequence[int],
    camera: Mapping[int, Sequence[float]],
    people: IO[bytes],
) -> None:
    """Write a clip's keypoint file, and delete the record of an earlier failure.

    Args:
        frames: Numbers of the decoded frames.
        camera: Frame -> the camera's motion from the frame before.
        people: File with the `people_text` of all frames.
    """
    _write(files, _clip_text(files, info, frames, camera, people))
    files.failed.unlink(missing_ok=True)


def rename_clip(files: ClipFiles, before: ClipFiles) -> None:
    """Move a clip's keypoint file from its earlier name; the bytes are as if it was computed again.

    before: the files of the clip under its earlier name.
    """
    earlier = detected_file(before.out, before.clip)
    assert earlier is not None
    info = read_info(earlier) | {"fingerprint": files.fingerprint, "clip": files.clip}
    _write(files, _renamed_text(earlier, before.clip, files.clip, info))
    before.file.unlink(missing_ok=True)  # if it is in a PACK, `pack_folder` removes it


def folders_to_pack(out: Path, renamed: Collection[Path]) -> dict[Path, list[Path]]:
    """Return the folders below `out` to pack, each with its keypoint files that are not packed.

    These are folders with at least MANY such files, and folders whose PACK has a file in `renamed`
    (the earlier files of renamed clips).
    """
    folders = defaultdict[Path, list[Path]](list)
    for path in list_clips(out, ".json"):
        file = out / path
        folders[file.parent].append(file)
    to_pack = {
        folder: files
        for folder, files in folders.items()
        if len(files) >= MANY and os.access(folder, os.W_OK)
    }
    for file in renamed:
        if is_packed(file.parent / PACK / file.name):
            to_pack[file.parent] = folders[file.parent]
    return to_pack


def pack_folder(folder: Path, files: Iterable[Path], renamed: Collection[Path]) -> int:
    """Move the complete files of `detect` in `files` into the folder's PACK; returns their number.

    A file replaces a packed one of its name. Packed files in `renamed` are removed. If the process
    is killed, a file may be in both places; then the one beside the PACK is used. A PACK of another
    program is left as it is. Raises OSError for a damaged PACK.
    """
    packed = {name: entry.comment for name, entry in pack_index(folder / PACK).items()}
    is_by_detect = all(packed.values())
    n_packed = len(packed)
    for file in renamed:
        if file.parent == folder:
            packed.pop(file.name, None)
    added = {file.name: _fingerprint_of(file) for file in files}
    added = {name: comment for name, comment in added.items() if comment}
    is_same = not added and len(packed) == n_packed
    if is_same or not is_by_detect:
        return 0
    with tempfile.TemporaryFile(dir=folder) as stream:
        with zipfile.ZipFile(stream, "w") as pack:
            for name, comment in sorted((packed | added).items()):
                entry = zipfile.ZipInfo(name)  # without times: the same files give the same bytes
                entry.comment = comment
                entry.compress_type = zipfile.ZIP_DEFLATED
                file = folder / PACK / name
                if name in added:
                    file = folder / name
                pack.writestr(entry, read_regular(file), compresslevel=1)
        stream.seek(0)
        temporary = temporary_file(folder / PACK, shared=True)
        write_synced(temporary, iter(functools.partial(stream.read, 1 << 20), b""))
    publish(temporary, folder / PACK)
    for name in added:
        (folder / name).unlink()
    sync_folder(folder)
    return len(added)


def _fingerprint_of(file: Path) -> bytes:
    """The fingerprint of a complete file of `detect`; empty for other files and too large ones."""
    info = read_info(file)
    if info.get("description") != MADE_BY or not is_whole(file) or file.stat().st_size > LARGEST:
        return b""
    return str(info.get("fingerprint", "")).encode()


def people_text(frame: int, people: People, n_before: int) -> bytes:
    """JSON text of a frame's people, with a comma before each. Ids begin at `n_before` + 1."""
    text = b""
    for number, (box, score, joints) in enumerate(zip(*people, strict=True), n_before + 1):
        corner = box[:2].astype(np.float64)
        side = (box[2:] - box[:2]).astype(np.float64)
        confidence = joints[:, 2].astype(np.float64)
        is_marked = joints[:, 2] > 0
        triples = np.zeros((len(joints), 3))
        triples[is_marked, :2] = np.round(joints[is_marked, :2].astype(np.float64), PLACES)
        triples[is_marked, 2] = 1
        triples[joints[:, 2] >= SEEN, 2] = 2
        keypoints: list[float] = []
        for x, y, visible in triples.tolist():
            keypoints += (x, y, int(visible))
        annotation = {
            "id": number,
            "image_id": frame + 1,
            "category_id": 1,
            "bbox": np.round([*corner, *side], PLACES).tolist(),
            "area": round(float(side.prod()), PLACES),
            "iscrowd": 0,
            "score": round(float(score), 4),
            "num_keypoints": int(is_marked.sum()),
            "keypoints": keypoints,
            "keypoint_scores": np.round(confidence, 4).tolist(),
        }
        text += b",\n" + json.dumps(annotation, separators=(",", ":")).encode()
    return text


def _write(files: ClipFiles, text: Iterator[bytes]) -> None:
    make_folder(files.file.parent)
    name = hashlib.sha256(files.clip.encode()).hexdigest()[:16]  # clips' names may be long
    temporary = temporary_file(files.file.with_name(name), shared=True)
    write_synced(temporary, text)
    publish(temporary, files.file)


def _clip_text(
    files: ClipFiles,
    info: dict[str, Any],
    frames: Sequence[int],
    camera: Mapping[int, Sequence[float]],
    people: IO[bytes],
) -> Iterator[bytes]:
    yield _first_line({"description": MADE_BY, "fingerprint": files.fingerprint} | info)
    yield b'"images": ['
    comma = b""
    for t in frames:
        image = {
            "id": t + 1,  # COCO's begin with 1
            "frame_index": t,
            "file_name": f"{files.clip}/{t:09d}.jpg",
            "width": info["width"],
            "height": info["height"],
        }
        if t in camera:
            image["camera"] = camera[t]
        yield comma + b"\n" + json.dumps(image).encode()
        comma = b","
    yield b'\n],\n"annotations": ['
    people.seek(0)
    people.read(1)  # the first comma
    while text := people.read(1 << 20):
        yield text
    yield b"\n],\n"
    person = {
        "id": 1,
        "name": "person",
        "keypoints": [_coco_name(joint) for joint in joint_names("coco")],
        "skeleton": [[a + 1, b + 1] for a, b in bones("coco")],
    }
    yield f'"categories": [{json.dumps(person)}'.encode() + END[1:]


def _coco_name(joint: str) -> str:
    """COCO's own name of a joint: leye -> left_eye."""
    if joint == "nose":
        return joint
    side = "left" if joint[0] == "l" else "right"
    return f"{side}_{joint[1:]}"


def _renamed_text(file: Path, before: str, clip: str, info: dict[str, Any]) -> Iterator[bytes]:
    """Yield a keypoint file's text with another `info`, and the clip's new name in image names."""
    old = _image_folder(before)
    new = _image_folder(clip)
    with open_regular(file) as stream:
        stream.readline()
        yield _first_line(info)
        for line in stream:
            yield line.replace(old, new, 1)


def _image_folder(clip: str) -> bytes:
    return json.dumps({"file_name": f"{clip}/"})[1:-2].encode()


def _first_line(info: dict[str, Any]) -> bytes:
    return f'{{"info": {json.dumps(info)},\n'.encode()
