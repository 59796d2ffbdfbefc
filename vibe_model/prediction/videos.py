"""Predict the bodies of all videos of a split, and write files.  features -> windows -> [bodies]

    <out>/bodies/*.npz         one file per person
    <out>/motions/*.npz        the same as motion files in AMASS's layout
    <out>/overlay.mp4          the bodies over the frames; for several videos overlays/*.mp4
    <out>/predictions.json     list of the files, and how they were made; written last

`predict_videos` is called by `tasks predict`, with a job of `prediction.job`. It handles one video
at a time, so memory does not grow with the number of videos: `_predict_people` is a generator, and
predicts the next track when the files of the one before are written.

`write_motion` decides which frames a motion file has (`_Timeline`), and resamples rotations and
translations to them. SMPL's Blender add-ons read `poses` (SMPL-X's 55 joints), `betas`, `trans`,
`gender` and `mocap_framerate`. Retargeting to humanoid robots reads the same rotations as
`root_orient` and `pose_body`, and `mocap_frame_rate` (GMR,
general_motion_retargeting/utils/smpl.py). SMPL-X has SMPL's joints except the two hands, whose
rotation goes to the first joints of four fingers. The world has z up, as in AMASS: a level camera
looks along its y axis.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

import cache
from pipeline.body import Body
from pipeline.cameras import pose_in_camera, resample_linear, resample_rotations
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError
from pipeline.features.inputs import raw_folder
from pipeline.files.pixels import sources
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.frames import FrameSource
from pipeline.files.places import file_name
from pipeline.show.clip import DEMO_MARK, rate_of
from pipeline.show.video_file import DEFAULT_FPS
from pipeline.skeletons import Doubles
from vibe_model.prediction.job import PredictionJob
from vibe_model.prediction.overlay import PredictedBodies
from vibe_model.prediction.predict import TrackBodies, predict_tracks
from vibe_model.prediction.windows import ModelStreams, select_tracks
from vibe_model.runs import replace_file, write_json

BODIES: Final = "bodies"
MOTIONS: Final = "motions"
OVERLAY: Final = "overlay.mp4"  # of a single video
OVERLAYS: Final = "overlays"
SUMMARY: Final = "predictions.json"
# x right, y down, z forward -> x right, z up
TO_WORLD: Final = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
N_JOINTS: Final = 55  # of SMPL-X
N_BETAS: Final = 16  # of AMASS's SMPL-X files; SMPL's ten come first, the others are 0
# SMPL's hands: index, middle, little and ring fingers
HANDS: Final = {22: (25, 28, 31, 34), 23: (40, 43, 46, 49)}
MIN_RATE: Final = 30.0  # frames per second: GMR plays slower files at 30
RATE_NOISE: Final = 0.01  # treats 29.97 as 30
MOTION_ENDING: Final = "_stageii.npz"  # of AMASS's SMPL-X files


class _PredictedVideos(NamedTuple):
    """What was predicted and written."""

    tracks: int
    bodies: int  # person-frames
    frames: int  # frames of all overlays
    problems: list[str]  # why overlays are missing
    summary: dict[str, Any]  # the content of predictions.json


def predict_videos(job: PredictionJob, progress: Progress) -> _PredictedVideos:
    """Write all files that the job asks for, and predictions.json. Deletes those of an earlier job
    when the first bodies are predicted.

    A video that cannot be drawn gets no overlay; the reason is added to `problems`. Raises
    PipelineError if nothing is predicted, and if the raw folder of the overlays' images is missing.
    """
    split = job.split()
    about = _about(job, split)
    raw = None
    if job.overlay:
        raw = raw_folder(split, job.raw)
    chosen = select_tracks(split, job.tracks)
    n_rows = sum(track.stop - track.start for track in chosen)
    n_videos = len({track.video for track in chosen})

    people = _predict_people(job, split, chosen)
    first = next(people, None)
    if first is None:
        raise PipelineError(
            f"{job.name}: no frame with a person could be decoded, so nothing is predicted"
        )
    _remove_previous_files(job.out)

    n_tracks = 0
    n_bodies = 0
    n_frames = 0
    problems = []
    videos = []
    people = itertools.chain([first], people)
    # people of one video follow one another
    by_video = itertools.groupby(people, functools.partial(_video_number, split))
    for number, people_of_video in by_video:
        entry = split.videos[number]
        overlay_bodies = PredictedBodies(job.out, job.trained.generator.steps)
        rows = []
        for bodies in people_of_video:
            rows.append(_write_person(job, bodies, entry, about))
            overlay_bodies.add(bodies)
            n_bodies += len(bodies)
            progress(n_bodies, n_rows, entry.name)
        n_tracks += len(rows)
        video = _video_facts(entry, overlay_bodies.fps, rows)
        if raw is not None:
            file = job.out / OVERLAY
            if n_videos > 1:
                file = job.out / OVERLAYS / file_name(entry.name, ".mp4")
            source = sources.parse(raw, entry.source)
            try:
                video["overlay"], n_drawn = _draw(job, file, source, overlay_bodies)
                n_frames += n_drawn
            except PipelineError as error:
                problems.append(str(error))
        videos.append(video)
    summary = about | {"videos": videos}
    write_json(job.out / SUMMARY, summary)
    return _PredictedVideos(n_tracks, n_bodies, n_frames, problems, summary)


def _video_facts(
    entry: cache.VideoEntry, fps: float, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A video's entry in predictions.json, without an overlay. rows: The entries of its people."""
    return {
        "video": entry.name,
        "picture": [entry.width, entry.height],
        "accounting": entry.account,
        "fps": fps if math.isfinite(fps) else None,
        "tracks": rows,
        "overlay": None,
    }


