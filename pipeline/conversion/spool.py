"""Videos that parts of an array job have read, until a command commits them.  [raw -> tracks]

Each part reads its share of a split's videos into the `Spool` (`read_part`), and the command that
commits takes them from there (`read`). A video is one piece of the cache's staged work, named

    <kind>-<hash of the video's name>-<hash of its stamp>-<digest of its files>

The stamp tells cheaply whether raw files have changed; see `pipeline.files.raw.changes`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import cache
from cache.format.folders import create_groups
from cache.format.place import Place
from cache.write.parts import Part
from cache.write.staged import VIDEO, StagedWork
from pipeline.accounting import NOT_NOW, VideoAccount
from pipeline.cli.console import DOUBT, err, plain
from pipeline.cli.progress import Progress
from pipeline.cli.text import count
from pipeline.conversion.other_work import report_other_work
from pipeline.conversion.plan import ConversionPlan
from pipeline.conversion.reading import Read, ReadVideo
from pipeline.errors import PipelineError
from pipeline.files.raw import RawVideo, changes


class Spool:
    """The videos of a split that parts have read, as pieces of staged work in the cache."""

    def __init__(self, plan: ConversionPlan) -> None:
        self._plan = plan
        self._place = Place(cache.store_at(plan.root), plan.name)
        self._work = StagedWork(self._place, {"plan": plan.staging})
        self._pieces: dict[str, list[str]] = {}  # `_video_key` -> names of the video's pieces
        for name in self._work.names(VIDEO):
            key = "-".join(name.split("-")[:2])  # without stamp and digest
            self._pieces.setdefault(key, []).append(name)

    def read(self, videos: Sequence[RawVideo], read: Read) -> Generator[ReadVideo]:
        """Yield every video, in order: from the spool if its raw files are the same, else as `read`
        reads it.
        """
        pieces = {video.name: self._find_piece(video) for video in videos}
        todo = [video for video in videos if not pieces[video.name]]
        self._report_changed(todo)
        with closing(read(todo)) as read_now:
            for video in videos:
                piece = pieces[video.name]
                if piece:
                    yield self._load(piece)
                else:
                    yield next(read_now)

    def read_part(self, part: Part, read: Read, progress: Progress) -> list[VideoAccount]:
        """Read this part's share of the plan's videos into the spool. Returns the accounts of
        videos that cannot be read now.
        """
        store = self._place.store
        share = part.share(self._plan.append)
        todo = [video for video in share if not self._find_piece(video)]
        if not todo:
            return []
        unreadable = []
        report_other_work(self._plan.root, self._plan.name, None, self._plan.staging)
        self._report_changed(todo)
        with part.running(store, self._place.writing):
            create_groups(self._place)
            n_done = len(share) - len(todo)
            for video, result in zip(todo, read(todo), strict=True):
                account = result.account
                if account.set_aside == NOT_NOW:
                    unreadable.append(account)
                else:
                    name = f"{_piece_prefix(video, result.stamp)}{result.fingerprint}"
                    self._work.put(name, *_as_piece(result))
                n_done += 1
                progress(n_done, len(share), video.name)
        return unreadable

    def _find_piece(self, video: RawVideo) -> str:
        """The name of a video's piece with the same stamp, else with the same digest of its files;
        "" if there is none.
        """
        if not self._pieces:  # skip hashing the names of half a million videos
            return ""
        names = self._pieces.get(_video_key(video), [])
        prefix = _piece_prefix(video, self._plan.stamps[video.name])
        same = [name for name in names if name.startswith(prefix)]
        if names and not same:
            digest = changes.video_digest(self._plan.raw, video)
            same = [name for name in names if name.endswith(digest)]
        return same[0] if same else ""

    def _report_changed(self, todo: Sequence[RawVideo]) -> None:
        """Print a line if some videos have to be read again because their files have changed."""
        if not self._pieces:
            return
        changed = [video for video in todo if _video_key(video) in self._pieces]
        if changed:
            why = f"their files differ from those that parts have read, first {changed[0].name}"
            text = f"{self._plan.name}: {count(len(changed), 'staged video')} read again: {why}"
            err.print(f"{DOUBT} {plain(text)}")

    def _load(self, name: str) -> ReadVideo:
        """Load a piece. Removes a damaged piece and raises PipelineError."""
        pieces = self._work.read([name])
        if name not in pieces:
            self._work.remove([name])
            location = self._place.store.location(f"{self._work.folder}/{name}")
            raise PipelineError(
                f"{location}: was damaged, and is removed now. Run the command again."
            )
        return _from_piece(*pieces[name])


def _video_key(video: RawVideo) -> str:
    """How the names of all pieces of a video begin: their kind and the hash of its name."""
    return f"{VIDEO}-{cache.fingerprint({'video': video.name})[:32]}"


def _piece_prefix(video: RawVideo, stamp: changes.Stamp) -> str:
    """The name of a video's piece without the digest, for files with this stamp."""
    return f"{_video_key(video)}-{cache.fingerprint({'stamp': stamp})[:32]}-"


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
    tracks = head["tracks"]
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
