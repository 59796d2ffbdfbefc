"""Import estimated bodies as labels of people whom a detector found.  [files of other programs] ->
tracks

A split of clips in one cache becomes a split with bodies in another cache (`import_bodies`):

    result files -> the clip of each (`_Clip`) -> people (`BodyEstimate`) -> tracks of the clip on
    whose 2D joints the projected bodies lie (`_TrackMatch`) -> rows (`ImportedTrack`)

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

import cache
from pipeline.body import Body
from pipeline.cameras import rigid
from pipeline.cli.text import count
from pipeline.conversion.committed import refuse_mixed_cache
from pipeline.conversion.plan import committed_split
from pipeline.datasets.labels.smpl import EXTRINSICS, INTRINSICS, UP, smplx_columns
from pipeline.errors import PipelineError, RawDataError, StandInMixed
from pipeline.estimates import BodyFit, files_of, recorded_estimates
from pipeline.exchange.bodies.estimate import N_BETAS, BodyEstimate
from pipeline.exchange.bodies.projection import NOTED, REFUSED, ProjectionFit, fit
from pipeline.exchange.bodies.smplx_joints import SmplxJoints
from pipeline.exchange.bodies.tools import camera_file, clip_of, read_estimates, stem_of
from pipeline.exchange.bodies.tracks import ImportedTrack
from pipeline.files.raw.files import whole_file_digest
from pipeline.processes.software import staging_plan
from pipeline.skeletons import JOINTS, PELVIS, Doubles, Ints
from pipeline.track import FARTHEST_M

VERSION: Final = 5  # raised whenever the same files would give other labels; 5: bodies by row
LABELS: Final = ("pose", "betas", "trans", "has_smpl", "valid")
_TRUTH: Final = ("pose", "kp_3d", "kp_3d_eval")  # columns of splits with labels of their own
HIPS: Final = [JOINTS["spin49"].index(joint) for joint in ("lhip", "rhip")]
EXTRA: Final = (  # columns besides those of the clips' split and LABELS
    *smplx_columns(f"{N_BETAS} numbers", trans=True, gaps=True),
    replace(INTRINSICS, about="camera matrix that the tool assumed", gaps=True),
    replace(EXTRINSICS, gaps=True),
    UP,
)
ELSEWHERE: Final = 1.0  # heights of the box; a body that is farther away belongs to someone else


@dataclass(frozen=True, slots=True)
class _ImportedBodies:
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
) -> _ImportedBodies:
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
    if split.extra or not set(_TRUTH).isdisjoint(split.columns):
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
        return _ImportedBodies(0, {}, "")

    plan = staging_plan(cache.fingerprint(origin | {"clips": split.manifest["digest"]}))
    with cache.SplitWriter(
        root, name, columns=[*split.columns, *LABELS], plan=plan, extra=EXTRA
    ) as writer:
        following = writer.begin(drop=to_drop)  # all other committed clips stay
        n_with_body = _write_clips(following, split, changed, by_clip, bodies)
        accounting = split.manifest.get("accounting", {})
        following.commit(
            {"reader": origin, "stand_in": origin["stand_in"], "accounting": accounting}
        )
    why = f"{count(len(changed), 'clip')} new or changed"
    return _ImportedBodies(n_with_body, {video: by_clip[video].notes for video in by_clip}, why)


def _write_clips(
    following: cache.NextCommit,
    split: cache.Split,
    entries: Sequence[cache.VideoEntry],
    by_clip: Mapping[str, _Clip],
    bodies: BodyModels,
) -> int:
    """Append these clips of the split, with their bodies. Returns the number of rows with a body.

    Clips that a killed import of the same files has finished are in `following.journalled`: they
    are matched again for their notes and rows, but not appended again.
    """
    by_video = itertools.groupby(split.tracks, lambda track: track.video)
    tracks = {video: list(group) for video, group in by_video}
    n_with_body = 0
    for entry in entries:
        labelled = [ImportedTrack(split, track) for track in tracks.get(entry.name, ())]
        if entry.name in by_clip:
            clip = by_clip[entry.name]
            _add_bodies(clip, labelled, (entry.width, entry.height), bodies)
            notes = [*entry.account.get("notes", ()), *clip.notes]
            account = {**entry.account, "notes": notes, "body_fits": clip.fits}
            entry = replace(entry, account=account)
        n_with_body += sum(int(track.has_body.sum()) for track in labelled)
        if entry.name not in following.journalled:
            following.append(entry, [track.rows() for track in labelled])
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
            actual = f"{stem!r}, of which it has {len(same)}"
            do = "Name the results' folder as the clip, as the tool does."
            raise RawDataError(file, "clip", expected, actual, do)
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
    actual = f"{width} x {height}"
    if estimate.has_size(size[::-1]):
        actual += ": it ignored the clip's rotation flag"
    do = "Run the tool on the clip's pictures as they are decoded."
    raise RawDataError(file, "size", f"{size[0]} x {size[1]} px", actual, do)


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
    path = f"{committed.root}/{committed.name}"
    imported = committed.manifest.get("reader", {}).get("imported", {})
    if imported.get("format") != "bodies":
        raise PipelineError(
            f"{path}: was not made of such files. Name another cache (--cache): the clips' own "
            "stays as it is."
        )
    lost = files_of(recorded_estimates(committed), entries.keys() - by_clip.keys())
    if lost:
        raise PipelineError(
            f"{path}: bodies would be lost, of {lost[0]}, which is not named. Name the files of "
            "all clips, or another cache (--cache)."
        )


class _TrackMatch(NamedTuple):
    """The bodies of an estimated person that lie on a track's 2D joints."""

    distance: float  # median over `rows`
    track: ImportedTrack
    rows: Ints  # of the estimate
    fit: ProjectionFit
    estimate: BodyEstimate
    joints: Doubles  # spin49 (N, 49, 3) m, without translation


