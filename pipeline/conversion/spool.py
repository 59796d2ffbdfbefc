"""Videos that were read and wait for a commit, as pieces of the cache's staged work.
[raw -> tracks]

`pipeline.conversion.parts` reads videos into the `Spool`, and takes them out of it for the commit.
A video is one piece, named by `PieceName`. The stamp tells cheaply whether raw files have changed;
see `pipeline.files.raw.changes`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import cache
from cache.format.place import Place
from cache.write.staged import VIDEO, StagedWork
from pipeline.accounting import VideoAccount
from pipeline.conversion.plan import ConversionPlan
from pipeline.conversion.reading import ReadVideo
from pipeline.errors import PipelineError
from pipeline.files.raw import RawVideo, changes


class PieceName(NamedTuple):
    """The name of a video's piece: <kind>-<video>-<stamp>-<digest>."""

    video: str  # hash of the video's name
    stamp: str  # hash of its stamp
    digest: str  # of its files

    @classmethod
    def parse(cls, name: str) -> PieceName:
        return cls(*name.split("-")[1:])

    def __str__(self) -> str:
        return "-".join((VIDEO, *self))


class Spool:
    """The videos of a split that were read, as pieces of staged work in the cache."""

    def __init__(self, plan: ConversionPlan) -> None:
        self.place = Place(cache.store_at(plan.root), plan.name)
        self._plan = plan
        self._work = StagedWork(self.place, {"plan": plan.staging})

    def find(self, videos: Sequence[RawVideo]) -> tuple[dict[str, PieceName], list[RawVideo]]:
        """Find the pieces that the spool has now of these videos, by the video's name: read from
        files with the same stamp, else with the same digest. Returns them, and the other videos.
        """
        pieces = defaultdict(list)
        for name in self._work.names(VIDEO):
            if name.count("-") == len(PieceName._fields):
                piece = PieceName.parse(name)
                pieces[piece.video].append(piece)
        if not pieces:  # skip hashing the names of half a million videos
            return {}, [*videos]
        found = {}
        missing = []
        for video in videos:
            known = pieces.get(_hash(video=video.name), [])
            stamp = _hash(stamp=self._plan.stamps[video.name])
            same = [piece for piece in known if piece.stamp == stamp]
            if known and not same:
                digest = changes.video_digest(self._plan.raw, video)
                same = [piece for piece in known if piece.digest == digest]
            if same:
                found[video.name] = same[0]
            else:
                missing.append(video)
        return found, missing

    def put(self, video: RawVideo, read: ReadVideo) -> None:
        """Write a video's piece, durably."""
        name = PieceName(_hash(video=video.name), _hash(stamp=read.stamp), read.fingerprint)
        self._work.put(str(name), *_as_piece(read))

    def load(self, piece: PieceName) -> ReadVideo:
        """Load a piece. Removes a damaged piece and raises PipelineError."""
        name = str(piece)
        pieces = self._work.read([name])
        if name not in pieces:
            self._work.remove([name])
            location = self.place.store.location(f"{self._work.folder}/{name}")
            raise PipelineError(
                f"{location}: was damaged, and is removed now. Run the command again."
            )
        return _from_piece(*pieces[name])


def _hash(**part: str) -> str:
    return cache.fingerprint(part)[:32]


# A piece has a head, JSON values, and arrays. The head has the video's entry, and the fields of its
# tracks that are no arrays. An array's key is <track number>/<field of TrackRows>/<column>, such as
# "0/columns/kp_2d"; a field that is one array has no column: "0/intrinsics/".


def _as_piece(video: ReadVideo) -> tuple[dict[str, Any], dict[str, Any]]:
    """A video as the head and arrays of a piece."""
    arrays: dict[str, Any] = {}
    tracks = []
    names = ("name", "video", "step", "fps", "crop_scale", "gender")
    for i, track in enumerate(video.tracks):
        tracks.append({name: getattr(track, name) for name in names})
        arrays |= {f"{i}/columns/{name}": values for name, values in track.columns.items()}
        arrays |= {f"{i}/extra/{name}": values for name, values in track.extra.items()}
        if track.intrinsics is not None:
            arrays[f"{i}/intrinsics/"] = track.intrinsics
    head = {"entry": asdict(video.entry), "tracks": tracks, "lost": dict(video.lost)}
    return head, arrays


def _from_piece(head: Mapping[str, Any], arrays: Mapping[str, Any]) -> ReadVideo:
    """Restore a video from its piece."""
    tracks = [dict(track) for track in head["tracks"]]
    for key, values in arrays.items():
        number, name, column = key.split("/", 2)
        track = tracks[int(number)]
        if column:
            track.setdefault(name, {})[column] = values
        else:
            track[name] = values
    entry = cache.VideoEntry(**head["entry"])
    account = VideoAccount.from_dict(entry.account)
    rows = [cache.TrackRows(**track) for track in tracks]
    return ReadVideo(entry.fingerprint, account, rows, entry, head["lost"])
