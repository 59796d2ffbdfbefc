"""Import estimated bodies as labels of people whom a detector found.  [files of other programs] ->
tracks

A split of clips in one cache becomes a split with bodies in another cache (`import_bodies`):

    result files -> the clip of each (`_Clip`) -> people (`BodyEstimate`) -> tracks of the clip on
    whose 2D joints the projected bodies lie (`_TrackMatch`) -> rows (`_ImportedTrack`)

A clip's fingerprint changes with all that its rows depend on (`_add_fingerprint`). Only clips whose
fingerprint is not the committed one are matched and written. Estimates are no ground truth: `valid`
is 0 in all rows, and the manifest names each clip's tool and files.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.body import Body
from pipeline.cli.text import count
from pipeline.conversion.committed import refuse_mixed_cache
from pipeline.conversion.plan import committed_split
from pipeline.datasets.base import EXTRINSICS, INTRINSICS, PELVIS, UP
from pipeline.datasets.labels import smplx
from pipeline.errors import PipelineError, RawDataError, StandInMixed
from pipeline.estimates import BodyFit, files_of, recorded_estimates
from pipeline.exchange.bodies.estimate import N_BETAS, N_POSE, BodyEstimate
from pipeline.exchange.bodies.projection import REFUSED, Keypoints, ProjectionFit, fit
from pipeline.exchange.bodies.smplx_joints import SmplxJoints
from pipeline.exchange.bodies.tools import (
    camera_file,
    clip_of,
    read_estimates,
    rigid,
    stem_of,
)
from pipeline.files.raw.files import whole_file_digest
from pipeline.processes.software import staging_plan
from pipeline.skeletons import JOINTS, Doubles

VERSION: Final = 4  # raised whenever the same files would give other labels; 4: cameras
LABELS: Final = ("pose", "betas", "trans", "has_smpl", "valid")
TRUTH: Final = ("pose", "kp_3d", "kp_3d_eval")  # columns of splits with labels of their own
# fields that a track has in both caches, besides its columns
COPIED: Final = ("name", "video", "step", "fps", "crop_scale", "gender", "intrinsics")
HIPS: Final = [JOINTS["spin49"].index(joint) for joint in ("lhip", "rhip")]
WORLD_UP: Final = np.array([0, 1, 0], np.float32)  # the direction up in the tools' worlds
EXTRA: Final = (  # columns besides those of the clips' split and LABELS
    *smplx.columns(f"{N_BETAS} numbers", trans=True, gaps=True),
    replace(INTRINSICS, about="camera matrix that the tool assumed", gaps=True),
    replace(EXTRINSICS, gaps=True),
    UP,
)
ELSEWHERE: Final = 1.0  # heights of the box; a body that is farther away belongs to someone else


@dataclass(frozen=True, slots=True)
class ImportedBodies:
    """Result of an import. `why` is "" if everything was up to date."""

    with_body: int  # number of rows with a body, in the clips that were written
    # clip with result files -> its notes; none for a clip that was not written
    notes: Mapping[str, Sequence[str]]
    why: str  # why clips were written


@dataclass(frozen=True, slots=True, eq=False)
class BodyModels:
    """The body models by which estimated bodies are posed."""

    smpl: Body
    smplx: SmplxJoints | None = None

    def joints(self, estimate: BodyEstimate) -> Doubles:
        """Joints of the estimated bodies in spin49, (N, 49, 3) m, without translation."""
        if not estimate.is_smplx:
            return self.smpl.posed_joints(estimate.pose, estimate.betas)[0]
        assert self.smplx is not None
        parents = self.smpl.smpl.parents.tolist()
        return self.smplx.joints(estimate.pose, estimate.betas, parents)


@dataclass(slots=True, eq=False)
class _Clip:
    """The result files of one clip, all from the same tool; and what matching them finds."""

    tool: str
    is_smplx: bool
    files: list[Path] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)  # file name -> SHA-256
    # Added by `_add_bodies`, for the clip's entry:
    notes: list[str] = field(default_factory=list)
    fits: dict[str, list[BodyFit]] = field(default_factory=dict)  # by the track's name

    def add(self, file: Path) -> None:
        """Add a result file, and TRAM's camera file with it."""
        self.files.append(file)
        self.digests[file.name] = whole_file_digest(file)
        if self.tool == "TRAM":
            camera = camera_file(file)
            self.digests[camera.name] = whole_file_digest(camera)


