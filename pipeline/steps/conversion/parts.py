"""Read videos into the spool in parts, and take them from there.  [raw -> tracks]

Each part, of an array job (`read_part`) or of a worker of a cluster (`_read_on_worker`), reads its
share of a split's videos into the `_Spool`: pieces of the cache's staged work, one for each video
(`_PieceName`). The command that commits takes them from there (`read_spooled`). A video's stamp
tells cheaply whether its raw files have changed (`pipeline.files.raw.changes`).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, Final, NamedTuple

import cache
from cache.format.folders import create_groups
from cache.format.layout import WRITING
from cache.format.place import Place
from cache.write.parts import Part
from cache.write.staged import VIDEO, StagedWork
from pipeline.accounting import PASSING, VideoAccount
from pipeline.cli.console import err
from pipeline.cli.progress import Progress
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.files.raw import changes
from pipeline.processes import SAME_FILES
from pipeline.processes.settings import Dask
from pipeline.steps.conversion.identity import find_differences, reader_parts, report_other_work
from pipeline.steps.conversion.plan import ConversionWork, Item
from pipeline.steps.conversion.reading import ReadVideo, attach_clips, read_videos

MOST_VIDEOS: Final = 1000  # in a part of a worker: progress is reported after each part


def read_part(
    work: ConversionWork, part: Part, *, workers: int, dask: Dask, progress: Progress
) -> list[VideoAccount]:
    """Read an array job's share of the videos into the spool, by processes of this machine
    or on a cluster. Returns the accounts of videos that cannot be read now.
    """
    share = part.share(work.items)
    if not share:
        return []
    report_other_work(work.recipe.root, work.name, None, work.staging)
    with part.running(work.recipe.root, f"{work.name}/{WRITING}"):
        items = attach_clips(share, work.committed)
        if dask.scheduler is None:
            return _read_here(work, items, workers, progress)
        return read_on_cluster(work, items, workers, dask, progress)


def read_spooled(
    work: ConversionWork, items: Sequence[Item], workers: int, on_wait: Callable[[str], None]
) -> Generator[ReadVideo]:
    """Yield every video, in order: from the spool if its raw files are the same, else as it is read
    now. on_wait: as of `read_videos`.
    """
    spool = _Spool(work)
    pieces, todo = spool.find(items)
    with closing(read_videos(work, todo, workers=workers, on_wait=on_wait)) as read_now:
        for item in items:
            if item.video.name in pieces:
                yield spool.load(pieces[item.video.name])
            else:
                yield next(read_now)


def _read_here(
    work: ConversionWork, items: Sequence[Item], workers: int, progress: Progress
) -> list[VideoAccount]:
    """Read those of the videos that are not in the spool into it. Returns the accounts of videos
    that cannot be read now.
    """
    spool = _Spool(work)
    _, todo = spool.find(items)
    if not todo:
        return []
    create_groups(spool.place)
    unreadable = []
    n_done = len(items) - len(todo)

    def on_wait(text: str) -> None:
        progress(n_done, len(items), text)

    with closing(read_videos(work, todo, workers=workers, on_wait=on_wait)) as results:
        for item, result in zip(todo, results, strict=True):
            account = result.account
            if account.set_aside in PASSING:
                unreadable.append(account)
            else:
                spool.put(item.video.name, result)
            n_done += 1
            progress(n_done, len(items), item.video.name)
    return unreadable


def read_on_cluster(
    work: ConversionWork,
    items: Sequence[Item],
    workers: int,
    dask: Dask,
    progress: Progress,
) -> list[VideoAccount]:
    """Read those of the videos that are not in the spool into it, on the workers of a cluster.
    Those that they could not read, or of which they have other files, are read by processes of this
    machine; prints a line about them. Returns the accounts of videos that cannot be read now.
    """
    from pipeline.processes.cluster import run_parts

    spool = _Spool(work)
    _, todo = spool.find(items)
    if not todo:
        return []
    create_groups(spool.place)
    recipe = replace(work.recipe, detector=None, streams=(), source=None)
    without_videos = ConversionWork(recipe, work.reader, work.staging, committed=None, listed=())
    read = functools.partial(_read_on_worker, without_videos)
    n_before = len(spool.work.names(VIDEO))

    def report() -> None:
        try:
            n_read = min(len(spool.work.names(VIDEO)) - n_before, len(todo))
        except (OSError, cache.CacheError):
            return  # the next look may succeed
        progress(n_read, len(todo), "read by Dask workers")

    parts = run_parts(
        read,
        todo,
        dask,
        most=MOST_VIDEOS,
        shared=work.recipe.raw,
        plug_ins=[work.recipe.dataset],
        on_gpus=False,
        meanwhile=report,
    )
    with closing(parts):
        for _ in parts:
            report()
    _, missing = spool.find(todo)
    if missing:
        why = "Dask workers cannot read them now, or have other files"
        text = f"{count(len(missing), 'video')} read here, first {missing[0].video.name}: {why}"
        err.warn(f"{work.name}: {text}")
    return _read_here(work, items, workers, progress)


def _read_on_worker(
    work: ConversionWork,
    part: Sequence[Item],
    progress: Progress,
    device: str,  # noqa: ARG001
) -> None:
    """Read the videos of a part into the spool, in a worker. Those that it cannot read now stay
    missing there, and the command that sent the part reads them.

    work: without videos.

    Raises PipelineError if this worker would read otherwise than the command that commits, for
    example because it has other files of the body model.
    """
    recipe = work.recipe
    raw = recipe.raw
    reader = reader_parts(recipe.dataset, recipe.split, raw, recipe.body, recipe.selection)
    others = find_differences(work.reader, reader)
    if others:
        differences = "; ".join(map(str, others))
        raise PipelineError(f"this worker would read otherwise ({differences}). {SAME_FILES}")
    items = [item._replace(stamp=changes.stamp(raw, item.video)) for item in part]
    _read_here(work, items, 1, progress)


class _PieceName(NamedTuple):
    """The name of a video's piece: <kind>-<video>-<stamp>-<digest>."""

    video: str  # hash of the video's name
    stamp: str  # hash of its stamp
    digest: str  # of its files

    @classmethod
    def parse(cls, name: str) -> _PieceName:
        return cls(*name.split("-")[1:])

    def __str__(self) -> str:
        return "-".join((VIDEO, *self))


