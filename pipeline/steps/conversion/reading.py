"""Read videos, by processes of this machine.  [raw -> tracks] -> features -> windows

Reading a video gives its tracks and an account of its frames (`ReadVideo`). A video that cannot be
read is rejected: it gives an account with the reason, and no tracks. Conversion calls
`read_videos`, which calls `VideoReader.read` for each in another process. Rejections come from

- `VideoReader.read`: the dataset's code refuses the files, or fails; or the system failed while
  files were read (`errors.faults`);
- `_reject_video`: the reading process crashed or hung;
- `_refuse_other_files`: files changed while they were read.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import cache
from cache.format.track_tables import VideosByName
from pipeline.accounting import LIBRARY, NOT_NOW, VideoAccount, is_error
from pipeline.cli.system_errors import error_text
from pipeline.datasets.base import Dataset
from pipeline.errors import (
    PipelineError,
    RawDataError,
    describe_error,
    faults,
    library_of,
    note_fault,
)
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.sources import file_part, pixels_digest
from pipeline.files.raw import CommittedClip, RawVideo, changes
from pipeline.files.raw.files import caching, is_folder_there, remember
from pipeline.grades import video_numbers
from pipeline.people.track import Track
from pipeline.processes import Failed
from pipeline.steps.conversion.plan import ConversionWork, Item
from pipeline.steps.conversion.selection import select
from pipeline.steps.recipe import Recipe
from pipeline.steps.sentences import LATER

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from pipeline.people.smpl_files import Model
    from pipeline.people.smplx_body import SmplxBody

WHAT_TO_DO: Final = {
    "reader_crashed": "Download its files again; if it crashes all the same, please report it.",
    "reader_timeout": "Check its files and the storage that they are on.",
    "reader_memory": "Check its files.",
    "machine_memory": "Use fewer processes (--workers), or free memory; "
    "the next run reads it again.",
}
UNEXPECTED: Final = "unexpected_error"  # reason for a video on which the reader's code failed
DEFECTS: Final = (UNEXPECTED, LIBRARY)  # of the code, not of a file
NO_PIXELS: Final = cache.VideoEntry(name="")


@dataclass(frozen=True, slots=True)
class ReadVideo:
    """What is written to the cache for one video."""

    fingerprint: str  # digest of its raw files
    account: VideoAccount
    tracks: Sequence[cache.TrackRows] = ()
    # only source, digest and size of its images, and the numbers of its tracks are set
    pixels: cache.VideoEntry = NO_PIXELS
    # of a committed video whose images have changed: why rows have no image now -> their number
    lost: Mapping[str, int] = field(default_factory=dict)
    stamp: changes.Stamp = ""  # of the files that were read

    @property
    def entry(self) -> cache.VideoEntry:
        account = self.account.as_dict()
        return replace(
            self.pixels, name=self.account.name, fingerprint=self.fingerprint, account=account
        )


def read_videos(
    work: ConversionWork,
    items: Sequence[Item],
    *,
    workers: int,
    on_wait: Callable[[str], None],
) -> Generator[ReadVideo]:
    """Read the video of every item, by other processes, and yield the results in order.

    Videos are read ahead of the caller, but only a bounded number of them.

    Args:
        workers: number of processes.
        on_wait: called each second in which a long video is awaited, with its name and how much of
            it is done.
    """
    from pipeline.processes.ordered import ordered_map

    recipe = work.recipe
    body = recipe.body if work.reader["body"] else None
    max_fps = recipe.selection.max_fps
    reader = VideoReader(recipe.dataset, recipe.split, recipe.raw, body, max_fps)
    results = ordered_map(
        reader.read,
        [item.video for item in items],
        workers,
        same_group=_share_label_file,
        preload=functools.partial(_body, body, *_model_of(recipe.dataset)),
        on_wait=lambda index, done: on_wait(f"{items[index].video.name}: {done}"),
    )
    for item, result in zip(items, results, strict=True):
        read = _reject_video(recipe, item, result) if isinstance(result, Failed) else result
        yield _refuse_other_files(recipe, item, read)


def attach_clips(items: Iterable[Item], committed: cache.Split | None) -> list[Item]:
    """The items, each with what a committed split has of it: the record of its clip (`ClipRecord`),
    and the places of corrections.
    """
    if committed is None:
        return [*items]
    entries = VideosByName(committed.tables)
    with_clips = []
    for item in items:
        entry = entries.get(item.video.name)
        if entry is not None:
            known = CommittedClip(file_part(entry.pixels), entry.account.get("clip"))
            places = entry.account.get("corrections", {})
            lines = tuple(
                line._replace(places=line.places or places.get(line.text, ()))
                for line in item.video.corrections
            )
            item = item._replace(video=replace(item.video, committed=known, corrections=lines))
        with_clips.append(item)
    return with_clips


def _refuse_other_files(recipe: Recipe, item: Item, read: ReadVideo) -> ReadVideo:
    """Return the video as it was read; or rejected, if the files that were read differ from those
    of now. Raises PipelineError if the raw folder has vanished.
    """
    raw = recipe.raw
    video = item.video
    failed = is_error(read.account.set_aside)
    # A file that is being copied is no damaged one: it is read again, not judged.
    if not failed or changes.stamp(raw, video) == item.stamp:
        if read.stamp == item.stamp or read.fingerprint == changes.video_digest(raw, video):
            return read
    if not (is_folder_there(raw) and any(raw.iterdir())):
        raise PipelineError(
            f"{raw}: the raw folder has vanished while it was read. Mount or restore it, then run "
            "the same command again."
        )
    account = VideoAccount(video.name)
    message = f"{raw}: files of {video.name} changed while they were read. {LATER}"
    account.reject(NOT_NOW, message)
    return ReadVideo(changes.video_digest(raw, video), account)


def _reject_video(recipe: Recipe, item: Item, failed: Failed) -> ReadVideo:
    """The result for a video whose reading process crashed, hung or needed too much memory."""
    video = item.video
    account = VideoAccount(video.name)
    do = WHAT_TO_DO[failed.reason]
    message = f"{_place(recipe.raw, video)}: the process that read it {failed.message}. {do}"
    reason = NOT_NOW if failed.reason == "machine_memory" else failed.reason
    account.reject(reason, message)
    digest = changes.video_digest(recipe.raw, video)
    return ReadVideo(digest, account, stamp=item.stamp)


def _share_label_file(one: RawVideo, other: RawVideo) -> bool:
    """Whether two videos have the same label file. One process should read them, as readers hold
    that file in memory: eight videos of MPI-INF-3DHP share 100 MB.
    """
    label_file = one.files[:1]
    return one.span is None and label_file != () and label_file == other.files[:1]


@dataclass(frozen=True, slots=True)
class VideoReader:
    """Reads videos of a split in this process."""

    dataset: Dataset
    split: str
    raw: Path
    body: Path | None  # folder of the body model, if the tracks depend on it
    max_fps: float | None = None  # as in `RowSelection`

    @caching()
    def read(self, video: RawVideo) -> ReadVideo:
        """Read one video, and take of it what the user takes.

        Errors of the dataset's code or of files become a rejection in the video's account; only
        MemoryError, and errors of loading the body model, are raised.
        """
        # Outside of what rejects a video: a body model that cannot be loaded is no video's fault.
        model = _body(self.body, *_model_of(self.dataset))
        stamp = changes.stamp(self.raw, video)
        with faults() as temporary_errors:
            digest = changes.video_digest(self.raw, video)
            read = self._read_or_reject(video, digest, model)
        if temporary_errors:  # also those that were handled, for example by using fewer images
            account = read.account
            problem = error_text(temporary_errors[0], [_place(self.raw, video)])
            account.reject(NOT_NOW, f"{problem} {LATER}")
            read = ReadVideo(digest, account)
        return replace(read, stamp=stamp)

    def _read_or_reject(
        self, video: RawVideo, digest: str, model: Body | SmplxBody | None
    ) -> ReadVideo:
        """Read one video. An error of the files or a bug of the dataset's code becomes a
        rejection.
        """
        account = VideoAccount(video.name)
        try:
            for path in video.paths:
                changes.refuse_other_encoding(self.raw, str(path))
            known = video.committed
            if known is not None:
                record = ClipRecord.from_dict(known.record)
                if record is not None:  # it is used in place of decoding the clip to make a new one
                    remember(ClipRecord, known.digest, record)
            with _one_thread(model):
                # this puts errors of labels into the account
                tracks, account = self.dataset.read_accounted(self.raw, self.split, video, model)
            extra = self.dataset.extra_columns(self.split, body=model is not None)
            tracks = select(tracks, account, video.corrections, self.max_fps, extra)
            pixels = _describe_pixels(tracks, account)
            lost: Mapping[str, int] = {}
            if known is not None and known.digest not in ("", file_part(pixels.pixels)):
                lost = _count_lost(tracks)
            rows = [track.rows for track in tracks]
            pixels = replace(pixels, **_numbers(tracks, account))
            return ReadVideo(digest, account, rows, pixels, lost)
        except MemoryError:
            raise
        except RawDataError as error:
            note_fault(error)
            account.reject(error.reason, str(error))
        except Exception as error:  # a bug must not cost the other videos
            note_fault(error)
            reject_unexpected(account, error)
        return ReadVideo(digest, account)


def reject_unexpected(account: VideoAccount, error: Exception) -> None:
    """Reject a video for an exception that is no statement about its files."""
    problem = f"{account.name}: {describe_error(error)}"
    if library_of(error):
        account.reject(LIBRARY, f"{problem}. {LATER}")
    else:
        account.reject(UNEXPECTED, problem)


def _numbers(tracks: Sequence[Track], account: VideoAccount) -> Mapping[str, Any]:
    """The sums and measures of a video; none, with a note, if its columns are of a form that cannot
    be graded, as those of another package's dataset may be.
    """
    rows = [track.rows for track in tracks]
    source = tracks[0].frames if tracks else None
    try:
        return video_numbers(rows, account.as_dict(), source)
    except Exception as error:  # which costs no row
        account.note(f"its sums and grades are not known: {describe_error(error)}")
        return {}


def _place(raw: Path, video: RawVideo) -> Path:
    """The path of a video's first file, for messages."""
    return raw / next(iter(video.paths), video.name)


