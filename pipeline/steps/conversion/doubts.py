"""Doubts whether the labels of a split belong to its images.  [raw -> tracks] -> features ->
windows

Nothing proves that labels and images belong together, but two signs of a mix-up are cheap to see
while videos are converted: a clip has changed and its keypoint file has not, or the joints of many
videos end far inside, or lie far outside, of their images. `Doubts` watches the videos for both;
the conversion shows what it noted.

The *reach* of a video is how far its joints lie from the image's left or top edge, as a share of
the image's width or height: about 1 where people are seen up to the other edge.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.clips.labels.label_files import labels_of
from pipeline.errors import PipelineError
from pipeline.files.raw import changes
from pipeline.steps.conversion.plan import ConversionWork
from pipeline.steps.conversion.reading import ReadVideo

FEWEST_VIDEOS: Final = 5  # fewer prove nothing about the size of all images
COUNTED_JOINTS: Final = 0.98  # share of a video's joints; the few beyond them are outliers
# If the joints of no video reach further, the images are larger than those that were labelled.
LEAST_REACH: Final = 0.7
# A video whose joints reach further has a smaller image than the one that was labelled.
MOST_REACH: Final = 1.1
COMPARE: Final = "Compare them with `python -m pipeline show`."
MOST_BEYOND: Final = 0.1  # share of videos beyond MOST_REACH without a doubt: cut-off people


class Doubts:
    """What is doubtful about the labels of one conversion's videos. It watches the videos on their
    way to the writer; `notes` has the result once all have passed.
    """

    def __init__(self, work: ConversionWork, *, strict: bool) -> None:
        """Find clips with stale labels, by the work alone. Raise PipelineError for `strict` if
        there are any.
        """
        self._stale = _find_stale_labels(work)
        self._reaches = list[float]()
        self._n_outside = 0  # videos that were rejected because their joints lie outside
        if strict and self._stale:
            name, text = next(iter(self._stale.items()))
            do = "Replace them, or, if they belong to this clip, touch the file."
            raise PipelineError(
                f"{work.name}: {name}: {text} {do} (--strict: nothing was saved in the cache)"
            )

    def watch(self, videos: Iterable[ReadVideo]) -> Generator[ReadVideo]:
        """Yield the same videos. Stale labels are noted in the video's account, and the reach of
        its joints is measured.
        """
        for video in videos:
            account = video.account
            if account.name in self._stale and not account.set_aside:
                account.notes.insert(0, self._stale[account.name])
            if video.pixels.source:
                self._measure_reach(video)
            self._n_outside += account.set_aside == "keypoints_outside"
            yield video

    def _measure_reach(self, video: ReadVideo) -> None:
        """Note the reach of a video's visible joints, if it has any."""
        points = []
        for track in video.tracks:
            kp_2d = track.columns.get("kp_2d")
            if kp_2d is None:
                continue
            visible = kp_2d[..., 2] > 0
            points.append(kp_2d[visible][:, :2])
        n_points = sum(map(len, points))
        if n_points:
            in_order = np.sort(np.concatenate(points), axis=0)
            furthest = in_order[int(COUNTED_JOINTS * n_points)]
            size = video.pixels.width, video.pixels.height
            self._reaches.append(float((furthest / size).max()))

    def notes(self, accounts: Iterable[VideoAccount]) -> tuple[str, ...]:
        """The notes of these videos, `<video>: <note>` each, with doubts first."""
        doubts = self._size_note()
        plain_notes = list[str]()
        for account in accounts:
            lines = doubts if account.name in self._stale else plain_notes
            lines += [f"{account.name}: {note}" for note in account.notes]
        return (*doubts, *plain_notes)

    def _size_note(self) -> list[str]:
        """A note that the images seem to have another size than the labelled ones; empty if not."""
        n_kept = len(self._reaches)
        if n_kept and self._n_outside > MOST_BEYOND * (n_kept + self._n_outside):
            question = (
                f"{self._n_outside} were rejected for joints outside of their images: were the "
                f"images made smaller? Then those of the {n_kept} others are wrong, too."
            )
            return [f"all videos: {question} {COMPARE}"]
        if n_kept < FEWEST_VIDEOS:
            return []
        reaches = np.array(self._reaches)
        beyond = reaches > MOST_REACH
        n_videos = f"of {len(reaches)} videos"
        side = "of an image's width or height"
        if reaches.max() < LEAST_REACH:
            reach = f"reach at most {reaches.max():.0%} {side}"
            question = f"joints {n_videos} {reach}: were the images enlarged?"
        elif beyond.mean() > MOST_BEYOND:
            reach = f"reach {np.median(reaches[beyond]):.0%} {side}"
            question = f"joints of {beyond.sum()} {n_videos} {reach}: were the images made smaller?"
        else:
            return []
        return [f"all videos: {question} {COMPARE}"]


def _find_stale_labels(work: ConversionWork) -> dict[str, str]:
    """The videos whose clip has changed since the last commit while its label file has not -> a
    sentence about it.
    """
    stale = {}
    raw = work.recipe.raw
    for item in work.items:
        labels = None
        if item.recorded is not None and not item.name_before:
            labels = labels_of(raw, item.video)
        if labels is None:
            continue
        same = changes.same_inputs(item.recorded, item.stamp)
        path = changes.utf8(str(labels.relative_to(raw)))
        clip = changes.utf8(str(item.video.files[0]))
        if path in same and clip not in same:
            stale[item.video.name] = (
                f"the clip has changed, and {path} has not: are these its keypoints?"
            )
    return stale
