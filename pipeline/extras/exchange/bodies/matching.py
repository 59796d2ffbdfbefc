"""Match estimated people with the tracks on whose 2D joints their bodies lie.  [files of other
programs] -> tracks

`match_people` reads the people of a clip's result files. `fit` compares the projected bodies of
each person with each track. If most bodies are far from all tracks, it corrects each mistake that
tools and settings are known to make, and names the one whose correction helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.cli.text import count
from pipeline.clips.labels.sam_3d_body import is_of_tool
from pipeline.errors import RawDataError
from pipeline.extras.exchange.bodies.estimate import BodyEstimate, BodyModels
from pipeline.extras.exchange.bodies.people_in_frames import (
    add_cameras,
    read_estimate,
    split_by_track,
)
from pipeline.extras.exchange.bodies.tools import read_estimates
from pipeline.people.cameras import project
from pipeline.people.estimates import BodyFit
from pipeline.people.skeletons import KEYPOINTS_13_OF_SPIN49, PELVIS, Bools, Doubles, Ints
from pipeline.people.track import FARTHEST_M

# Distances of bodies, as shares of the box's height:
NOTED: Final = 0.05  # beyond it, a note is written
REFUSED: Final = 0.15  # beyond it, a body is not imported
ELSEWHERE: Final = 1.0  # a body that is farther away belongs to someone else
CONFIDENT: Final = 0.3  # least confidence of a 2D joint that is compared
_LARGER_CROP: Final = 1.1  # VIBE's crop side / side of the boxes that it writes
CLEARLY: Final = 0.5  # a likely cause, or another track, leaves at most this share of the distance
_NAMED, _OPENPOSE = KEYPOINTS_13_OF_SPIN49
# shoulders, hips, knees and ankles, by either name
COMPARED: Final = (*_NAMED[1:3], *_NAMED[7:], *_OPENPOSE[1:3], *_OPENPOSE[7:])
SHIFTS: Final = (-2, -1, 1, 2)  # frames by which a tool's frame numbers may be off
RATES: Final = (0.5, 5 / 6, 1.2, 2.0)  # shares of the clip's rate at which a tool may have read it
SMPLX_PELVIS: Final = np.array([0.0, -0.12, -0.02])  # m, about: SMPL-X's rest pelvis minus SMPL's


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """2D joints of one person: frame_index (T,), kp_2d (T, 49, 3) px px confidence, height (T,) px
    of the box.
    """

    frame_index: Ints
    kp_2d: Doubles
    height: Doubles
    name: str = "track"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackMatch:
    """The bodies of an estimated person that lie on a track's 2D joints."""

    track: int  # its number among the clip's tracks
    rows: Ints  # these bodies, of the N in the estimate
    distance: float  # median over `rows`, in heights of the box
    cause: str  # likeliest cause of the person's distance; "" if it is small
    estimate: BodyEstimate
    joints: Doubles  # spin49 (N, 49, 3) m, without translation
    trans: Doubles  # (N, 3) m in the camera
    intrinsics: Doubles  # (3, 3) px, for the clip's pictures

    @property
    def body_fit(self) -> BodyFit:
        """How well these bodies fit the track, as the manifest records it."""
        cause = self.cause if self.distance > NOTED else ""
        return BodyFit(self.estimate.name, round(self.distance, 4), cause)


@dataclass(frozen=True, slots=True)
class _MatchedPeople:
    """The people of a clip who lie on tracks, the closest to a track first; and notes."""

    matches: list[TrackMatch]
    notes: list[str]


