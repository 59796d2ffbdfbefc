"""Import estimated bodies as labels of people whom a detector found.  [files of other programs] ->
tracks

A split of clips in one cache becomes a split with bodies in another cache (`import_bodies`):

    result files -> the clip of each (`_Clip`) -> people (`BodyEstimate`) -> tracks of the clip on
    whose 2D joints the projected bodies lie (`TrackMatch`) -> rows (`_LabelledTrack`)

A clip's fingerprint changes with all that its rows depend on (`_add_fingerprint`). Only clips whose
fingerprint is not the committed one are matched and written. Estimates are no ground truth: `valid`
is 0 in all rows, and the manifest names each clip's tool and files.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np

import cache
from pipeline.cli.text import count
from pipeline.clips.labels.sam_3d_body import TOOL
from pipeline.datasets.shared.checks import missing_joints
from pipeline.datasets.shared.mhr import MHR_COLUMNS, MHR_JOINTS
from pipeline.datasets.shared.smpl import EXTRINSICS, INTRINSICS, UP, smplx_columns, smplx_labels
from pipeline.errors import PipelineError, RawDataError, StandInMixed
from pipeline.extras.exchange.bodies.estimate import BodyEstimate, BodyModels
from pipeline.extras.exchange.bodies.matching import Keypoints, TrackMatch, match_people
from pipeline.extras.exchange.bodies.tools import read_estimates
from pipeline.extras.exchange.bodies.worlds import HIPS, World, find_worlds
from pipeline.files.raw.files import whole_file_digest
from pipeline.grades import video_numbers
from pipeline.people.estimates import BodyFit, files_of, recorded_estimates
from pipeline.people.skeletons import JOINTS, Array, Doubles
from pipeline.people.smpl_files import N_BETAS, N_POSE
from pipeline.processes.software import staging_plan
from pipeline.steps.conversion.refusals import refuse_mixed_cache
from pipeline.steps.conversion_record import ConversionRecord, committed_split
from pipeline.steps.grading import announce_grades, store_grades

VERSION: Final = 7  # raised whenever the same files would give other labels; 7: one world a clip
# of clips with 3D joints in place of bodies; 8: rows with some of the 14 joints are counted;
# 9: MHR's joints and parameters
JOINTS_VERSION: Final = 9
LABELS: Final = ("pose", "betas", "trans", "has_smpl", "valid")
_TRUTH: Final = ("pose", "kp_3d", "kp_3d_eval")  # columns of splits with labels of their own
EXTRA: Final = (  # columns besides those of the clips' split and LABELS
    *smplx_columns(f"{N_BETAS} numbers", trans=True, gaps=True),
    replace(INTRINSICS, about="camera matrix that the tool assumed", gaps=True),
    replace(EXTRINSICS, gaps=True),
    UP,
)
EXTRA_OF_JOINTS: Final = (*EXTRA, MHR_JOINTS, *MHR_COLUMNS.values())  # and if a clip has joints
# fields that a track has in both caches, besides its columns
COPIED: Final = ("name", "video", "step", "fps", "crop_scale", "gender", "intrinsics")
WORLD_UP: Final = np.array([0, 1, 0], np.float32)  # the direction up in the tools' worlds


@dataclass(frozen=True, slots=True)
class _ImportedBodies:
    """Result of an import."""

    clips: int = 0  # number of new or changed clips
    with_body: int = 0  # number of their rows with a body or 3D joints
    # clip with result files -> its notes; for new or changed clips
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_written: bool = True  # False: all clips were up to date


@dataclass(slots=True, eq=False)
class _Clip:
    """The result files of one clip, all from the same tool."""

    tool: str
    is_smplx: bool
    files: list[Path] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)  # file name -> SHA-256

    def add(self, file: Path, camera_file: Path | None) -> None:
        """Add a result file, and the camera file that goes with it."""
        self.files.append(file)
        for part in filter(None, (file, camera_file)):
            self.digests[part.name] = whole_file_digest(part)


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
    files = [*itertools.chain.from_iterable(map(_list_files, files))]
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
        store_grades(root, name)
        return _ImportedBodies(is_written=False)

    plan = staging_plan(cache.fingerprint(origin | {"clips": split.manifest["digest"]}))
    labels = _labels_of(by_clip)
    columns = [*split.columns, *labels]
    extra = EXTRA_OF_JOINTS if "kp_3d" in labels else EXTRA
    with cache.SplitWriter(root, name, columns=columns, plan=plan, extra=extra) as writer:
        following = writer.begin(drop=to_drop)  # all other committed clips stay
        imported = _write_clips(following, split, changed, by_clip, bodies)
        accounting = split.manifest.get("accounting", {})
        announce_grades(root, name)
        following.commit(
            {"reader": origin, "stand_in": origin["stand_in"], "accounting": accounting}
        )
    store_grades(root, name, packed=following.measures())
    return imported


def _list_files(file: Path) -> list[Path]:
    """The files in a folder, as SAM 3D Body's of single images; or the file itself."""
    return sorted(file.iterdir()) if file.is_dir() else [file]