def _add_bodies(
    clip: _Clip, tracks: Sequence[ImportedTrack], size: tuple[int, int], bodies: BodyModels
) -> None:
    """Fill in the bodies of a clip's people, in the tracks on whose joints they lie.

    Of several people on a track, the closest is used first. Raises RawDataError if people lie only
    beside tracks, and none on a track.
    """
    matches = _match_people(clip, tracks, size, bodies)
    for distance, track, rows, fitted, estimate, joints in sorted(
        matches, key=lambda match: match.distance
    ):
        pose = estimate.pose
        if bodies.smplx is not None:
            pose = bodies.smplx.whole_pose(pose)
        trans = estimate.position(size, fitted.margin)
        extrinsics = _extrinsics_of(estimate, trans, joints)
        camera = estimate.pixel_intrinsics(size)
        n_rows = track.fill(estimate, rows, trans, pose, camera, extrinsics)
        if n_rows:
            name = track.track.name
            cause = fitted.cause if distance > NOTED else ""
            body_fit = BodyFit(estimate.name, round(distance, 4), cause)
            clip.fits.setdefault(name, []).append(body_fit)
            rows_filled = f"{n_rows:,} of {count(track.n_rows, 'frame')}"
            clip.notes.append(f"{name}: {rows_filled}: {_describe_fit(estimate, body_fit)}")


def _match_people(
    clip: _Clip, tracks: Sequence[ImportedTrack], size: tuple[int, int], bodies: BodyModels
) -> list[_TrackMatch]:
    """Find the tracks on which the bodies of each person lie. Adds notes to the clip.

    Raises what `_add_bodies` raises.
    """
    matches: list[_TrackMatch] = []
    misfits: list[RawDataError] = []  # of people who lie only beside tracks
    keypoints = [track.keypoints for track in tracks]
    fps = np.nan
    if tracks:
        fps = tracks[0].track.fps
    for file in clip.files:
        for stored in read_estimates(file):
            estimate = stored.convert_to_clip(size, fps)
            for reason, n in estimate.dropped.items():
                clip.notes.append(f"{estimate.name}: {count(n, 'frame')}: {reason}")
            joints = bodies.joints(estimate)
            fitted = fit(estimate, joints, keypoints, size)
            if np.isnan(fitted.distance):
                clip.notes.append(f"{estimate.name}: not checked: no 2D joint in its frames")
            elif fitted.distance > REFUSED:
                actual = _describe_misfit(estimate, fitted)
                clip.notes.append(f"no track lies within {REFUSED:.0%}, but {actual}")
                if not ELSEWHERE < fitted.distance < np.inf:
                    expected = f"projected joints within {REFUSED:.0%} of the box of the 2D joints"
                    do = "Put it right in the tool's settings, or leave the file out."
                    misfits.append(RawDataError(file, "projection", expected, actual, do))
            else:
                found_matches = _match_tracks(fitted, tracks, estimate, joints)
                clip.notes += _note_rows_without_body(estimate, fitted, found_matches)
                matches += found_matches
    if misfits and not matches:
        raise misfits[0]
    return matches


def _match_tracks(
    fitted: ProjectionFit,
    tracks: Sequence[ImportedTrack],
    estimate: BodyEstimate,
    joints: Doubles,
) -> list[_TrackMatch]:
    """Find the bodies of a person on each track on which most of them lie; a body on one track."""
    matches = []
    is_free = np.ones(len(estimate.frames), bool)
    medians = fitted.medians
    for number in np.argsort(medians).tolist():
        rows = fitted.find_rows_of_track(number)
        rows = rows[is_free[rows]]
        if medians[number] <= REFUSED and len(rows):
            is_free[rows] = False
            distance = float(np.median(fitted.distances[number, rows]))
            matches.append(_TrackMatch(distance, tracks[number], rows, fitted, estimate, joints))
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


def _describe_misfit(estimate: BodyEstimate, fitted: ProjectionFit) -> str:
    """How far a person is from all tracks, and why."""
    if np.isinf(fitted.distance):
        return f"{estimate.name} is behind the camera, or over {FARTHEST_M:,.0f} m away"
    return f"{fitted.distance:.0%} in {estimate.name}; likely: {fitted.cause}"


def _note_rows_without_body(
    estimate: BodyEstimate, fitted: ProjectionFit, matches: Sequence[_TrackMatch]
) -> list[str]:
    """Notes about the bodies that are not taken."""
    n_unchecked = int(np.isnan(fitted.closest).sum())
    n_off = len(estimate.frames) - n_unchecked - sum(len(match.rows) for match in matches)
    notes = []
    if n_off:
        notes.append(
            f"{estimate.name}: {count(n_off, 'frame')} in which the body lies on no track: not "
            f"taken (over {REFUSED:.0%} of the box off, on another person, or behind the camera)"
        )
    if n_unchecked:
        frames = count(n_unchecked, "frame")
        notes.append(f"{estimate.name}: {frames} without a 2D joint to compare: not taken")
    return notes
