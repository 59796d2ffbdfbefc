"""Estimated bodies as labels of a detector's people: a split of clips -> a split with bodies, in
another cache.  [files of other programs] -> tracks

Each person of a result file is joined to the tracks whose 2D joints the projected body lies on.
Estimates are no ground truth: `valid` is 0 in all rows, and the manifest names each clip's tool and
file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.body import Body
from pipeline.conversion.plan import committed_split
from pipeline.errors import PipelineError, RawDataError
from pipeline.exchange.bodies.projection import NOTED, REFUSED, Fit, Keypoints, fit
from pipeline.exchange.bodies.tools import N_BETAS, N_POSE, Estimate, clip_of, read_estimates
from pipeline.files.raw.files import whole_file_digest
from pipeline.processes.software import staging_plan

VERSION: Final = 1  # raised whenever the same files would give other labels
LABELS: Final = ("pose", "betas", "trans", "has_smpl", "valid")
ELSEWHERE: Final = 1.0  # heights of a box: bodies farther away are of another person


@dataclass(frozen=True, slots=True)
class ImportedBodies:
    """Result of an import. `why` is "" if everything was up to date."""

    rows: int  # of the split
    with_body: int
    notes: Mapping[str, Sequence[str]]  # of each clip with results
    why: str


@dataclass(slots=True, eq=False)
class _Clip:
    """The people of one result file, and the clip that they are in."""

    file: Path
    sha256: str
    people: Sequence[Estimate]
    notes: list[str] = field(default_factory=list)

    @property
    def tool(self) -> str:
        return self.people[0].tool


def import_bodies(
    files: Sequence[Path], clips: cache.Root, root: cache.Root, name: str, body: Body
) -> ImportedBodies:
    """Make the split `name` in the cache `root`: the tracks that it has in the cache `clips`, with
    the bodies of the result files as pose, betas, trans and has_smpl.

    Raises:
        RawDataError: a file is invalid, of no clip of the split, of pictures of another size, or
            its bodies do not lie on the people.
        UnsafePickle: a file would run code.
        PipelineError: the split exists in `root` with another origin.
        cache.CacheError: the split is missing in `clips`, or another process writes it.
    """
    split = cache.open(clips)[name]
    by_clip = _join_clips(files, split)
    origin = _origin(split, by_clip, body)
    committed = committed_split(root, name)
    if committed is not None:
        if committed.manifest.get("reader") != origin:
            raise PipelineError(
                f"{root}/{name}: was made from other files. Name another cache (--cache), or "
                "delete that folder with its features."
            )
        return ImportedBodies(int(committed.manifest["rows"]), 0, {}, "")
    columns = [*split.columns, *LABELS]
    plan = staging_plan(cache.fingerprint(origin))
    n_with_body = 0
    with cache.SplitWriter(root, name, columns=columns, plan=plan) as writer:
        writer.begin()
        for entry in split.videos:
            clip = by_clip.get(entry.name)
            tracks = [track for track in split.tracks if track.video == entry.name]
            labelled = [_rows(split, track) for track in tracks]
            if clip is not None:
                _add_bodies(clip, labelled, (entry.width, entry.height), body)
            n_with_body += sum(int(rows.columns["has_smpl"].sum()) for rows in labelled)
            if entry.name not in writer.journalled:
                writer.append(_noted(entry, clip), labelled)
        writer.commit(
            {
                "reader": origin,
                "stand_in": split.manifest["stand_in"],
                "accounting": split.manifest.get("accounting", {}),
            }
        )
    notes = {video: clip.notes for video, clip in by_clip.items()}
    n_rows = int(cache.open(root)[name].manifest["rows"])
    return ImportedBodies(n_rows, n_with_body, notes, "not imported before")


def _join_clips(files: Sequence[Path], split: cache.Split) -> dict[str, _Clip]:
    """Result files by the names of their clips."""
    sizes = {entry.name: (entry.width, entry.height) for entry in split.videos}
    joined: dict[str, _Clip] = {}
    for file in files:
        people = read_estimates(file)
        stem = clip_of(file, people[0].tool)
        same = [name for name in sizes if PurePath(name).name.partition(".")[0] == stem]
        if len(same) != 1:
            expected = f"results of a clip of {split.name}"
            found = f"{stem!r}, of which it has {len(same)}"
            do = "Name the results' folder as the clip, as the tool does."
            raise RawDataError(file, "clip", expected, found, do)
        if same[0] in joined:
            do = "Import one tool's results of a clip."
            other = joined[same[0]].file
            raise RawDataError(file, "clip", "one file for a clip", f"also {other}", do)
        if people[0].is_smplx:
            do = "Import results of WHAM, PHALP, VIBE or TCMR."
            raise RawDataError(file, "body", "SMPL's", f"{people[0].tool}'s SMPL-X", do)
        _require_size(file, people[0], sizes[same[0]])
        joined[same[0]] = _Clip(file, whole_file_digest(file), people)
    return joined


def _require_size(file: Path, estimate: Estimate, size: tuple[int, int]) -> None:
    """Raise RawDataError if the tool saw pictures of another size, or turned."""
    if estimate.size in (None, size):
        return
    turned = estimate.size == size[::-1]
    why = ": it ignored the clip's rotation flag" if turned else ""
    found = f"{estimate.size[0]} x {estimate.size[1]}{why}" if estimate.size else ""
    do = "Run the tool on the clip's pictures as they are decoded."
    raise RawDataError(file, "size", f"{size[0]} x {size[1]} px", found, do)


def _origin(split: cache.Split, by_clip: Mapping[str, _Clip], body: Body) -> dict[str, Any]:
    """The manifest's `reader` entry."""
    dataset, _, part = split.name.partition("/")
    estimates = {}
    for video in sorted(by_clip):
        clip = by_clip[video]
        estimates[video] = {"tool": clip.tool, "file": clip.file.name, "sha256": clip.sha256}
    tools = sorted({clip.tool for clip in by_clip.values()})
    return {
        "dataset": dataset,
        "split": part,
        "version": VERSION,
        "parameters": {},
        "body": body.digest,
        "stand_in": bool(split.manifest["stand_in"]),
        "imported": {
            "format": "bodies",
            "file": f"estimates of {', '.join(tools)}",
            "from_split": split.manifest["digest"],
            "estimates": estimates,
        },
    }