def _write_clips(
    following: cache.NextCommit,
    split: cache.Split,
    entries: Sequence[cache.VideoEntry],
    by_clip: Mapping[str, _Clip],
    bodies: BodyModels,
) -> _ImportedBodies:
    """Append these clips of the split, with their bodies.

    Clips that a killed import of the same files has finished are in `following.journalled`: they
    are matched again for their notes and rows, but not appended again.
    """
    labels = _labels_of(by_clip)
    by_video = itertools.groupby(split.tracks, lambda track: track.video)
    tracks = {video: list(group) for video, group in by_video}
    n_with_body = 0
    new_notes = {}
    for entry in entries:
        labelled = [_LabelledTrack(split, track, labels) for track in tracks.get(entry.name, ())]
        if entry.name in by_clip:
            size = entry.width, entry.height
            added = _add_bodies(by_clip[entry.name].files, labelled, size, bodies)
            new_notes[entry.name] = added.notes
            notes = [*entry.account.get("notes", ()), *added.notes]
            account = {**entry.account, "notes": notes, "body_fits": added.fits}
            unread = missing_joints(track.columns for track in labelled)
            if unread:
                account["unread"] = account.get("unread", {}) | unread
            entry = replace(entry, account=account)
        n_with_body += sum(int(track.has_body.sum()) for track in labelled)
        if entry.name not in following.journalled:
            rows = [track.rows() for track in labelled]
            entry = replace(entry, **video_numbers(rows, entry.account))
            following.append(entry, rows)
    return _ImportedBodies(len(entries), n_with_body, new_notes)


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
        stem = first.clip_of(file)
        same = [video for video, name in file_names.items() if first.stem_of(name) == stem]
        if len(same) != 1:
            expected = f"results of a clip of {split.name}"
            actual = f"{stem!r}, of which it has {len(same)}"
            do = "Name the results' folder as the clip, as the tool does."
            raise RawDataError(file, "clip", expected, actual, do)
        clip = joined.setdefault(same[0], _Clip(first.tool, first.is_smplx))
        has_several = clip.tool == first.tool in ("TRAM", TOOL)  # of a person, or of an image
        if clip.files and not has_several:
            do = "Import one tool's results of a clip."
            raise RawDataError(file, "clip", "one file for a clip", f"also {clip.files[0]}", do)
        _require_size(file, first, sizes[same[0]])
        clip.add(file, first.camera_file)
    return joined


