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

`export` reads the tracks like a page of `show`, and records them video by video, frame by frame
(`_record_frame`): each frame is a list of `_LoggedEntity`s, which `_VideoLog` shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import rerun as rr
from pydantic import Field
from pydantic.dataclasses import dataclass as validated

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.extras.exchange.formats import Exported, require_new_file
from pipeline.files.pixels.frames import Frame, Image
from pipeline.files.places import write_aside
from pipeline.people.boxes import crop_person
from pipeline.people.skeletons import bones
from pipeline.show.bodies import LabelledBodies
from pipeline.show.drawing import NAMES, SIDE_COLOURS, SIDES, rgb
from pipeline.show.tracks import PageContent, Present, ShownTrack, from_cache, read_frames
from pipeline.show.video_file import encode_jpeg

PERSON: Final = 0  # class of the annotations
JPEG_QUALITY: Final = 85
_VIEW_AXES: Final = {  # axis of the world and its sign -> the viewer's axes
    (1, 1): rr.ViewCoordinates.RIGHT_HAND_Y_UP,
    (1, -1): rr.ViewCoordinates.RIGHT_HAND_Y_DOWN,
    (2, 1): rr.ViewCoordinates.RIGHT_HAND_Z_UP,
    (2, -1): rr.ViewCoordinates.RIGHT_HAND_Z_DOWN,
}


class _LoggedEntity(NamedTuple):
    """Content of one frame at a path below the video's entity."""

    path: str
    content: rr.AsComponents


class _Recorded(NamedTuple):
    """What is recorded."""

    n_rows: int  # of tracks
    n_missing: int  # frames without image


@validated(frozen=True, config={"extra": "forbid"})
class RecordingOptions:
    """Options of `export --format rerun`, set by `--option NAME=VALUE`."""

    video: str = ""  # export all tracks of this video
    tracks: int = Field(default=3, ge=1)  # else this many, those with the worst grades
    raw: Path | None = None  # the dataset's raw folder; None: as recorded at conversion
    body: Path | None = None  # folder of SMPL's files


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    stream: str = "",  # noqa: ARG001  part of every format's signature
    progress: Progress = silent,
    options: RecordingOptions = RecordingOptions(),  # noqa: B008  it is frozen
) -> Exported:
    """Write some tracks of the split `name` in the cache `root` to the file `out`. Ignores
    `stream`.

    Raises what `show.from_cache` raises, and PipelineError if `out` exists.
    """
    if out.is_dir():
        raise PipelineError(
            f"--out {out}: is a folder. Name a file in it, such as {name.replace('/', '_')}.rrd."
        )
    if out.suffix != ".rrd":
        raise PipelineError(
            f"--out {out}: expected a name that ends in .rrd, as Rerun's viewer opens no other"
        )
    require_new_file(out)
    n_tracks = None if options.video else options.tracks
    shown = from_cache(
        root, name, options.video, n_tracks=n_tracks, raw=options.raw, body=options.body
    )
    recording = rr.RecordingStream("vibe-pipeline")
    with write_aside(out) as part:
        try:
            recording.save(part)
            recording.send_recording_name(_title(shown))
            recorded = _record(recording, shown, progress)
            recording.flush()
        finally:
            recording.disconnect()
    summary = f"{count(recorded.n_rows, 'row')} of {count(len(shown.tracks), 'track')}"
    absent = _absent(shown, recorded.n_missing)
    return Exported(out, recorded.n_rows, summary, absent, {}, shown.stand_in)


def _title(shown: PageContent) -> str:
    title = shown.name
    if shown.stand_in:
        title += " (DEMO DATA)"
    if "estimates" in shown.reader.get("imported", {}):
        title += " (estimates)"
    return title


def _absent(shown: PageContent, n_missing: int) -> dict[str, str]:
    """What a recording lacks, and why. n_missing: frames without image."""
    absent = {}
    if n_missing:
        frames = count(n_missing, "frame")
        absent["images"] = f"{frames} cannot be read from the raw folder {shown.raw}"
    if shown.body is None and any("pose" in track.rows for track in shown.tracks):
        absent["bodies"] = "name the folder of SMPL's files: --body DIR"
    return absent