def import_bodies(
    files: Sequence[Path], clips: cache.Root, root: cache.Root, name: str, bodies: BodyModels
) -> ImportedBodies:
    """Make the split `name` in the cache `root`: the tracks that it has in the cache `clips`, with
    the bodies of the result files as pose, betas, trans and has_smpl, or smplx_*.

    Raises:
        RawDataError: a file is invalid, of no clip of the split, of pictures of another size, or
            its bodies do not lie on the people.
        UnsafePickle: a file would run code.
        StandInMixed: the clips are demo data and the body is not, or the reverse.
        PipelineError: the split exists in `root` with another origin, or with bodies of files that
            are not among these; SMPL-X's body is missing; the clips have labels of their own.
        cache.CacheError: the split is missing in `clips`, or another process writes it.
    """
    split = cache.open(clips)[name]
    if bodies.smpl.is_stand_in != split.manifest["stand_in"]:
        raise StandInMixed(f"{name}: the clips or the body are demo data. Use both or none.")
    if split.extra or not set(TRUTH).isdisjoint(split.columns):
        raise PipelineError(f"{clips}/{name}: has other labels than 2D joints. Name clips' cache.")
    by_clip = _join_clips(files, split, bodies)
    origin = _origin(split, by_clip, bodies)
    entries = {entry.name: _add_fingerprint(entry, by_clip, origin) for entry in split.videos}

    committed = committed_split(root, name)
    before: dict[str, str] = {}  # fingerprints of the clips that an earlier import wrote
    if committed is None:
        refuse_mixed_cache(root, name, stand_in=origin["stand_in"])
    else:
        _require_same_files(committed, entries, by_clip)
        before = {entry.name: entry.fingerprint for entry in committed.videos}
    current = {video for video, entry in entries.items() if before.get(video) == entry.fingerprint}
    changed = [entry for video, entry in entries.items() if video not in current]
    to_drop = before.keys() - current  # changed, or removed from the clips' split
    if not changed and not to_drop:
        cache.finish_commits(root, name)  # of an import that was killed
        return ImportedBodies(0, {}, "")

    plan = staging_plan(cache.fingerprint(origin | {"clips": split.manifest["digest"]}))
    with cache.SplitWriter(
        root, name, columns=[*split.columns, *LABELS], plan=plan, extra=EXTRA
    ) as writer:
        writer.begin(drop=to_drop)  # all other committed clips stay
        n_with_body = _write_clips(writer, split, changed, by_clip, bodies)
        accounting = split.manifest.get("accounting", {})
        writer.commit({"reader": origin, "stand_in": origin["stand_in"], "accounting": accounting})
    why = f"{count(len(changed), 'clip')} new or changed"
    return ImportedBodies(n_with_body, {video: by_clip[video].notes for video in by_clip}, why)


def _write_clips(
    writer: cache.SplitWriter,
    split: cache.Split,
    entries: Sequence[cache.VideoEntry],
    by_clip: Mapping[str, _Clip],
    bodies: BodyModels,
) -> int:
    """Append these clips of the split, with their bodies. Returns the number of rows with a body.

    Clips that a killed import of the same files has finished are in `writer.journalled`: they are
    matched again for their notes and rows, but not appended again.
    """
    by_video = itertools.groupby(split.tracks, lambda track: track.video)
    tracks = {video: list(group) for video, group in by_video}
    n_with_body = 0
    for entry in entries:
        labelled = [_ImportedTrack(split, track) for track in tracks.get(entry.name, ())]
        if entry.name in by_clip:
            clip = by_clip[entry.name]
            _add_bodies(clip, labelled, (entry.width, entry.height), bodies)
            notes = [*entry.account.get("notes", ()), *clip.notes]
            account = {**entry.account, "notes": notes, "body_fits": clip.fits}
            entry = replace(entry, account=account)
        n_with_body += sum(int(track.has_body.sum()) for track in labelled)
        if entry.name not in writer.journalled:
            writer.append(entry, [track.rows() for track in labelled])
    return n_with_body


