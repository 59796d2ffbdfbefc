"""What a page shows of a raw split, without converting it: only the videos that are shown are read.  raw -> [tracks]"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import Accounting, VideoAccount
from pipeline.conversion.convert import FLAGS, PER_FRAME, UNEXPECTED
from pipeline.conversion.identity import reader_parts
from pipeline.datasets import Dataset, RawVideo
from pipeline.datasets.defects import unexpected
from pipeline.errors import PipelineError
from pipeline.show.posed import load_body
from pipeline.show.tracks import MOST_TOLD, Choice, Shown, ShownTrack, shown_track, spread
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

LOOKED_AT: Final = 50  # videos read for one track: many splits consist mostly of videos without one


def from_raw(dataset: Dataset, split: str, raw: Path, choice: Choice, *, body: Path | None = None) -> Shown:
    """The chosen tracks of a raw folder, or those of videos spread evenly over the split.

    A video on which the reader fails is set aside, as conversion does, with a warning where it was no RawDataError.
    Raises RawDataError when the folder is not the dataset's, PipelineError for a split or track that it does not have,
    StandInMixed when a stand-in body would meet real data or the other way round.
    """
    dataset.check_split(split)
    parts = reader_parts(dataset, split, raw, body)
    reading = _Reading(dataset, split, raw, load_body(body) if parts["body"] is not None and body else None, choice)
    videos = dataset.videos(raw, split)
    tracks = reading.named(videos) if choice.names else reading.spread_over(videos)
    accounts = Accounting(reading.accounts.values())
    failed = [account for account in accounts if account.set_aside and account.set_aside not in dataset.harmless]
    aside = [f"{account.name}: {account.set_aside}: {account.message}" for account in failed]
    return Shown(
        name=f"{dataset.name}/{split}",
        origin=f"the raw folder {raw}, not from a cache",
        raw=raw,
        stand_in=parts["stand_in"],
        reader=parts,
        totals=accounts.totals(),
        totals_of=f"the videos that were read for this page: {len(accounts):,} of {len(videos):,}",
        set_aside=tuple(aside[:MOST_TOLD]),
        more_set_aside=max(0, len(aside) - MOST_TOLD),
        n_tracks=None,
        warnings=tuple(_defects(failed)),
        tracks=tuple(tracks),
    )


@dataclass(slots=True)
class _Reading:
    """Reads one video after the other, and keeps of each what is shown."""

    dataset: Dataset
    split: str
    raw: Path
    body: Body | None
    choice: Choice
    accounts: dict[str, VideoAccount] = field(default_factory=dict)

    def spread_over(self, videos: Sequence[RawVideo]) -> list[ShownTrack]:
        """From each of so many equal parts of the list, the first video that has tracks."""
        parts = min(self.choice.tracks, len(videos))
        starts = [i * len(videos) // parts for i in range(parts)]
        found: list[ShownTrack] = []
        for start, stop in pairwise([*starts, len(videos)]):
            for number in range(start, min(stop, start + LOOKED_AT)):
                if tracks := self._read(videos[number]):
                    wanted = spread(len(tracks), -(-self.choice.tracks // parts))
                    found += [self._shown(tracks[i], videos[number]) for i in wanted]
                    break
        return [found[i] for i in spread(len(found), self.choice.tracks)]

    def named(self, videos: Sequence[RawVideo]) -> list[ShownTrack]:
        """The tracks that were asked for: a track's name is <video>/<person>."""
        return [self._named(name, [v for v in videos if name.startswith(f"{v.name}/")]) for name in self.choice.names]

    def _named(self, name: str, videos: Sequence[RawVideo]) -> ShownTrack:
        others: list[str] = []
        for video in videos:
            for track in self._read(video):
                if track.name == name:
                    return self._shown(track, video)
                others.append(track.name)
        aside = [f"{a.set_aside}: {a.message}" for v in videos if (a := self.accounts[v.name]).set_aside]
        has = f"its video has {', '.join(others) or '; '.join(aside) or 'none'}" if videos else "no video is called so"
        raise PipelineError(f"{self.dataset.name}/{self.split} has no track {name!r}: {has}")

    def _read(self, video: RawVideo) -> Sequence[Track]:
        try:
            tracks, account = self.dataset.read_accounted(self.raw, self.split, video, self.body)
        except Exception as error:  # a defect of the reader must not cost the other videos
            tracks, account = (), VideoAccount(video.name)
            account.put_aside(UNEXPECTED, unexpected(error))
        self.accounts[video.name] = account
        return tracks

    def _shown(self, track: Track, video: RawVideo) -> ShownTrack:
        notes = self.accounts[video.name].notes
        return shown_track(track, _columns(track), source=track.frames, notes=notes, frames=self.choice.frames)


def _defects(failed: Sequence[VideoAccount]) -> Iterator[str]:
    """What the reader itself should not have done."""
    defects = [account for account in failed if account.set_aside == UNEXPECTED]
    if defects:
        others = f", and {len(defects) - 1:,} more" if len(defects) > 1 else ""
        yield f"The reader failed on video {defects[0].name}{others}: {defects[0].message}"


def _columns(track: Track) -> Mapping[str, NDArray[Any]]:
    """The track's columns as the cache would hold them."""
    columns = {name: getattr(track, name) for name in (*PER_FRAME, *FLAGS)}
    return {name: np.asarray(column) for name, column in columns.items() if column is not None}