def _predict_people(
    job: PredictionJob, split: cache.Split, chosen: Sequence[cache.TrackRecord]
) -> Iterator[TrackBodies]:
    """Predict the bodies of each chosen track, then smooth them as the job says.

    Skips tracks without a decoded frame.
    """
    trained = job.trained
    predictions = predict_tracks(
        trained.generator,
        split,
        chosen,
        streams=ModelStreams(job.stream, trained.config.extra_streams),
        seqlen=trained.config.seqlen,
        around=True,  # past and future bodies too, for models that predict them
        stills=True,  # these also from single frames, such as photos
    )
    for (bodies,) in predictions:  # one way of cutting tracks into windows, so one prediction each
        if len(bodies):
            yield bodies.smooth_time(job.smooth)


def _video_number(split: cache.Split, bodies: TrackBodies) -> int:
    """The number of the bodies' video in the split."""
    (track,) = split.track_of(bodies.rows[:1])
    return int(split.tracks.video[track])


def _write_person(
    job: PredictionJob,
    bodies: TrackBodies,
    entry: cache.VideoEntry,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the files of one person. Returns their entry in predictions.json."""
    generator = job.trained.generator
    file = bodies.save(job.out / BODIES, generator, about={**about, "video": entry.name})
    first = int(bodies.frame_index[0])
    last = int(bodies.frame_index[-1])
    facts = {
        "name": bodies.track.name,
        "file": f"{BODIES}/{file.name}",
    }
    if job.export:
        fps = bodies.track.fps if math.isfinite(bodies.track.fps) else DEFAULT_FPS
        clip = entry.account.get("clip", {})
        motion = write_motion(job.out / MOTIONS, bodies, generator.body, fps, clip)
        facts["motion"] = f"{MOTIONS}/{motion.name}"
    return {**facts, "frames": len(bodies), "first": first, "last": last}


def _draw(
    job: PredictionJob, file: Path, source: FrameSource, bodies: PredictedBodies
) -> tuple[dict[str, Any], int]:
    """Write the overlay of a video. Returns its entry in predictions.json, and its number of
    frames. Raises PipelineError for an overlay that cannot be drawn.
    """
    text = DEMO_MARK if job.stand_in else ""
    overlay, n_frames = bodies.write_overlay(file, source, job.trained.generator, text=text)
    facts = {"file": overlay.relative_to(job.out).as_posix(), "fps": rate_of(source)}
    return facts, n_frames


def _about(job: PredictionJob, split: cache.Split) -> dict[str, Any]:
    """Describe how the bodies are predicted: the facts that every written file records."""
    return {
        "split": job.name,
        "stand_in": job.stand_in,
        "checkpoint": job.trained.about,
        "body_sha256": job.trained.generator.body.digest,
        "features": dict(split.open_stream(job.stream).identity),
        "seqlen": job.trained.config.seqlen,
        "steps": list(job.trained.generator.steps),
        "smooth": job.smooth,
    }


def _remove_previous_files(out: Path) -> None:
    """Delete the files that an earlier predictions.json lists. Other files stay."""
    try:
        videos = json.loads((out / SUMMARY).read_bytes())["videos"]
        listed = []
        for video in videos:
            for row in video["tracks"]:
                listed += [row.get("file"), row.get("motion")]
            if video["overlay"]:
                listed.append(video["overlay"]["file"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        listed = []
    (out / SUMMARY).unlink(missing_ok=True)  # invalid until it is written again
    for name in filter(None, listed):
        file = out / str(name)
        if file.is_file() and file.resolve().is_relative_to(out.resolve()):
            file.unlink(missing_ok=True)


def write_motion(
    folder: Path,
    bodies: TrackBodies,
    body: Body,
    fps: float,
    clip: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write one person's motion, from the first frame to the last. Returns the file.

    Interpolates missing frames, and below MIN_RATE as many frames between two as reach it. The
    shape is the mean over frames. The translation assumes a focal length equal to the image's
    diagonal. Besides AMASS's keys, `about` is a JSON text with the first frame's number and the
    number of frames written for each source frame.

    Args:
        fps: Rate of the source's frames.
        clip: `ClipRecord.as_dict`: frames of uneven length keep their times.

    Raises:
        PipelineError: the images' size is unknown.
    """
    timeline = _Timeline.plan(bodies, fps, clip)
    betas = bodies.shape.mean(axis=0, dtype=np.float64)
    trans = resample_linear(_translations(bodies), timeline.position) @ TO_WORLD.T
    pelvis = _pelvis(body, betas)  # SMPL rotates about the pelvis, which is not at the origin
    poses = _poses(bodies, timeline.position)
    about = {
        "track": bodies.track.name,
        "first_frame": int(bodies.frame_index[0]),
        "interpolated": len(timeline.position) - len(bodies),
        "frames_for_one": timeline.parts,
        "stand_in": bool(body.is_stand_in),
    }
    rate = np.array(timeline.fps)
    arrays: dict[str, Any] = {
        "poses": poses,
        "root_orient": poses[:, :3],
        "pose_body": poses[:, 3:66],
        "pose_hand": poses[:, 75:],  # after jaw and eyes
        "trans": trans + pelvis @ TO_WORLD.T - pelvis,
        "betas": np.pad(betas, (0, N_BETAS - len(betas))),
        "gender": np.array("neutral"),
        "mocap_framerate": rate,
        "mocap_frame_rate": rate,
        "about": np.array(json.dumps(about)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(bodies.track.name, MOTION_ENDING)
    replace_file(path, lambda stream: np.savez(stream, **arrays))
    return path


class _Timeline(NamedTuple):
    """The N frames of a motion file, evenly spaced in time."""

    # (N,) where each is among the F predicted frames: 1.5 is halfway between the second and third
    position: Doubles
    parts: int  # frames written for each source frame
    fps: float  # rate of the written frames

    @classmethod
    def plan(cls, bodies: TrackBodies, fps: float, clip: Mapping[str, Any]) -> _Timeline:
        """Choose the frames to write. fps, clip: as for `write_motion`."""
        frames = bodies.frame_index
        step = bodies.track.step
        record = ClipRecord.from_dict(clip)
        if record is not None and not record.is_even:
            frames = record.clock()[frames]  # in frames of the usual length
            fps *= record.usual_fps / record.fps
        parts = max(1, math.ceil(MIN_RATE * step / fps - RATE_NOISE))
        n_steps = (frames[-1] - frames[0]) // step
        written = np.arange(n_steps * parts + 1)
        source_frames = frames[0] + written * step / parts
        position = np.interp(source_frames, frames, np.arange(len(frames)))
        return cls(position, parts, fps / step * parts)


def _poses(bodies: TrackBodies, position: Doubles) -> Doubles:
    """Axis-angle (N, 3 * N_JOINTS) rad of SMPL-X's joints at positions (N,), z up."""
    matrices = bodies.rotmat.reshape(-1, 3, 3)
    rotvec = Rotation.from_matrix(matrices).as_rotvec().reshape(-1, 24, 3)
    in_camera = resample_rotations(rotvec, position).reshape(-1, 72)
    turned = pose_in_camera(in_camera, TO_WORLD).reshape(-1, 24, 3)
    poses = np.zeros((len(turned), N_JOINTS, 3))
    poses[:, :22] = turned[:, :22]
    for hand, fingers in HANDS.items():
        poses[:, fingers] = turned[:, [hand]]
    return poses.reshape(len(turned), 3 * N_JOINTS)


def _translations(bodies: TrackBodies) -> Doubles:
    """Translations (F, 3) m in camera axes, for a focal length equal to the image's diagonal.

    The weak perspective camera s (x + tx) of a crop of side 2 gives the pixels per metre, s times
    half the crop's side, which equal focal length / depth.
    """
    if bodies.picture is None:
        raise PipelineError(
            f"{bodies.track.name}: its image size is not recorded, so its translation is unknown"
        )
    size = np.array(bodies.picture, np.float64)
    camera = bodies.camera.astype(np.float64)
    box = bodies.bbox.astype(np.float64)
    crop_scale = float(bodies.track.crop_scale)
    half_crop = camera[:, :1] * box[:, 2:3] * crop_scale / 2
    px_per_m = np.maximum(half_crop, 1e-3)  # (F, 1)
    from_middle = box[:, :2] - size / 2
    sideways = camera[:, 1:] + from_middle / px_per_m
    depth = math.hypot(*size) / px_per_m
    return np.concatenate([sideways, depth], axis=1)


def _pelvis(body: Body, betas: Doubles) -> Doubles:
    """Position (3,) m of the root joint in the body's rest pose."""
    shape = torch.as_tensor(betas[None], dtype=torch.float32, device=body.faces.device)
    at_rest = torch.eye(3, device=shape.device).expand(1, 24, 3, 3)
    with torch.no_grad():
        posed = body.smpl(
            betas=shape, global_orient=at_rest[:, :1], body_pose=at_rest[:, 1:], pose2rot=False
        )
    return np.asarray(posed.joints[0, 0].double().cpu().numpy())