def _join_clips(files: Sequence[Path], split: cache.Split, bodies: BodyModels) -> dict[str, _Clip]:
    """Find the clip of each result file: clip name -> its result files."""
    sizes = {entry.name: (entry.width, entry.height) for entry in split.videos}
    file_names = {video: PurePath(video).name for video in sizes}
    joined: dict[str, _Clip] = {}
    for file in files:
        first = next(read_estimates(file), None)
        if first is None:
            raise RawDataError(file, "file", "people", "none", "Leave the file out.")
        if first.is_smplx and bodies.smplx is None:
            raise PipelineError(
                f"{file}: {first.tool}'s bodies are SMPL-X's, which cannot be checked without its "
                "file. Name it: --smplx SMPLX_NEUTRAL.npz."
            )
        stem = clip_of(file, first.tool)
        same = [video for video, name in file_names.items() if stem_of(name, first.tool) == stem]
        if len(same) != 1:
            expected = f"results of a clip of {split.name}"
            found = f"{stem!r}, of which it has {len(same)}"
            do = "Name the results' folder as the clip, as the tool does."
            raise RawDataError(file, "clip", expected, found, do)
        clip = joined.setdefault(same[0], _Clip(first.tool, first.is_smplx))
        has_file_a_person = clip.tool == first.tool == "TRAM"
        if clip.files and not has_file_a_person:
            do = "Import one tool's results of a clip."
            raise RawDataError(file, "clip", "one file for a clip", f"also {clip.files[0]}", do)
        _require_size(file, first, sizes[same[0]])
        clip.add(file)
    return joined


def _require_size(file: Path, estimate: BodyEstimate, size: tuple[int, int]) -> None:
    """Raise RawDataError if the tool saw images of another size, or rotated ones."""
    if estimate.has_size(size) or estimate.size is None:
        return
    width, height = estimate.size
    found = f"{width} x {height}"
    if estimate.has_size(size[::-1]):
        found += ": it ignored the clip's rotation flag"
    do = "Run the tool on the clip's pictures as they are decoded."
    raise RawDataError(file, "size", f"{size[0]} x {size[1]} px", found, do)


def _origin(split: cache.Split, by_clip: Mapping[str, _Clip], bodies: BodyModels) -> dict[str, Any]:
    """The entry `reader` of the manifest: which files and body models the labels come from."""
    dataset, _, part = split.name.partition("/")
    # {"a.mp4": {"tool": "TRAM", "files": {"hps_track_0.npy": "<SHA-256>"}}}
    estimates = {}
    for video, clip in sorted(by_clip.items()):
        estimates[video] = {"tool": clip.tool, "files": clip.digests}
    tools = {clip.tool for clip in by_clip.values()}
    return {
        "dataset": dataset,
        "split": part,
        "version": VERSION,
        "parameters": {},
        "body": bodies.smpl.digest,
        "stand_in": bool(split.manifest["stand_in"]),
        "imported": {
            "format": "bodies",
            "file": f"estimates of {', '.join(sorted(tools))}",
            "smplx": bodies.smplx and bodies.smplx.digest,
            # fingerprint of how the clips' split was read
            "clips": cache.fingerprint(split.manifest.get("reader", {})),
            "estimates": estimates,
        },
    }


def _add_fingerprint(
    entry: cache.VideoEntry, by_clip: Mapping[str, _Clip], origin: Mapping[str, Any]
) -> cache.VideoEntry:
    """The clip's entry, with a fingerprint of everything that its rows depend on."""
    imported = origin["imported"]
    body = ""  # digest of the body model that poses its people; a clip without files needs none
    if entry.name in by_clip:
        body = imported["smplx"] if by_clip[entry.name].is_smplx else origin["body"]
    inputs = {
        "clip": entry.fingerprint,
        "reader": imported["clips"],
        "version": origin["version"],
        "bodies": imported["estimates"].get(entry.name),
        "body": body,
    }
    return replace(entry, fingerprint=cache.fingerprint(inputs))