def match_people(
    files: Sequence[Path],
    models: BodyModels,
    tracks: Sequence[Keypoints],
    size: tuple[int, int],
    fps: float,
) -> _MatchedPeople:
    """Find the tracks of a clip on which the bodies of each person in its result files lie.

    size: width and height px of the clip. fps: its rate; NaN: unknown.

    Raises RawDataError if people lie only beside tracks, and none on a track.
    """
    matches: list[TrackMatch] = []
    notes: list[str] = []
    misfits: list[RawDataError] = []  # of people who lie only beside tracks
    for file, estimate in _estimates(files, tracks, size, fps, notes):
        n_stored = len(estimate.frames) + sum(estimate.dropped.values())
        for reason, n in estimate.dropped.items():
            notes.append(f"{estimate.name}: {n} of {n_stored} estimates left out: {reason}")
        joints = models.joints(estimate)
        fitted = fit(estimate, joints, tracks, size)
        if np.isnan(fitted.distance):
            notes.append(f"{estimate.name}: not checked: no 2D joint in its frames")
        elif fitted.distance > REFUSED:
            actual = _describe_misfit(estimate, fitted)
            notes.append(f"no track lies within {REFUSED:.0%}, but {actual}")
            if not ELSEWHERE < fitted.distance < np.inf:
                expected = f"projected joints within {REFUSED:.0%} of the box of the 2D joints"
                do = "Put it right in the tool's settings, or leave the file out."
                misfits.append(RawDataError(file, "projection", expected, actual, do))
        else:
            matches_of_person = _match_tracks(fitted, estimate, joints, size)
            notes += _note_rows_without_body(estimate, fitted, matches_of_person)
            matches += matches_of_person
    if misfits and not matches:
        raise misfits[0]
    return _MatchedPeople(sorted(matches, key=lambda match: match.distance), notes)


def _estimates(
    files: Sequence[Path],
    tracks: Sequence[Keypoints],
    size: tuple[int, int],
    fps: float,
    notes: list[str],
) -> Iterator[tuple[Path, BodyEstimate]]:
    """Yield each person with its file. Of people without identities, those on a track are one."""
    if not is_of_tool(files[0]):
        for file in files:
            for stored in read_estimates(file):
                yield file, stored.convert_to_clip(size, fps)
        return

    def distances(some: BodyEstimate) -> Doubles:
        assert some.joints is not None
        return fit(some, some.joints, tracks, size).distances

    people = add_cameras(files[0], read_estimate(files), size)
    names = [track.name for track in tracks]
    for estimate in split_by_track(people, distances, names, most=REFUSED, notes=notes):
        yield files[0], estimate


def _match_tracks(
    fitted: _ProjectionFit, estimate: BodyEstimate, joints: Doubles, size: tuple[int, int]
) -> list[TrackMatch]:
    """Find the bodies of a person on each track on which most of them lie; a body on one track."""
    trans = estimate.position(size, fitted.margin)
    intrinsics = estimate.pixel_intrinsics(size)
    matches = []
    is_free = np.ones(len(estimate.frames), bool)
    medians = fitted.medians
    for number in np.argsort(medians).tolist():
        rows = fitted.find_rows_of_track(number)
        rows = rows[is_free[rows]]
        if medians[number] <= REFUSED and len(rows):
            is_free[rows] = False
            match = TrackMatch(
                track=number,
                rows=rows,
                distance=float(np.median(fitted.distances[number, rows])),
                cause=fitted.cause,
                estimate=estimate,
                joints=joints,
                trans=trans,
                intrinsics=intrinsics,
            )
            matches.append(match)
    return matches


@dataclass(frozen=True, slots=True, eq=False)
class _ProjectionFit:
    """How well the N bodies of one person fit the 2D joints of each of T tracks."""

    # (T, N) in heights of the box; nan if there is no joint to compare, infinite for a body with a
    # compared joint that the camera cannot see, or over FARTHEST_M away
    distances: Doubles
    margin: float = 1.0  # the `margin` of `BodyEstimate.position` that fits better
    cause: str = ""  # likeliest cause of a distance beyond NOTED

    @property
    def medians(self) -> Doubles:
        """The median distance (T,) from each track; nan for one without a body to compare."""
        return np.array([_median(distances) for distances in self.distances])

    @property
    def distance(self) -> float:
        """The median distance from the closest track; nan without a body to compare."""
        return float(np.fmin.reduce(self.medians, initial=np.nan))

    @property
    def closest(self) -> Doubles:
        """The distance (N,) of each body from the track that is closest to it."""
        return np.asarray(np.fmin.reduce(self.distances, axis=0, initial=np.nan))

    def find_rows_of_track(self, track: int) -> Ints:
        """The bodies that lie on a track, and on no other one clearly more closely."""
        distances = self.distances[track]
        is_closest = self.closest >= CLEARLY * distances
        return np.flatnonzero(is_closest & (distances <= REFUSED))