def _rows(split: cache.Split, track: cache.TrackRecord) -> cache.TrackRows:
    """The track's rows, without a body."""
    n = track.stop - track.start
    columns: dict[str, NDArray[Any]] = {}
    for name in split.columns:
        columns[name] = np.array(split.rows(name, track.start, track.stop))
    columns["pose"] = np.full((n, N_POSE), np.nan, np.float32)
    columns["betas"] = np.full((n, N_BETAS), np.nan, np.float32)
    columns["trans"] = np.full((n, 3), np.nan, np.float32)
    columns["has_smpl"] = np.zeros(n, np.uint8)
    columns["valid"] = np.zeros(n, np.uint8)
    return cache.TrackRows(
        name=track.name,
        video=track.video,
        step=track.step,
        fps=track.fps,
        crop_scale=track.crop_scale,
        gender=track.gender,
        intrinsics=track.intrinsics,
        columns=columns,
    )


def _add_bodies(
    clip: _Clip, tracks: Sequence[cache.TrackRows], size: tuple[int, int], body: Body
) -> None:
    """Fill the rows of the tracks that the people of a result file lie on."""
    for estimate in clip.people:
        for reason, n in estimate.dropped.items():
            clip.notes.append(f"{estimate.tool}'s person {estimate.person}: {n} frames: {reason}")
        fits = [fit(estimate, _keypoints(track), body, size) for track in tracks]
        best = min((found.distance for found in fits), default=np.inf)
        if not best <= ELSEWHERE:
            clip.notes.append(f"{estimate.tool}'s person {estimate.person}: no track lies there")
            continue
        if best > REFUSED:
            nearest = min(fits, key=lambda found: found.distance)
            actual = f"{best:.0%} in person {estimate.person}; likely: {nearest.cause}"
            expected = f"projected joints within {REFUSED:.0%} of the box of the 2D joints"
            do = "Put it right in the tool's settings, or leave the file out."
            raise RawDataError(clip.file, "projection", expected, actual, do)
        for track, fitted in zip(tracks, fits, strict=True):
            if fitted.distance <= REFUSED:
                _fill(track, estimate, fitted, size, clip)


def _keypoints(track: cache.TrackRows) -> Keypoints:
    columns = track.columns
    return Keypoints(columns["frame_index"], columns["kp_2d"], columns["bbox"][:, 3])


def _fill(
    track: cache.TrackRows, estimate: Estimate, found: Fit, size: tuple[int, int], clip: _Clip
) -> None:
    """Write a person's bodies into the rows of a track that have none yet."""
    columns = track.columns
    _, rows, of_track = np.intersect1d(estimate.frames, columns["frame_index"], return_indices=True)
    is_free = columns["has_smpl"][of_track] == 0
    rows = rows[is_free]
    of_track = of_track[is_free]
    columns["pose"][of_track] = estimate.pose[rows]
    columns["betas"][of_track] = estimate.betas[rows]
    columns["trans"][of_track] = estimate.position(size, found.margin)[rows]
    columns["has_smpl"][of_track] = 1
    text = f"{track.name}: {estimate.tool}'s person {estimate.person}, {found.distance:.1%} off"
    if found.distance > NOTED:
        text += f"; likely: {found.cause}"
    if estimate.trans is None:
        text += "; trans is of a weak-perspective camera"
    clip.notes.append(text)


def _noted(entry: cache.VideoEntry, clip: _Clip | None) -> cache.VideoEntry:
    """The clip's entry with the notes, and another fingerprint."""
    if clip is None:
        return entry
    account = dict(entry.account)
    account["notes"] = [*account.get("notes", ()), *clip.notes]
    return cache.VideoEntry(
        name=entry.name,
        source=entry.source,
        pixels=entry.pixels,
        width=entry.width,
        height=entry.height,
        fingerprint=cache.fingerprint({"clip": entry.fingerprint, "bodies": clip.sha256}),
        account=account,
    )