def _require_same_files(
    committed: cache.Split, entries: Mapping[str, object], by_clip: Mapping[str, _Clip]
) -> None:
    """Raise PipelineError for a split of another origin, and for bodies that would be lost."""
    place = f"{committed.root}/{committed.name}"
    imported = committed.manifest.get("reader", {}).get("imported", {})
    if imported.get("format") != "bodies":
        raise PipelineError(
            f"{place}: was not made of such files. Name another cache (--cache), or delete that "
            "folder with its features."
        )
    lost = files_of(recorded_estimates(committed), entries.keys() - by_clip.keys())
    if lost:
        raise PipelineError(
            f"{place}: bodies would be lost, of {lost[0]}, which is not named. Name the files of "
            "all clips, or another cache (--cache)."
        )


class _ImportedTrack:
    """A track of the new split: its copied labels, and bodies, which `fill` adds.

    Rows without a body have pose, betas and trans NaN.
    """

    def __init__(self, split: cache.Split, track: cache.TrackRecord) -> None:
        self.track = track
        self.n_rows = track.stop - track.start
        self.columns: dict[str, NDArray[Any]] = {}
        for name in split.columns:
            self.columns[name] = np.array(split.rows(name, track.start, track.stop))
        self.columns["pose"] = self._unknown(N_POSE)
        self.columns["betas"] = self._unknown(N_BETAS)
        self.columns["trans"] = self._unknown(3)
        self.columns["has_smpl"] = np.zeros(self.n_rows, np.uint8)
        self.columns["valid"] = np.zeros(self.n_rows, np.uint8)
        self.extra: dict[str, NDArray[Any]] = {}  # extra columns, as far as a person has them
        self.has_body = np.zeros(self.n_rows, bool)

    def _unknown(self, *shape: int) -> NDArray[Any]:
        """A column (n_rows, *shape) of NaN."""
        return np.full((self.n_rows, *shape), np.nan, np.float32)

    @property
    def keypoints(self) -> Keypoints:
        """The track's 2D joints, with which bodies are compared."""
        columns = self.columns
        return Keypoints(columns["frame_index"], columns["kp_2d"], columns["bbox"][:, 3])

    def fill(
        self,
        estimate: BodyEstimate,
        trans: Doubles,
        whole_pose: Doubles,
        intrinsics: Doubles,
        extrinsics: Doubles | None,
    ) -> int:
        """Write a person's bodies into the rows of common frames that have none yet. Returns their
        number.

        trans: (N, 3) m; whole_pose: (N, 72) or (N, 165) rad; intrinsics: (3, 3) px; extrinsics:
        (N, 4, 4) m, of its world.
        """
        _, rows, track_rows = np.intersect1d(  # rows of the estimate, rows of the track
            estimate.frames, self.columns["frame_index"], return_indices=True
        )
        is_free = ~self.has_body[track_rows]
        rows = rows[is_free]
        track_rows = track_rows[is_free]

        self.has_body[track_rows] = True
        cameras = self.extra.setdefault("intrinsics", self._unknown(3, 3))
        cameras[track_rows] = intrinsics
        if extrinsics is not None:
            worlds = self.extra.setdefault("extrinsics", self._unknown(4, 4))
            worlds[track_rows] = extrinsics[rows]
            self.extra["up"] = WORLD_UP

        if estimate.is_smplx:
            labels = smplx.labels(whole_pose[rows], estimate.betas[rows])
            labels["smplx_trans"] = trans[rows].astype(np.float32)
            for name, values in labels.items():
                if values.ndim:
                    column = self.extra.setdefault(name, self._unknown(values.shape[1]))
                    column[track_rows] = values
                else:  # one value for the track
                    self.extra[name] = values
        else:
            self.columns["pose"][track_rows] = whole_pose[rows]
            self.columns["betas"][track_rows] = estimate.betas[rows]
            self.columns["trans"][track_rows] = trans[rows]
            self.columns["has_smpl"][track_rows] = 1
        return len(rows)

    def rows(self) -> cache.TrackRows:
        """The track as the writer of the split takes it."""
        copied = {name: getattr(self.track, name) for name in COPIED}
        return cache.TrackRows(**copied, columns=self.columns, extra=self.extra)


class _TrackMatch(NamedTuple):
    """An estimated person whose projected body lies on a track's 2D joints."""

    fit: ProjectionFit
    track: _ImportedTrack
    estimate: BodyEstimate
    joints: Doubles  # spin49 (N, 49, 3) m, without translation