def _record(recording: rr.RecordingStream, shown: PageContent, progress: Progress) -> _Recorded:
    """Log all tracks, video by video."""
    bodies = None
    if shown.body is not None:
        bodies = LabelledBodies(shown.body)
    total = sum(track.n_frames for track in shown.tracks)
    n_rows = 0
    n_missing = 0
    for video in sorted({track.record.video for track in shown.tracks}):
        tracks = [track for track in shown.tracks if track.record.video == video]
        log = _VideoLog(recording, video, tracks[0].record.fps)
        _log_static(log, tracks, bodies)
        resolution = _resolution(tracks)
        for frame, present in read_frames(tracks):
            _record_frame(log, frame, present, resolution, bodies)
            n_rows += len(present)
            n_missing += frame.problem is not None
            progress(n_rows, total, video)
        recording.reset_time()
    return _Recorded(n_rows, n_missing)


def _record_frame(
    log: _VideoLog,
    frame: Frame,
    present: Present,
    resolution: tuple[int, int] | None,
    bodies: LabelledBodies | None,
) -> None:
    """Log the tracks in a frame. resolution: width, height px of the images."""
    log.set_time(frame.index)
    entries: list[_LoggedEntity] = []
    if frame.image is not None:
        entries.append(_LoggedEntity("camera/image", _jpeg(frame.image)))
    # any person's: the rows of a frame repeat its one camera
    entries += _camera_entries(*present[0], resolution)
    for track, row in present:
        if track.has_images:
            entries += _box_entries(track, row, frame.image)
        entries += _joint_entries(track, row)
        if bodies is not None:
            entries += _body_entries(track, row, bodies)
    log.show(entries)


def _resolution(tracks: list[ShownTrack]) -> tuple[int, int] | None:
    """(width, height) px of a video's images; None without images or cameras."""
    source = tracks[0].source
    has_camera = any(
        track.record.intrinsics is not None or "intrinsics" in track.rows for track in tracks
    )
    if source is None or not has_camera or not source.place.exists():
        return None
    return source.size()


class _VideoLog:
    """Logs below a video's entity."""

    def __init__(self, recording: rr.RecordingStream, video: str, fps: float) -> None:
        self._recording = recording
        self._video = video
        self._fps = fps
        # of the last frame: path -> types of its contents
        self._shown: dict[str, set[type]] = {}

    def set_time(self, index: int) -> None:
        """Set the time of what is logged next, to that of a frame."""
        self._recording.set_time("frame", sequence=index)
        if math.isfinite(self._fps):
            self._recording.set_time("time", duration=index / self._fps)

    def show(self, entries: Sequence[_LoggedEntity]) -> None:
        """Log a frame, and clear what only the frame before shows: the viewer keeps the latest
        content until then.
        """
        shown: dict[str, set[type]] = {}
        for entry in entries:
            shown.setdefault(entry.path, set()).add(type(entry.content))
        for path, types in self._shown.items():
            if not types <= shown.get(path, set()):
                self.log(path, rr.Clear(recursive=False))
        for entry in entries:
            self.log(entry.path, entry.content)
        self._shown = shown

    def log(self, path: str, content: rr.AsComponents, *, static: bool = False) -> None:
        parts = [part for part in f"{self._video}/{path}".split("/") if part]
        self._recording.log(rr.new_entity_path(parts), content, static=static)


def _log_static(log: _VideoLog, tracks: list[ShownTrack], bodies: LabelledBodies | None) -> None:
    """Log data common to all frames: joint names and sides, bones, world axes, body faces."""
    colours = [rgb(SIDE_COLOURS[side]) for side in SIDES]
    joints = []
    for joint, (name, colour) in enumerate(zip(NAMES, colours, strict=True)):
        joints.append(rr.AnnotationInfo(id=joint, label=name, color=colour))
    person = rr.AnnotationInfo(id=PERSON, label="person")
    description = rr.ClassDescription(
        info=person, keypoint_annotations=joints, keypoint_connections=bones("spin49")
    )
    log.log("", rr.AnnotationContext([description]), static=True)
    world = rr.ViewCoordinates.RIGHT_HAND_Z_UP
    if tracks[0].has_images:
        world = rr.ViewCoordinates.RDF
    up = tracks[0].record.extra.get("up")
    if up is not None and np.isfinite(up).all():
        axis = int(np.abs(up).argmax())
        world = _VIEW_AXES.get((axis, int(np.sign(up[axis]))), world)
    log.log("", world, static=True)
    if bodies is not None:
        faces = rr.Mesh3D.from_fields(triangle_indices=bodies.faces)
        for track in tracks:
            log.log(_body_path(track), faces, static=True)


