"""Some tracks as a recording for Rerun's viewer: images, joints, bodies, cameras.  tracks -> [.rrd]

    <video>/camera                           the camera's pose in the world, if known
    <video>/camera/image                     the camera's intrinsics, and each frame as JPEG
    <video>/camera/image/<person>/box, joints
    <video>/camera/<person>/body             the labelled body in camera axes, if it has a
                                             translation
    <video>/pelvis/<person>/joints           3D joints relative to the pelvis
    <video>/crops/<person>                   input of the networks

Motion without images has its body at <video>/<person>/body, in the motion's axes. See
docs/exports.md.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import rerun as rr
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as validated

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.crops import crop_person
from pipeline.errors import PipelineError
from pipeline.exchange.formats import Exported, require_new_file
from pipeline.files.pixels.frames import Frame, Image
from pipeline.show.bodies import LabelledBodies, intrinsics_of
from pipeline.show.drawing import NAMES, SIDE_COLOURS, SIDES, rgb
from pipeline.show.shown import Choice, ShownTrack
from pipeline.show.tracks import from_cache
from pipeline.skeletons import bones

Array = NDArray[Any]

PERSON: Final = 0  # class of the annotations
JPEG_QUALITY: Final = 85
UP: Final = {  # axis of the world and its sign -> the viewer's axes
    (1, 1): rr.ViewCoordinates.RIGHT_HAND_Y_UP,
    (1, -1): rr.ViewCoordinates.RIGHT_HAND_Y_DOWN,
    (2, 1): rr.ViewCoordinates.RIGHT_HAND_Z_UP,
    (2, -1): rr.ViewCoordinates.RIGHT_HAND_Z_DOWN,
}


@validated(frozen=True, config={"extra": "forbid"})
class RecordingOptions:
    """Options of `export --format rerun`, set by `--set NAME=VALUE`."""

    video: str = ""  # export all tracks of this video
    tracks: int = Field(default=3, ge=1)  # else this many, spread over the split
    every: int = Field(default=1, ge=1)  # export every n-th row of each track
    pictures: bool = True  # export images and crops
    raw: str = ""  # the dataset's raw folder; "": as recorded at conversion
    body: str = ""  # folder of SMPL's files; "": no bodies


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    stream: str = "",  # noqa: ARG001  part of every format's signature
    replace: bool = False,
    progress: Progress = silent,
    options: RecordingOptions = RecordingOptions(),  # noqa: B008  it is frozen
) -> Exported:
    """Write some tracks of the split `name` in the cache `root` to the file `out`. Ignores
    `stream`.

    Raises what `show.from_cache` raises, and PipelineError if `out` is a folder, or exists and
    `replace` is False.
    """
    if out.is_dir():
        raise PipelineError(
            f"--out {out}: is a folder. Name a file in it, such as {name.replace('/', '_')}.rrd."
        )
    require_new_file(out, replace=replace)
    choice = Choice(options.tracks, video=options.video, frames=sys.maxsize)
    raw = None
    if options.raw:
        raw = Path(options.raw)
    body = None
    if options.body:
        body = Path(options.body)
    shown = from_cache(root, name, choice, raw=raw, body=body)
    part = out.with_name(f".{out.name}.part")
    n_done = 0
    n_missing = 0
    total = sum(len(track.rows["frame_index"][:: options.every]) for track in shown.tracks)
    part.unlink(missing_ok=True)
    recording = rr.RecordingStream("vibe-pipeline")
    try:
        recording.save(part)
        title = f"{name} (DEMO DATA)" if shown.stand_in else name
        if "estimates" in shown.reader.get("imported", {}):
            title += " (estimates)"
        recording.send_recording_name(title)
        bodies = None
        if body is not None:
            bodies = LabelledBodies(body)
        for video in sorted({track.record.video for track in shown.tracks}):
            tracks = [track for track in shown.tracks if track.record.video == video]
            for n_rows, is_missing in _video_frames(recording, video, tracks, bodies, options):
                n_done += n_rows
                n_missing += is_missing
                progress(n_done, total, video)
        recording.flush()
        recording.disconnect()
        part.replace(out)
    finally:
        recording.disconnect()
        part.unlink(missing_ok=True)
    summary = f"{count(n_done, 'row')} of {count(len(shown.tracks), 'track')}"
    absent = {}
    if n_missing:
        frames = count(n_missing, "frame")
        absent["images"] = f"{frames} cannot be read from the raw folder {shown.raw}"
    if body is None and any("pose" in track.rows for track in shown.tracks):
        absent["bodies"] = "name the folder of SMPL's files: --body DIR"
    return Exported(out, n_done, summary, absent, {}, shown.stand_in)


def _video_frames(
    recording: rr.RecordingStream,
    video: str,
    tracks: list[ShownTrack],
    bodies: LabelledBodies | None,
    options: RecordingOptions,
) -> Iterator[tuple[int, bool]]:
    """Log one video. Yields for each frame its number of rows, and whether its image is missing."""
    log = _logger(recording, video)
    fps = tracks[0].record.fps
    present_at: dict[int, list[tuple[int, int]]] = {}  # frame -> number of a track, and its row
    for number, track in enumerate(tracks):
        for row in range(0, track.n_frames, options.every):
            index = int(track.rows["frame_index"][row])
            present_at.setdefault(index, []).append((number, row))
    _log_static(log, tracks, bodies)
    indices = sorted(present_at)
    frames: Iterable[Frame] = [Frame(index, None, None) for index in indices]
    source = tracks[0].source
    if options.pictures and source is not None:
        frames = source.read(indices)

    shown: list[int] = []  # in the previous frame
    for frame in frames:
        recording.set_time("frame", sequence=frame.index)
        if math.isfinite(fps):
            recording.set_time("time", duration=frame.index / fps)
        present = dict(present_at[frame.index])
        if frame.image is not None:
            log("camera/image", _jpeg(frame.image))
        number, row = present_at[frame.index][0]
        _log_camera(log, tracks[number], row)
        for number in shown:
            if number not in present:
                _clear(log, tracks[number])
        for number, row in present.items():
            _log_person(log, tracks[number], row, frame.image, bodies)
        shown = [*present]
        yield len(present), frame.problem is not None
    recording.reset_time()


def _logger(recording: rr.RecordingStream, video: str) -> Any:
    """Return a function (path below the video's entity, *content, static=False) -> None."""
    parts = [part for part in video.split("/") if part]

    def log(path: str, *content: Any, static: bool = False) -> None:
        below = [part for part in path.split("/") if part]
        recording.log(rr.new_entity_path([*parts, *below]), *content, static=static)

    return log


def _log_static(log: Any, tracks: list[ShownTrack], bodies: LabelledBodies | None) -> None:
    """Log data common to all frames: joint names and sides, bones, world axes, body faces."""
    colours = [rgb(SIDE_COLOURS[side]) for side in SIDES]
    joints = []
    for joint, (name, colour) in enumerate(zip(NAMES, colours, strict=True)):
        joints.append(rr.AnnotationInfo(id=joint, label=name, color=colour))
    person = rr.AnnotationInfo(id=PERSON, label="person")
    description = rr.ClassDescription(
        info=person, keypoint_annotations=joints, keypoint_connections=bones("spin49")
    )
    log("", rr.AnnotationContext([description]), static=True)
    world = rr.ViewCoordinates.RIGHT_HAND_Z_UP
    if "bbox" in tracks[0].rows:
        world = rr.ViewCoordinates.RDF
    up = tracks[0].record.extra.get("up")
    if up is not None and np.isfinite(up).all():
        axis = int(np.abs(up).argmax())
        world = UP.get((axis, int(np.sign(up[axis]))), world)
    log("", world, static=True)
    if bodies is not None:
        faces = rr.Mesh3D.from_fields(triangle_indices=bodies.faces)
        for track in tracks:
            log(_body_path(track), faces, static=True)


def _log_camera(log: Any, track: ShownTrack, row: int) -> None:
    """Log the camera's intrinsics, and its pose as the inverse of `extrinsics`."""
    intrinsics = intrinsics_of(track, row)
    extrinsics = track.rows.get("extrinsics")
    if extrinsics is not None and np.isfinite(extrinsics[row]).all():
        rotation = extrinsics[row][:3, :3].T
        shift = extrinsics[row][:3, 3]
        log("camera", rr.Transform3D(mat3x3=rotation, translation=-rotation @ shift))
    source = track.source
    has_images = source is not None and source.place.exists()
    if intrinsics is not None and source is not None and has_images:
        pinhole = rr.Pinhole(image_from_camera=intrinsics, resolution=source.size())
        log("camera/image", pinhole)


def _log_person(
    log: Any, track: ShownTrack, row: int, image: Image | None, bodies: LabelledBodies | None
) -> None:
    """Log one person in one frame."""
    rows = track.rows
    person = _person(track)
    if "bbox" in rows:
        box = rows["bbox"][row]
        boxes = rr.Boxes2D(centers=[box[:2]], sizes=[box[2:]], labels=[person])
        log(f"camera/image/{person}/box", boxes)
        if image is not None:
            with suppress(ValueError):  # a box without a valid crop
                log(f"crops/{person}", _jpeg(crop_person(image, box, track.record.crop_scale)))
    if "kp_2d" in rows:
        visible = np.flatnonzero(rows["kp_2d"][row, :, 2] > 0)
        joints = rows["kp_2d"][row, visible, :2]
        points_2d = rr.Points2D(joints, class_ids=PERSON, keypoint_ids=visible)
        log(f"camera/image/{person}/joints", points_2d)
    if "kp_3d" in rows and ("has_3d" not in rows or rows["has_3d"][row] == 1):
        labelled = np.flatnonzero(rows["kp_3d"][row, :, 3] > 0)
        joints = rows["kp_3d"][row, labelled, :3]
        points_3d = rr.Points3D(joints, class_ids=PERSON, keypoint_ids=labelled)
        log(f"pelvis/{person}/joints", points_3d)
    if bodies is not None:
        posed = bodies.pose(track, row)
        if posed is not None and "trans" in rows and np.isfinite(rows["trans"][row]).all():
            vertices = posed.verts + rows["trans"][row]
            log(_body_path(track), rr.Mesh3D.from_fields(vertex_positions=vertices))


def _clear(log: Any, track: ShownTrack) -> None:
    """Stop showing a person from this frame on."""
    person = _person(track)
    paths = [f"camera/image/{person}", f"crops/{person}", f"pelvis/{person}", _body_path(track)]
    for path in paths:
        log(path, rr.Clear(recursive=True))


def _person(track: ShownTrack) -> str:
    return track.record.name.removeprefix(f"{track.record.video}/").replace("/", "_")


def _body_path(track: ShownTrack) -> str:
    path = f"{_person(track)}/body"
    return f"camera/{path}" if "bbox" in track.rows else path


def _jpeg(image: Image) -> rr.EncodedImage:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
    return rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg")