def _add_bodies(
    clip: _Clip, tracks: Sequence[_ImportedTrack], size: tuple[int, int], bodies: BodyModels
) -> None:
    """Fill in the bodies of a clip's people, in the tracks on whose joints they lie.

    Of several people on a track, the closest is used first. Raises RawDataError if people lie only
    beside tracks, and none on a track.
    """
    matches = _match_people(clip, tracks, size, bodies)
    for fitted, track, estimate, joints in sorted(matches, key=lambda match: match.fit.distance):
        pose = estimate.pose
        if bodies.smplx is not None:
            pose = bodies.smplx.whole_pose(pose)
        trans = estimate.position(size, fitted.margin)
        extrinsics = _extrinsics_of(estimate, trans, joints)
        if track.fill(estimate, trans, pose, estimate.pixel_intrinsics(size), extrinsics):
            name = track.track.name
            body_fit = BodyFit(estimate.name, round(fitted.distance, 4), fitted.cause)
            clip.fits.setdefault(name, []).append(body_fit)
            clip.notes.append(f"{name}: {_describe_fit(estimate, body_fit)}")


def _match_people(
    clip: _Clip, tracks: Sequence[_ImportedTrack], size: tuple[int, int], bodies: BodyModels
) -> list[_TrackMatch]:
    """Match every person with every track on which it lies. Adds notes to the clip.

    Raises what `_add_bodies` raises.
    """
    matches: list[_TrackMatch] = []
    beside: list[RawDataError] = []  # of people who lie only beside tracks
    fps = np.nan
    if tracks:
        fps = tracks[0].track.fps
    for file in clip.files:
        for stored in read_estimates(file):
            estimate = stored.convert_to_clip(size, fps)
            for reason, n in estimate.dropped.items():
                clip.notes.append(f"{estimate.name}: {n} frames: {reason}")
            joints = bodies.joints(estimate)
            fits = [fit(estimate, joints, track.keypoints, size) for track in tracks]
            for fitted, track in zip(fits, tracks, strict=True):
                if fitted.distance <= REFUSED:
                    matches.append(_TrackMatch(fitted, track, estimate, joints))

            compared = [fitted for fitted in fits if not np.isnan(fitted.distance)]
            if not compared:
                clip.notes.append(f"{estimate.name}: not checked: no 2D joint in its frames")
                continue
            distance = min(fitted.distance for fitted in compared)
            if distance <= REFUSED:
                continue
            cause = min(compared, key=lambda fitted: fitted.remaining).cause
            found = f"{distance:.0%} in {estimate.name}; likely: {cause}"
            clip.notes.append(f"no track lies within {REFUSED:.0%}, but {found}")
            if distance <= ELSEWHERE:
                expected = f"projected joints within {REFUSED:.0%} of the box of the 2D joints"
                do = "Put it right in the tool's settings, or leave the file out."
                beside.append(RawDataError(file, "projection", expected, found, do))
    if beside and not matches:
        raise beside[0]
    return matches


def _extrinsics_of(estimate: BodyEstimate, trans: Doubles, joints: Doubles) -> Doubles | None:
    """Extrinsics (N, 4, 4) m of an estimate, from its world to the camera; None without a world.

    Some tools give the same body twice: in the camera, and in a world of the person's own. Then the
    extrinsics follow: R from R R_w = R_c, and t = p_c - R p_w, for a point of the body that is at
    p_w in the world and at p_c in the camera. trans: (N, 3) m in the camera. joints: (N, 49, 3) m
    without translation.
    """
    if estimate.world_root is None or estimate.world_place is None:
        return estimate.extrinsics
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    in_camera = Rotation.from_rotvec(estimate.pose[:, :3])
    rotation = in_camera * Rotation.from_rotvec(estimate.world_root).inv()
    point = joints[:, PELVIS]
    in_world = estimate.world_place + point
    if estimate.is_place_of_hips:
        point = joints[:, HIPS].mean(axis=1)
        in_world = estimate.world_place
    shift = point + trans - rotation.apply(in_world)
    return rigid(rotation.as_matrix(), shift)


def _describe_fit(estimate: BodyEstimate, body_fit: BodyFit) -> str:
    """A person's fit, and what to know about its labels, as a note."""
    text = str(body_fit)
    if estimate.trans is None:
        text += "; trans is of a weak-perspective camera"
    if estimate.world_root is not None:
        text += "; its world is of this person alone"
    return text
