"""Videos that parts have read, until a command commits them.  [raw -> tracks]

Each part, of an array job (`read_part`) or of a worker of a cluster (`_read_on_worker`), reads its
share of a split's videos into the `Spool`, and the command that commits takes them from there. A
video is one piece of the cache's staged work, named

    <kind>-<hash of the video's name>-<hash of its stamp>-<digest of its files>

The stamp tells cheaply whether raw files have changed; see `pipeline.files.raw.changes`.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, Final

import cache
from cache.format.folders import create_groups
from cache.format.layout import WRITING
from cache.format.place import Place
from cache.write.parts import Part
from cache.write.staged import VIDEO, StagedWork
from pipeline.accounting import NOT_NOW, VideoAccount
from pipeline.cli.console import DOUBT, err, plain
from pipeline.cli.progress import Progress
from pipeline.cli.text import count
from pipeline.conversion.identity import find_differences, reader_parts, report_other_work
from pipeline.conversion.plan import ConversionPlan
from pipeline.conversion.reading import Read, ReadVideo, attach_clips, read_videos
from pipeline.errors import PipelineError
from pipeline.files.raw import RawVideo, changes
from pipeline.processes.cluster import SAME_FILES, run_parts
from pipeline.processes.settings import NO_CLUSTER, Dask

MOST_VIDEOS: Final = 1000  # in a part of a worker: progress is reported after each part


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
        with closing(read(todo)) as read_now:
            for video in videos:
                piece = pieces[video.name]
                if piece:
                    yield self._load(piece)
                else:
                    yield next(read_now)

    def fill(
        self,
        videos: Sequence[RawVideo],
        read: Read,
        progress: Progress,
        dask: Dask = NO_CLUSTER,
    ) -> list[VideoAccount]:
        """Read those of the videos that are not in the spool into it: on the cluster `dask`, if it
        names one, and then those that are left by `read`. Returns the accounts of videos that
        cannot be read now.
        """
        todo = self._find_missing(videos)
        if not todo:
            return []
        create_groups(self._place)
        if dask.scheduler is not None:
            todo = _read_on_cluster(self._plan, todo, dask, progress)
        unreadable = []
        n_done = len(videos) - len(todo)
        for video, result in zip(todo, read(todo), strict=True):
            account = result.account
            if account.set_aside == NOT_NOW:
                unreadable.append(account)
            else:
                name = f"{_piece_prefix(video, result.stamp)}{result.fingerprint}"
                self._work.put(name, *_as_piece(result))
            n_done += 1
            progress(n_done, len(videos), video.name)
        return unreadable

    def _find_missing(self, videos: Sequence[RawVideo]) -> list[RawVideo]:
        """Those of the videos that are not in the spool, or were read from other files."""
        return [video for video in videos if not self._find_piece(video)]

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


def read_part(
    plan: ConversionPlan, part: Part, *, workers: int, dask: Dask, progress: Progress
) -> list[VideoAccount]:
    """Read an array job's share of the plan's videos into the spool, by processes of this machine
    or on a cluster. Returns the accounts of videos that cannot be read now.
    """
    share = part.share(plan.append)
    if not share:
        return []
    report_other_work(plan.root, plan.name, None, plan.staging)
    with part.running(plan.root, f"{plan.name}/{WRITING}"):
        read = functools.partial(read_videos, plan, workers=workers)
        return Spool(plan).fill(attach_clips(share, plan.committed), read, progress, dask)


def _read_on_cluster(
    plan: ConversionPlan, videos: Sequence[RawVideo], dask: Dask, progress: Progress
) -> list[RawVideo]:
    """Read videos into the spool on the workers of a cluster. Returns those that they could not
    read, or of which they have other files, and prints a line about them.
    """
    folders = plan.raw, plan.root, plan.body
    without_videos = ConversionPlan(
        plan.dataset, plan.split, *folders, plan.reader, None, selection=plan.selection
    )
    read = functools.partial(_read_on_worker, without_videos)
    plug_ins = [plan.dataset]
    parts = run_parts(
        read, videos, dask, most=MOST_VIDEOS, shared=plan.raw, plug_ins=plug_ins, on_gpus=False
    )
    n_done = 0
    with closing(parts):
        for part, _ in parts:
            n_done += len(part)
            progress(n_done, len(videos), "read by Dask workers")
    missing = Spool(plan)._find_missing(videos)
    if missing:
        why = "Dask workers cannot read them now, or have other files"
        text = f"{count(len(missing), 'video')} read here, first {missing[0].name}: {why}"
        err.print(f"{DOUBT} {plain(f'{plan.name}: {text}')}")
    return missing


def _read_on_worker(
    plan: ConversionPlan,
    part: Sequence[RawVideo],
    progress: Progress,
    device: str,  # noqa: ARG001
) -> None:
    """Read the videos of a part into the spool, in a worker. plan: without videos.

    Raises PipelineError if this worker would read otherwise than the command that commits, for
    example because it has other files of the body model.
    """
    others = find_differences(
        plan.reader, reader_parts(plan.dataset, plan.split, plan.raw, plan.body, plan.selection)
    )
    if others:
        differences = "; ".join(map(str, others))
        raise PipelineError(f"this worker would read otherwise ({differences}). {SAME_FILES}")
    stamps = {video.name: changes.stamp(plan.raw, video) for video in part}
    plan = replace(plan, append=tuple(part), stamps=stamps)
    Spool(plan).fill(part, functools.partial(read_videos, plan, workers=1), progress)


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