def _describe_pixels(tracks: Sequence[Track], account: VideoAccount) -> cache.VideoEntry:
    """Source, digest and size of the images that the tracks refer to; NO_PIXELS if there are none.

    For a video file, its `ClipRecord` is put into the account. Raises RawDataError if no image can
    be read.
    """
    sources = [track.frames for track in tracks if track.frames is not None]
    if not sources:
        return NO_PIXELS
    source = sources[0]
    digest = source.digest()
    if isinstance(source, Video):
        record = source.record()
        account.clip = record.as_dict()
        digest = pixels_digest(digest, record.otherwise)
    width, height = source.size()
    return cache.VideoEntry(name="", source=source.spec, pixels=digest, width=width, height=height)


def _count_lost(tracks: Sequence[Track]) -> Mapping[str, int]:
    """Decode the images of all rows: why some cannot be decoded -> number of rows. None of a video
    file: its `ClipRecord` has the frames that it has lost.
    """
    source = tracks[0].frames if tracks else None
    if source is None or isinstance(source, Video):
        return {}
    frames = np.concatenate([track.frame_index for track in tracks])
    read = source.read(np.unique(frames).tolist())
    kinds = {frame.index: frame.kind for frame in read if frame.problem is not None}
    return Counter(kinds[index] for index in frames.tolist() if index in kinds)


@contextmanager
def _one_thread(body: object | None) -> Iterator[None]:
    """Within the block, use one torch thread if there is a body model: the last bits of sums over
    vertices depend on the number of threads.
    """
    if body is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _model_of(dataset: Dataset) -> tuple[Model, str]:
    """The body model that the reader gets, and its gender."""
    return dataset.labels.body_model, dataset.genders[0]


@functools.cache
def _body(folder: Path | None, model: Model, gender: str) -> Body | SmplxBody | None:
    """The body model, loaded once in each process; None without a folder."""
    if folder is None:
        return None
    from pipeline.people.smplx_body import load_body  # imports torch

    return load_body(folder, model, gender)