def fit(
    estimate: BodyEstimate,
    joints: Doubles,
    tracks: Sequence[Keypoints],
    size: tuple[int, int],
) -> _ProjectionFit:
    """Compare projected bodies with the 2D joints of tracks, in the frames that both have.

    joints: Joints of the bodies in spin49, (N, 49, 3) m without translation. size: width, height px
    of the clip.
    """
    comparisons = [_JointComparison(joints, estimate, track, size) for track in tracks]
    margins: tuple[float, ...] = (1.0,)
    if estimate.trans is None:
        margins = (_LARGER_CROP, 1.0)
    fits = []
    for margin in margins:
        trans = estimate.position(size, margin)
        distances = [comparison.distances(trans) for comparison in comparisons]
        fits.append(_ProjectionFit(np.reshape(distances, (len(tracks), len(joints))), margin))
    best = min(fits, key=lambda fitted: fitted.distance)
    if not NOTED < best.distance < np.inf:
        return best

    trans = estimate.position(size, best.margin)
    causes = []
    for comparison in comparisons:
        for cause, remaining in comparison.try_causes(trans):
            causes.append((np.nan_to_num(remaining, nan=np.inf), cause))
    remaining, likeliest = min(causes)
    if remaining > CLEARLY * best.distance:
        likeliest = "no known cause"
    return replace(best, cause=likeliest)


