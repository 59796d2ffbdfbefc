"""Contract of dataset readers, checked on their tracks (docs/adding-a-dataset.md).  [raw -> tracks]

It cannot check whether left and right are swapped: look at the images for that.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pytest

import cache
from pipeline.accounting import VideoAccount
from pipeline.datasets.base import Dataset, Origin, Release
from pipeline.datasets.shared.checks import LabelRules
from pipeline.errors import RawDataError, describe_error, reading_refused
from pipeline.files.pixels import sources
from pipeline.files.pixels.pictures import OTHER_SIZE, Pictures
from pipeline.files.raw import RawVideo
from pipeline.people.track import Track
from pipeline.testing.labels import LabelMistakes, track_problems

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from pipeline.people.smplx_body import SmplxBody

# paths that were opened, for each open block of `_files_opened`, the innermost last
_OPENED: Final[list[set[str]]] = []


class DatasetContract:
    """Tests of a dataset's reader (`reader_problems`): fixtures `dataset` and `raw`, its raw
    folder.
    """

    @pytest.fixture
    def split(self, dataset: Dataset) -> str:
        """Name of the split to read; parametrize the class by `split` to read several (default: the
        first).
        """
        return dataset.splits[0]

    @pytest.fixture
    def body(self) -> Body | SmplxBody | None:
        """Body model to check `pose`; required for datasets with `uses_body` (default: none)."""
        return None

    def test_reader_keeps_its_promises(
        self, dataset: Dataset, raw: Path, split: str, body: Body | SmplxBody | None
    ) -> None:
        fail_if_any(reader_problems(dataset, raw, split, body))


def reader_problems(
    dataset: Dataset, raw: Path, split: str, body: Body | SmplxBody | None = None
) -> list[str]:
    """Read a whole split twice and list the promises that its reader breaks; empty if none.

    Rejecting a video with RawDataError is allowed; failing with another error is a problem. Decodes
    the first frame of each track. Raises what `videos` raises.
    """
    problems = [*version_problems(dataset), *_declaration_problems(dataset)]
    if not problems and dataset.labels.needs_body and body is None:
        problems.append("labels.needs_body is True: override the fixture `body`")
    if problems:
        return problems
    dataset = dataset.detect_layout(raw, split)
    listed = list(dataset.videos(raw, split))
    listed_again = list(dataset.videos(raw, split))
    problems = list(_listing_problems(listed, listed_again))
    columns = dataset.columns(split, body=body is not None)
    extra_columns = dataset.extra_columns(split, body=body is not None)
    problems += _column_problems(dataset.labels, columns, extra_columns)
    with _files_opened(raw) as shared_files:
        dataset.shared(raw)
    examined = _ExaminedSplit(dataset, raw, split, body)
    mistakes = LabelMistakes()
    names: set[str] = set()
    rejections: list[str] = []
    for video in listed:
        try:
            with reading_refused(), _files_opened(raw) as opened_files:
                first = examined.read(video)
                second = examined.read(video)
        except Exception as error:  # conversion rejects the video for any error
            problems.append(f"{video.name}: {describe_error(error)}")
            continue
        problems += _origin_problems(video, first, second)
        problems += _account_problems(first, second)
        problems += _opened_problems(video, opened_files - shared_files)
        for track, again in zip(first.tracks, second.tracks, strict=False):
            problems += _name_problems(examined, video, track, names)
            names.add(track.name)
            problems += track_problems(track)
            problems += _extra_problems(track, extra_columns)
            problems += _differences(track, again)
            problems += _source_problems(raw, video, track)
            mistakes.check(track, dataset, body)
        if first.account.message:
            rejections.append(f"; {video.name}: {first.account.message}")

    problems += mistakes.problems(split)
    if not problems and not names:
        problems = [f"{split}: no track was read, so nothing was checked{''.join(rejections[:1])}"]
    return problems


class _VideoReading(NamedTuple):
    """What a dataset returns for a video."""

    tracks: Sequence[Track]
    account: VideoAccount
    origin: Origin


class _ExaminedSplit(NamedTuple):
    """A split whose reader is examined."""

    dataset: Dataset
    raw: Path
    name: str
    body: Body | SmplxBody | None

    def read(self, video: RawVideo) -> _VideoReading:
        """Read a video. Raises what the reader raises, but for rejections of the video."""
        dataset = self.dataset
        tracks, account = dataset.read_accounted(self.raw, self.name, video, self.body)
        return _VideoReading(tracks, account, dataset.origin(video.name))


def _listing_problems(listed: Sequence[RawVideo], again: Sequence[RawVideo]) -> Iterator[str]:
    """Problems of a list of videos, compared with a second listing."""
    names = [video.name for video in listed]
    if names != sorted(names):
        yield "videos() is not sorted by name"
    if len(set(names)) != len(names):
        yield "videos() lists a name twice"
    if listed != again:
        yield "videos() lists something else the second time"
    for video in listed:
        if any(path.is_absolute() for path in video.paths):
            yield f"{video.name}: its files and folders are not below the raw folder"


def _opened_problems(video: RawVideo, opened_files: Iterable[Path]) -> Iterator[str]:
    """Opened files (paths below the raw folder) that the video does not name."""
    named = {Path(os.path.normpath(path)) for path in video.paths}
    for path in sorted(opened_files):
        if named.isdisjoint((path, path.parent)):
            yield f"{video.name}: read() opens {path}, which neither videos() nor shared() names"


@contextmanager
def _files_opened(raw: Path) -> Iterator[set[Path]]:
    """Yield a set, which gets at the end of the block the files below `raw` that Python code of
    this process opened in it, as paths below `raw`.
    """
    _listen()
    paths: set[str] = set()
    opened: set[Path] = set()
    _OPENED.append(paths)
    try:
        yield opened
    finally:
        _OPENED.pop()
        root = raw.absolute()
        for name in paths:
            path = Path(os.path.normpath(Path(name).absolute()))
            if path.is_relative_to(root) and path.is_file():
                opened.add(path.relative_to(root))


@functools.cache
def _listen() -> None:
    """Record opened files by an audit hook. Cached: once per process, since hooks stay forever."""
    sys.addaudithook(_record)


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    """Add the path of a file that is opened to the sets of all open blocks."""
    if _OPENED and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        for paths in _OPENED:
            paths.add(os.fsdecode(arguments[0]))


def _extra_problems(track: Track, declared: Iterable[cache.ExtraColumn]) -> Iterator[str]:
    """Problems of a track's extra columns that reading does not reject: dtypes and mirroring."""
    for column in declared:
        if column.name not in track.extra:
            continue
        values = track.extra[column.name]
        about = f"{track.name}: {column.name}"
        are_flags = column.dtype == "uint8" and values.dtype == np.bool_
        if not are_flags and values.dtype != column.dtype:
            yield f"{about} is {values.dtype}, not {column.dtype}"
        rows = np.asarray(values, column.dtype)
        if column.per != "row":
            rows = rows[None]  # of the whole track: mirrored as one row
        try:
            once = column.mirrored(rows.copy(), track.dataset)
            again = column.mirrored(once.copy(), track.dataset)
        except Exception as error:  # third-party code can raise anything
            yield f"{about} cannot be mirrored: {describe_error(error)}"
            continue
        mirrored = once if column.per == "row" else once[0]
        # mirroring may round
        tolerance = 1e-4 * float(np.abs(rows).max(initial=1))
        if once.dtype != rows.dtype or column.problem(mirrored, len(rows)):
            yield f"{about} is invalid after mirroring"
        elif not np.allclose(again, rows, rtol=1e-4, atol=tolerance):
            yield f"{about} differs after mirroring it twice"