def _camera_entries(
    track: ShownTrack, row: int, resolution: tuple[int, int] | None
) -> Iterator[_LoggedEntity]:
    """The camera's intrinsics, and its pose as the inverse of `extrinsics`."""
    extrinsics = track.rows.get("extrinsics")
    if extrinsics is not None and np.isfinite(extrinsics[row]).all():
        rotation = extrinsics[row][:3, :3].T
        shift = extrinsics[row][:3, 3]
        yield _LoggedEntity(
            "camera", rr.Transform3D(mat3x3=rotation, translation=-rotation @ shift)
        )
    intrinsics = track.intrinsics_of(row)
    if intrinsics is not None and resolution is not None:
        pinhole = rr.Pinhole(image_from_camera=intrinsics, resolution=resolution)
        yield _LoggedEntity("camera/image", pinhole)


def _box_entries(track: ShownTrack, row: int, image: Image | None) -> Iterator[_LoggedEntity]:
    """A person's box, and the crop that it cuts."""
    person = _person(track)
    box = track.rows["bbox"][row]
    boxes = rr.Boxes2D(centers=[box[:2]], sizes=[box[2:]], labels=[person])
    yield _LoggedEntity(f"camera/image/{person}/box", boxes)
    if image is not None:
        with suppress(ValueError):  # a box without a valid crop
            crop = crop_person(image, box, track.record.crop_scale)
            yield _LoggedEntity(f"crops/{person}", _jpeg(crop))


def _joint_entries(track: ShownTrack, row: int) -> Iterator[_LoggedEntity]:
    """A person's 2D and 3D joints."""
    rows = track.rows
    person = _person(track)
    if "kp_2d" in rows:
        visible = np.flatnonzero(rows["kp_2d"][row, :, 2] > 0)
        joints = rows["kp_2d"][row, visible, :2]
        # 17 names would hide the person; the viewer shows the one that the mouse is at
        points_2d = rr.Points2D(joints, class_ids=PERSON, keypoint_ids=visible, show_labels=False)
        yield _LoggedEntity(f"camera/image/{person}/joints", points_2d)
    if "kp_3d" in rows and ("has_3d" not in rows or rows["has_3d"][row] == 1):
        labelled = np.flatnonzero(rows["kp_3d"][row, :, 3] > 0)
        joints = rows["kp_3d"][row, labelled, :3]
        points_3d = rr.Points3D(joints, class_ids=PERSON, keypoint_ids=labelled)
        yield _LoggedEntity(f"pelvis/{person}/joints", points_3d)


def _body_entries(track: ShownTrack, row: int, bodies: LabelledBodies) -> Iterator[_LoggedEntity]:
    """A person's body, if it has a place."""
    posed = bodies.pose(track, row)
    if posed is not None and "trans" in track.rows and np.isfinite(track.rows["trans"][row]).all():
        vertices = posed.verts + track.rows["trans"][row]
        yield _LoggedEntity(_body_path(track), rr.Mesh3D.from_fields(vertex_positions=vertices))


def _person(track: ShownTrack) -> str:
    return track.record.name.removeprefix(f"{track.record.video}/").replace("/", "_")


def _body_path(track: ShownTrack) -> str:
    path = f"{_person(track)}/body"
    return f"camera/{path}" if track.has_images else path


def _jpeg(image: Image) -> rr.EncodedImage:
    return rr.EncodedImage(contents=encode_jpeg(image, JPEG_QUALITY), media_type="image/jpeg")