@dataclass(frozen=True, slots=True, eq=False)
class _JointComparison:
    """Posed joints (N, 49, 3) m of an estimate, and the 2D joints that they are compared with."""

    joints: Doubles
    estimate: BodyEstimate
    keypoints: Keypoints
    size: tuple[int, int]

    def distances(self, trans: Doubles, frames: Ints | None = None) -> Doubles:
        """The distance (N,) of each body, as in `_ProjectionFit`. frames: (N,) other ones than the
        estimate's.
        """
        if frames is None:
            frames = self.estimate.frames
        rows, rows_2d = self._common_rows(frames)
        projected = self._project(trans, self.estimate.pixel_intrinsics(self.size))
        distances = np.full(len(trans), np.nan)
        distances[rows] = self._row_distances(projected[rows], rows_2d)
        return distances

    def distance(self, trans: Doubles, frames: Ints | None = None) -> float:
        """The median of the distances; nan without any."""
        return _median(self.distances(trans, frames))

    def try_causes(self, trans: Doubles) -> Iterator[tuple[str, float]]:
        """Yield (cause, distance if it is corrected) for each known cause of a distance."""
        pelvis = self.joints[:, PELVIS]
        yield "the mid-hip's place is taken for a translation", self.distance(trans - pelvis)
        if self.estimate.joints is not None:
            pass
        elif self.estimate.is_smplx:
            yield "a body of SMPL is taken for SMPL-X's", self.distance(trans - SMPLX_PELVIS)
        else:
            yield "a body of SMPL-X is taken for SMPL's", self.distance(trans + SMPLX_PELVIS)
        frames = self.estimate.frames
        for shift in SHIFTS:
            yield f"frames are shifted by {shift:+d}", self.distance(trans, frames + shift)
        for rate in RATES:
            in_clip = np.floor(frames / rate).astype(np.int64)
            cause = f"the clip was read at {rate:.2g} of its rate"
            yield cause, self.distance(trans, in_clip)
        yield from self._try_image_causes(trans)

    def _try_image_causes(self, trans: Doubles) -> Iterator[tuple[str, float]]:
        """The same for causes in the camera, and in images other than the clip's."""
        rows, rows_2d = self._common_rows(self.estimate.frames)
        keypoints, is_seen = self._compared_keypoints(rows_2d)
        camera = self.estimate.pixel_intrinsics(self.size)
        projected = self._project(trans, camera)[rows]
        center = camera.reshape(-1, 3, 3)[0, :2, 2]
        ratio = _scale(projected - center, keypoints - center, is_seen)
        if ratio > 0:
            zoomed = (projected - center) * ratio + center
            yield f"the focal length is {1 / ratio:.2f} of it", self._distance(zoomed, rows_2d)
        resize = _scale(projected, keypoints, is_seen)
        if resize > 0:
            cause = f"images had {1 / resize:.2f} of the size"
            yield cause, self._distance(projected * resize, rows_2d)
        width, height = self.size
        # in images that are on their side, width and height are exchanged
        rotated = self._project(trans, self.estimate.pixel_intrinsics((height, width)))[rows]
        x = rotated[..., 0]
        y = rotated[..., 1]
        clockwise = self._distance(np.stack([width - y, x], axis=-1), rows_2d)
        counterclockwise = self._distance(np.stack([y, height - x], axis=-1), rows_2d)
        cause = "images were turned: the tool ignored the clip's rotation flag"
        yield cause, min(clockwise, counterclockwise)

    def _common_rows(self, frames: Ints) -> tuple[Ints, Ints]:
        """Rows of the bodies and of the 2D joints in common frames."""
        _, rows, rows_2d = np.intersect1d(frames, self.keypoints.frame_index, return_indices=True)
        return rows, rows_2d

    def _project(self, trans: Doubles, camera: Doubles) -> Doubles:
        """Project the COMPARED joints, (N, J, 2) px; NaN for bodies over FARTHEST_M away."""
        is_near = np.all(np.abs(trans) <= FARTHEST_M, axis=1)  # comparisons with NaN are false
        places = np.where(np.expand_dims(is_near, 1), trans, np.nan)
        if camera.ndim == 3:
            camera = camera[:, None]
        return project(self.joints[:, COMPARED] + places[:, None], camera)

    def _compared_keypoints(self, rows_2d: Ints) -> tuple[Doubles, Bools]:
        """The COMPARED 2D joints (n, J, 2) px, and (n, J) whether they are confident and the bodies
        have them.
        """
        joints = self.keypoints.kp_2d[rows_2d][:, COMPARED]
        has_joint = np.isfinite(self.joints[:, COMPARED, 0]).any(axis=0)
        return joints[..., :2], (joints[..., 2] >= CONFIDENT) & has_joint

    def _row_distances(self, projected: Doubles, rows_2d: Ints) -> Doubles:
        """The distance (n,) of each row of projected joints (n, J, 2) px: the median over the
        compared ones, as in `_ProjectionFit`.
        """
        keypoints, is_seen = self._compared_keypoints(rows_2d)
        height = self.keypoints.height[rows_2d]
        of_joints = np.linalg.norm(projected - keypoints, axis=-1) / height[:, None]
        is_lost = np.any(is_seen & ~np.isfinite(of_joints), axis=1)
        distances = np.where(is_lost, np.inf, np.nan)
        has_median = np.any(is_seen, axis=1) & ~is_lost
        compared = np.where(is_seen, of_joints, np.nan)[has_median]
        distances[has_median] = np.nanmedian(compared, axis=1)
        return distances

    def _distance(self, projected: Doubles, rows_2d: Ints) -> float:
        """The median distance of rows of projected joints (n, J, 2) px; nan without any."""
        return _median(self._row_distances(projected, rows_2d))


def _median(distances: Doubles) -> float:
    """The median of the distances that are not nan; nan without any."""
    finite = distances[~np.isnan(distances)]
    if not len(finite):
        return np.nan
    return float(np.median(finite))


def _scale(projected: Doubles, seen: Doubles, is_seen: Bools) -> float:
    """The factor by which projected points come closest to the seen ones, by least squares; 1
    without any.
    """
    used = is_seen & np.isfinite(projected).all(axis=-1)
    projected = projected[used]
    length = float((projected**2).sum())
    if not length:
        return 1.0
    return float((projected * seen[used]).sum()) / length


def _describe_misfit(estimate: BodyEstimate, fitted: _ProjectionFit) -> str:
    """How far a person is from all tracks, and why."""
    if np.isinf(fitted.distance):
        return f"{estimate.name} is behind the camera, or over {FARTHEST_M:,.0f} m away"
    return f"{fitted.distance:.0%} in {estimate.name}; likely: {fitted.cause}"


def _note_rows_without_body(
    estimate: BodyEstimate, fitted: _ProjectionFit, matches: Sequence[TrackMatch]
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