def _declaration_problems(dataset: Dataset) -> Iterator[str]:
    """Problems of the class variables `splits`, `release` and `labels`."""
    if not isinstance(dataset.splits, tuple) or not all(
        isinstance(split, str) for split in dataset.splits
    ):
        yield f"splits is {dataset.splits!r}: expected a tuple of names, such as ('train',)"
    options = {option.name for option in fields(dataset)}
    for name in sorted(options & Dataset.__annotations__.keys()):
        yield f"{name} is an option: declare it without a type, as a class variable"
    names = {*dir(Dataset), *options}
    for name, record in (("release", Release), ("labels", LabelRules)):
        if not isinstance(getattr(dataset, name), record):
            yield f"{name} is {getattr(dataset, name)!r}: expected a {record.__name__}"
        for entry in fields(record):
            if hasattr(dataset, entry.name) and entry.name not in names:
                yield f"{entry.name} is a class variable: declare it as {name}.{entry.name}"


def _column_problems(
    rules: LabelRules, columns: Collection[str], extra_columns: Iterable[cache.ExtraColumn]
) -> Iterator[str]:
    """Problems of a split's columns that `labels` declares otherwise."""
    has_joints = "kp_2d" in columns
    if has_joints == (rules.keypoints_from == "none"):
        yield f"kp_2d is a column: {has_joints}; labels.keypoints_from: {rules.keypoints_from!r}"
    for column in extra_columns:
        if (column.mirror is None) != (column.name in rules.unmirrored):
            yield (
                f"extra column {column.name} has mirror {column.mirror!r}: name it in "
                "labels.unmirrored if it is the same for a mirrored image, and only then"
            )