def _require_size(file: Path, estimate: BodyEstimate, size: tuple[int, int]) -> None:
    """Raise RawDataError if the tool saw images of another size, or rotated ones."""
    if estimate.has_size(size) or estimate.size is None:
        return
    width, height = estimate.size
    actual = f"{width} x {height}"
    if estimate.has_size(size[::-1]):
        actual += ": it ignored the clip's rotation flag"
    do = "Run the tool on the clip's images as they are decoded."
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
        "version": JOINTS_VERSION if TOOL in tools else VERSION,
        "parameters": {},
        "body": bodies.smpl.digest,
        "stand_in": ConversionRecord(split).is_stand_in,
        "imported": {
            "format": "bodies",
            "file": f"estimates of {', '.join(sorted(tools))}",
            "smplx": bodies.smplx and bodies.smplx.digest,
            # fingerprint of how the clips' split was read
            "clips": cache.fingerprint(ConversionRecord(split).reader),
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
    inputs["labels"] = _labels_of(by_clip)  # with other columns, all clips are written anew
    return replace(entry, fingerprint=cache.fingerprint(inputs))


def _labels_of(by_clip: Mapping[str, _Clip]) -> tuple[str, ...]:
    """The columns of labels: also of 3D joints, if a clip has these in place of bodies."""
    has_joints = any(clip.tool == TOOL for clip in by_clip.values())
    return (*LABELS, "kp_3d", "has_3d") if has_joints else LABELS


def _require_same_files(
    committed: cache.Split, entries: Mapping[str, object], by_clip: Mapping[str, _Clip]
) -> None:
    """Raise PipelineError for a split of another origin, and for bodies that would be lost."""
    path = f"{committed.root}/{committed.name}"
    imported = ConversionRecord(committed).reader.get("imported", {})
    if imported.get("format") != "bodies":
        raise PipelineError(
            f"{path}: was not made of such files. Name another cache (--cache): the clips' own "
            "is not changed."
        )
    lost = files_of(recorded_estimates(committed), entries.keys() - by_clip.keys())
    if lost:
        raise PipelineError(
            f"{path}: bodies would be lost, of {lost[0]}, which is not named. Name the files of "
            "all clips, or another cache (--cache)."
        )


@dataclass(frozen=True, slots=True)
class _AddedBodies:
    """What a clip's entry records of its bodies."""

    fits: Mapping[str, list[BodyFit]]  # track's name -> of each person on it
    notes: list[str]


def _add_bodies(
    files: Sequence[Path],
    tracks: Sequence[_LabelledTrack],
    size: tuple[int, int],
    bodies: BodyModels,
) -> _AddedBodies:
    """Fill in the bodies of a clip's people, in the tracks on whose joints they lie.

    Of several people on a track, the closest is used first. Raises as `match_people`.
    """
    keypoints = [track.keypoints for track in tracks]
    fps = np.nan
    if tracks:
        fps = tracks[0].record.fps
    people = match_people(files, bodies, keypoints, size, fps)
    notes = [*people.notes]
    fits: dict[str, list[BodyFit]] = {}
    for match, world in zip(people.matches, find_worlds(people.matches), strict=True):
        track = tracks[match.track]
        pose = match.estimate.pose
        if bodies.smplx is not None:
            pose = bodies.smplx.whole_pose(pose)
        n_rows = track.fill(match, pose, world)
        if n_rows:
            name = track.record.name
            fits.setdefault(name, []).append(match.body_fit)
            rows_filled = f"{n_rows:,} of {count(track.n_rows, 'frame')}"
            notes.append(f"{name}: {rows_filled}: {_describe_fit(match)}")
    for track in tracks:
        n_rows = track.keep_one_world()
        if n_rows:
            lost = f"{track.record.name}: {count(n_rows, 'frame')} without extrinsics"
            notes.append(f"{lost}: most rows of their run are in another person's world")
    return _AddedBodies(fits, notes)


def _describe_fit(match: TrackMatch) -> str:
    """A person's fit, and what to know about its labels, as a note."""
    text = str(match.body_fit)
    if match.estimate.trans is None:
        text += "; trans is of a weak-perspective camera"
    return text


class _LabelledTrack:
    """A track of the new split: its copied labels, and bodies, which `fill` adds.

    Rows without a body have pose, betas and trans NaN. SMPL-X's bodies are extra columns, and leave
    SMPL's columns as they are; no imported row is `valid`, as that is for labels.
    """

    def __init__(
        self, split: cache.Split, record: cache.TrackRecord, labels: Sequence[str]
    ) -> None:
        self.record = record
        self.n_rows = record.stop - record.start
        self.columns: dict[str, Array] = {}
        for name in split.columns:
            self.columns[name] = np.array(split.rows(name, record.start, record.stop))
        if "kp_3d" in labels:
            self.columns["kp_3d"] = self._unknown(len(JOINTS["spin49"]), 4)
            self.columns["has_3d"] = np.zeros(self.n_rows, np.uint8)
        self.columns["pose"] = self._unknown(N_POSE)
        self.columns["betas"] = self._unknown(N_BETAS)
        self.columns["trans"] = self._unknown(3)
        self.columns["has_smpl"] = np.zeros(self.n_rows, np.uint8)
        self.columns["valid"] = np.zeros(self.n_rows, np.uint8)
        self.extra: dict[str, Array] = {}  # by name; those that a person's file has
        self.has_body = np.zeros(self.n_rows, bool)
        self.world = np.zeros(self.n_rows, np.int64)  # number of each row's world; 0: none

    def _unknown(self, *shape: int) -> Array:
        """A column (n_rows, *shape) of NaN."""
        return np.full((self.n_rows, *shape), np.nan, np.float32)

    @property
    def keypoints(self) -> Keypoints:
        """The track's 2D joints, with which bodies are compared."""
        columns = self.columns
        height = columns["bbox"][:, 3]
        return Keypoints(columns["frame_index"], columns["kp_2d"], height, self.record.name)

    def fill(self, match: TrackMatch, pose: Doubles, world: World | None) -> int:
        """Write a person's bodies on the track into the rows of their frames that have no body yet,
        so that the person who is given first stays. Returns the number of written rows.

        For all N bodies of the estimate: pose (N, 72) or with face and hands (N, 165) rad, and
        their world.
        """
        estimate = match.estimate
        track_rows = np.searchsorted(self.columns["frame_index"], estimate.frames[match.rows])
        is_free = ~self.has_body[track_rows]
        rows = match.rows[is_free]
        track_rows = track_rows[is_free]

        self.has_body[track_rows] = True
        cameras = self.extra.setdefault("intrinsics", self._unknown(3, 3))
        of_rows = match.intrinsics
        if of_rows.ndim == 3:
            of_rows = of_rows[rows]
        cameras[track_rows] = of_rows
        if world is not None:
            to_camera = self.extra.setdefault("extrinsics", self._unknown(4, 4))
            to_camera[track_rows] = [world.path[frame] for frame in estimate.frames[rows].tolist()]
            self.world[track_rows] = world.number
            self.extra["up"] = WORLD_UP

        for name, values in estimate.extra.items():
            column = self.extra.setdefault(name, self._unknown(*values.shape[1:]))
            column[track_rows] = values[rows]
        if estimate.joints is not None:
            hips = estimate.joints[rows][:, HIPS].mean(axis=1)
            joints = estimate.joints[rows] - hips[:, None]
            is_known = np.isfinite(joints).all(axis=2, keepdims=True)
            labelled = np.concatenate([np.where(is_known, joints, 0), is_known], axis=2)
            self.columns["kp_3d"][track_rows] = labelled
            self.columns["has_3d"][track_rows] = 1
            self.columns["trans"][track_rows] = match.trans[rows] + hips
            self.extra[MHR_JOINTS.name][track_rows] -= hips[:, None]
        elif estimate.is_smplx:
            labels = smplx_labels(pose[rows], estimate.betas[rows])
            labels["smplx_trans"] = match.trans[rows].astype(np.float32)
            for name, values in labels.items():
                if values.ndim:
                    column = self.extra.setdefault(name, self._unknown(values.shape[1]))
                    column[track_rows] = values
                else:  # one value for the track
                    self.extra[name] = values
        else:
            self.columns["pose"][track_rows] = pose[rows]
            self.columns["betas"][track_rows] = estimate.betas[rows]
            self.columns["trans"][track_rows] = match.trans[rows]
            self.columns["has_smpl"][track_rows] = 1
        return len(rows)

    def keep_one_world(self) -> int:
        """Set `extrinsics` to NaN in rows that are not in the world of most rows of their run: each
        world begins at an origin of its own. Returns the number of these rows.
        """
        run = np.cumsum(np.diff(self.columns["frame_index"], prepend=0) != self.record.step)
        n_rows = np.zeros((run[-1] + 1, self.world.max() + 1))  # by run and world
        np.add.at(n_rows, (run, self.world), self.world > 0)
        others = np.flatnonzero((self.world > 0) & (self.world != n_rows.argmax(axis=1)[run]))
        if len(others):
            self.extra["extrinsics"][others] = np.nan
        return len(others)

    def rows(self) -> cache.TrackRows:
        """The track as the writer of the split takes it."""
        copied = {name: getattr(self.record, name) for name in COPIED}
        return cache.TrackRows(**copied, columns=self.columns, extra=self.extra)