class _Spool:
    """The videos of a split that were read, as pieces of staged work in the cache."""

    def __init__(self, work: ConversionWork) -> None:
        self.place = Place(cache.store_at(work.recipe.root), work.name)
        self._raw = work.recipe.raw
        self.work = StagedWork(self.place, {"plan": work.staging})

    def find(self, items: Sequence[Item]) -> tuple[dict[str, _PieceName], list[Item]]:
        """Find the pieces that the spool has now of these videos, by the video's name: read from
        files with the same stamp, else with the same digest. Returns them, and the other videos.
        """
        pieces = defaultdict(list)
        for name in self.work.names(VIDEO):
            piece = _PieceName.parse(name)
            pieces[piece.video].append(piece)
        if not pieces:  # skip hashing the names of half a million videos
            return {}, [*items]
        found = {}
        missing = []
        for item in items:
            name = item.video.name
            known = pieces.get(_hash(video=name), [])
            stamp = _hash(stamp=item.stamp)
            same = [piece for piece in known if piece.stamp == stamp]
            if known and not same:
                digest = changes.video_digest(self._raw, item.video)
                same = [piece for piece in known if piece.digest == digest]
            if same:
                found[name] = same[0]
            else:
                missing.append(item)
        return found, missing

    def put(self, name: str, read: ReadVideo) -> None:
        """Write a video's piece, durably: a head of JSON values, and arrays.

        The head has the video's entry, and the fields of its tracks that are no arrays. An array's
        key is <track number>/<field of TrackRows>/<column>, such as "0/columns/kp_2d"; a field that
        is one array has no column: "0/intrinsics/".
        """
        arrays: dict[str, Any] = {}
        tracks = []
        fields = ("name", "video", "step", "fps", "crop_scale", "gender")
        for i, track in enumerate(read.tracks):
            tracks.append({field: getattr(track, field) for field in fields})
            arrays |= {f"{i}/columns/{name}": values for name, values in track.columns.items()}
            arrays |= {f"{i}/extra/{name}": values for name, values in track.extra.items()}
            if track.intrinsics is not None:
                arrays[f"{i}/intrinsics/"] = track.intrinsics
        head = {"entry": asdict(read.entry), "tracks": tracks, "lost": dict(read.lost)}
        piece = _PieceName(_hash(video=name), _hash(stamp=read.stamp), read.fingerprint)
        self.work.put(str(piece), head, arrays)

    def load(self, piece: _PieceName) -> ReadVideo:
        """Load what `put` wrote. Removes a damaged piece and raises PipelineError."""
        name = str(piece)
        pieces = self.work.read([name])
        if name not in pieces:
            self.work.remove([name])
            location = self.place.store.location(f"{self.work.folder}/{name}")
            raise PipelineError(
                f"{location}: was damaged, and is removed now. Run the command again."
            )
        head, arrays = pieces[name]
        tracks = [dict(track) for track in head["tracks"]]
        for key, values in arrays.items():
            number, field, column = key.split("/", 2)
            track = tracks[int(number)]
            if column:
                track.setdefault(field, {})[column] = values
            else:
                track[field] = values
        entry = cache.VideoEntry(**head["entry"])
        account = VideoAccount.from_dict(entry.account)
        rows = [cache.TrackRows(**track) for track in tracks]
        return ReadVideo(entry.fingerprint, account, rows, entry, head["lost"])


def _hash(**part: str) -> str:
    return cache.fingerprint(part)[:32]