def _name_problems(
    examined: _ExaminedSplit, video: RawVideo, track: Track, taken: Collection[str]
) -> Iterator[str]:
    """Problems of a track's names. taken: names of earlier tracks."""
    expected = (examined.dataset.name, examined.name, video.name)
    if (track.dataset, track.split, track.video) != expected:
        yield f"{track.name}: its labels name {track.dataset}/{track.split}, video {track.video}"
    if not track.name.startswith(f"{video.name}/") or track.name in taken:
        yield f"{track.name}: its name is not <video>/<person>, or is used twice"


def _origin_problems(video: RawVideo, first: _VideoReading, second: _VideoReading) -> Iterator[str]:
    """Problems of the names that a dataset gives for a video's origin."""
    if "" in first.origin or first.origin != second.origin:
        yield (
            f"{video.name}: origin() returns an empty name, or changes between calls; return "
            "None if it is unknown"
        )


def _account_problems(first: _VideoReading, second: _VideoReading) -> Iterator[str]:
    """Problems of a video's account, compared with the tracks, and with the second account."""
    account = first.account
    tracks = first.tracks
    is_account_equal = account.as_dict() == second.account.as_dict()
    if not is_account_equal or len(tracks) != len(second.tracks):
        yield f"{account.name}: its account differs when read again"
    n_frames = sum(len(track.frame_index) for track in tracks)
    if (account.kept, account.tracks_kept) != (n_frames, len(tracks)):
        counted = f"{account.kept} frames in {account.tracks_kept} tracks"
        yield (
            f"{account.name}: its account has {counted}; {n_frames} in {len(tracks)} were returned"
        )
    if account.other_split and account.found:
        yield f"{account.name}: belongs to another split, but has frames in this one"


def _differences(track: Track, again: Track) -> Iterator[str]:
    """Problems of what differs between two readings of a track."""
    first = {**track.columns, **track.extra}
    second = {**again.columns, **again.extra}
    for name in {**first, **second}:
        is_in_both = name in first and name in second
        if not is_in_both or not np.array_equal(first[name], second[name], equal_nan=True):
            yield f"{track.name}: {name} differs when read again"
    if track.name != again.name or track.frames != again.frames:
        yield f"{track.name}: name or frames differs when read again"


def _source_problems(raw: Path, video: RawVideo, track: Track) -> Iterator[str]:
    """Problems of a track's images: their place, and the first frame."""
    source = track.frames
    if source is None:
        return
    path = os.path.relpath(source.place, raw)
    if path not in map(os.path.normpath, video.paths):
        yield f"{track.name}: reads its pixels from {path}, which videos() does not name"
    if sources.parse(raw, source.spec) != source or pickle.loads(pickle.dumps(source)) != source:  # noqa: S301 - our own
        problem = f"its pixel source {source.spec!r} changes when it is stored and restored"
        yield f"{track.name}: {problem}"
    if isinstance(source, Pictures):
        absent = track.frame_index[~np.isin(track.frame_index, source.indices())]
        if len(absent):
            yield (
                f"{track.name}: {len(absent)} of its frames have no image, the first would be "
                f"{source.path(int(absent[0])).name}"
            )
    try:
        source.size()
        first = int(track.frame_index[0])
    except RawDataError as error:
        yield f"{track.name}: its pixel source cannot be used: {error}"
        return
    frames = list(source.read([first]))
    numbers = [frame.index for frame in frames]
    if numbers != [first]:
        yield f"{track.name}: its pixel source returns frames {numbers} for frame {first}"
    for frame in frames:
        if frame.kind == OTHER_SIZE:
            yield f"{track.name}: frame {frame.index}: {frame.problem}"


def fail_if_any(problems: list[str]) -> None:
    """Fail the test with one line for each broken promise."""
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def version_problems(plug_in: Any) -> Iterator[str]:
    """Problems of `version`, which must be a positive integer."""
    version = plug_in.version
    if not isinstance(version, int) or version < 1:
        yield f"version is {version!r}: expected an integer >= 1"
