"""Read tracks to show from a raw folder, video by video.  raw -> [tracks] -> page

`from_raw` reads as many videos as the choice needs, as conversion would read them, and accounts for
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline import grades
from pipeline.accounting import Accounting, VideoAccount, is_error
from pipeline.conversion.identity import reader_parts
from pipeline.conversion.reading import UNEXPECTED
from pipeline.datasets.base import Dataset
from pipeline.errors import describe_error, did_you_mean
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import caching
from pipeline.show.drawing import load_body
from pipeline.show.shown import (
    MOST_LISTED,
    NO_SUCH_VIDEO,
    Choice,
    PageContent,
    ShownTrack,
    evenly_spaced,
    no_video,
    refuse_other_body,
    shown_track,
)
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body


MOST_READ: Final = 50  # videos to read for one track, since most videos of some splits have none


def from_raw(
    dataset: Dataset,
    split: str,
    raw: Path,
    choice: Choice,
    *,
    body: Path | None = None,
) -> PageContent:
    """Read the chosen tracks from a raw folder; reads only as many videos as needed.

    A video on which the reader fails is rejected, with a warning unless the error is a
    RawDataError.

    Raises:
        RawDataError: the folder is not the dataset's.
        PipelineError: the split is missing, or the video has no track.
        StandInMixed, MissingAssets: as `from_cache`.
    """
    dataset.check_split(split)
    parts = reader_parts(dataset, split, raw, body)
    refuse_other_body(raw, parts["stand_in"], body)
    model = None
    if dataset.labels.uses_body and body:
        model = load_body(body)
    reader = _RawTracks(dataset, split, raw, choice, model)
    tracks = reader.choose_tracks()
    accounts = list(reader.accounts.values())
    failures = [account for account in accounts if is_error(account.set_aside)]
    n_read = f"{len(accounts):,} of {len(reader.videos):,}"
    warnings = []
    defects = [account for account in failures if account.set_aside == UNEXPECTED]
    if defects:  # the reader itself has failed
        suffix = f", and {len(defects) - 1:,} more" if len(defects) > 1 else ""
        video = f"{defects[0].name}{suffix}"
        warnings.append(f"The reader failed on video {video}: {defects[0].message}")
    return PageContent(
        name=f"{dataset.name}/{split}",
        origin=f"the raw folder {raw}, not from a cache",
        raw=raw,
        body=body,
        stand_in=parts["stand_in"],
        reader=parts,
        totals=Accounting(accounts).totals(),
        totals_of=f"the videos that were read for this page: {n_read}",
        n_rejected=len(failures),
        rejected=tuple(account.rejection for account in failures[:MOST_LISTED]),
        left_out=(),
        n_tracks=None,
        warnings=tuple(warnings),
        tracks=tuple(tracks),
    )


class _RawTracks:
    """Tracks of a raw folder, read video by video.

    Attributes:
        videos: All of the split.
        accounts: Name -> account of the videos that were read so far.
    """

    def __init__(
        self, dataset: Dataset, split: str, raw: Path, choice: Choice, body: Body | None
    ) -> None:
        self._dataset = dataset.detect_layout(raw, split)
        self._split = split
        self._raw = raw
        self._choice = choice
        self._body = body
        self.videos: Sequence[RawVideo] = self._dataset.videos(raw, split)
        self.accounts: dict[str, VideoAccount] = {}

    def choose_tracks(self) -> list[ShownTrack]:
        """Read the tracks of the choice. Raises PipelineError if the video has none."""
        choice = self._choice
        if choice.video:
            return self._read_video(choice.video)
        return self._spread_out()

    def _read(self, video: RawVideo) -> list[ShownTrack]:
        """Read and grade a video's tracks, and account for it."""
        tracks: Sequence[Track] = ()
        with caching():
            try:
                tracks, account = self._dataset.read_accounted(
                    self._raw, self._split, video, self._body
                )
            except Exception as error:  # keep the other videos
                account = VideoAccount(video.name)
                account.reject(UNEXPECTED, describe_error(error))
        self.accounts[video.name] = account
        people = [track.columns | dict(track.extra) for track in tracks]
        fps = tracks[0].fps if tracks else math.nan
        source = tracks[0].frames if tracks else None
        graded = grades.grades_of(people, fps, source, account.clip)
        extra = self._dataset.extra_columns(self._split, body=self._body is not None)
        of_rows = {column.name for column in extra if column.per == "row"}
        shown = []
        for track, grade in zip(tracks, graded, strict=True):
            columns = {name: track.extra[name] for name in of_rows & track.extra.keys()}
            shown.append(
                shown_track(
                    track,
                    track.columns | columns,
                    source=track.frames,
                    notes=account.notes,
                    n_frames=self._choice.n_frames,
                    grade=grade,
                )
            )
        return shown

    def _read_video(self, name: str) -> list[ShownTrack]:
        """All tracks of the video with this name. Raises PipelineError if there is none."""
        tracks: list[ShownTrack] = []
        for video in self.videos:
            if video.name == name:
                tracks += self._read(video)
        if not tracks:
            split = f"{self._dataset.name}/{self._split}"
            names = [video.name for video in self.videos]
            if name not in self.accounts:
                raise no_video(split, name, NO_SUCH_VIDEO, names, did_you_mean(name, names))
            raise no_video(split, name, self.accounts[name].rejection, names)
        return tracks

    def _spread_out(self) -> list[ShownTrack]:
        """Tracks of videos spread evenly over the split.

        The split is cut into as many parts as tracks are wanted. Each part gives tracks of its
        first video that has any.
        """
        n_videos = len(self.videos)
        n_tracks = self._choice.n_tracks
        n_parts = min(n_tracks, n_videos)
        starts = [i * n_videos // n_parts for i in range(n_parts)]
        chosen: list[ShownTrack] = []
        for start, stop in pairwise([*starts, n_videos]):
            tracks = self._first_tracks(self.videos[start : min(stop, start + MOST_READ)])
            chosen += [tracks[i] for i in evenly_spaced(len(tracks), math.ceil(n_tracks / n_parts))]
        return [chosen[i] for i in evenly_spaced(len(chosen), n_tracks)]

    def _first_tracks(self, videos: Iterable[RawVideo]) -> list[ShownTrack]:
        """All tracks of the first of these videos that has any."""
        for video in videos:
            tracks = self._read(video)
            if tracks:
                return tracks
        return []
