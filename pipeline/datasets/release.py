"""Download of a dataset: its page, its parts, and the names in it.  [raw] -> tracks

A reader declares a `Release`. `python -m pipeline doctor` compares the raw folder with it
(`pipeline.recipe.examination`), and `leaks` compares the people and recordings of two splits.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.accounting import Totals


@dataclass(frozen=True, slots=True)
class ReleasePart:
    """A part of a dataset's download. Whether it is complete is checked by file names alone.

    `patterns` are alternative paths below the raw folder: `labels/<0001>.mat`; `<...>` and `*`
    stand for any part of a name, `{train,val}` for one of the two; a slash at the end matches
    folders only. Matches of all patterns are added up.
    """

    what: str  # "label files"
    patterns: tuple[str, ...]
    source: str  # which archive of the download contains it: "Penn_Action.tar.gz"
    splits: tuple[str, ...] = ()  # splits that need this part; empty: all
    known: int | None = None  # number of files or folders in the full release
    without: str = ""  # what is lost without this part; "": the dataset cannot be used without it
    instead: ReleasePart | None = None  # the part of another layout that can replace this one


class Mistake(NamedTuple):
    """A known mistake in unpacking a download: some path below the raw folder matches `pattern`."""

    pattern: str  # in the syntax of `ReleasePart.patterns`
    what: str  # end of the message that begins with the matching path: "is of PoseTrack 2017"
    do: str  # advice: "Download PoseTrack 2018."


class ImageFolders(NamedTuple):
    """A release in which each sequence has a folder with all its images, or with every n-th one."""

    # all cameras of a recording have the same number of images
    alike_by_camera: bool = False
    short: frozenset[str] = frozenset()  # videos that lack images in the release itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Download of a dataset, or the user's own files: all that is known without opening a file."""

    page: str = ""  # where the official download is available; "": the user's own files
    parts: tuple[ReleasePart, ...] = ()  # where each part of the download is expected
    mistakes: tuple[Mistake, ...] = ()  # known mistakes in unpacking it
    # number of videos and frames in the full release, by split
    totals: Mapping[str, Totals] = field(default_factory=dict)
    image_folders: ImageFolders | None = None  # None: videos, or other folders
    optional_splits: frozenset[str] = frozenset()  # splits that may be without any video
    # the dataset's word for a recording: sequence, motion, or (published) video
    recording: str = "recording"
    # where tracks are named <video>/<subject>: a name that datasets with the same subjects share
    people: str | None = None


class Origin(NamedTuple):
    """Which person is in a video, and which recording it belongs to; None where unknown.

    They are derived from the video's name in the release. Within a dataset, equal names mean the
    same person or recording. Published videos (of YouTube, for example) are compared across
    datasets.
    """

    subject: str | None = None
    recording: str | None = None


def globs(patterns: Iterable[str]) -> list[str]:
    """Expand patterns of `ReleasePart` into globs, one for each choice of `{...}`.

    >>> globs(["<class>/<clip>.{mp4,avi}", "labels/<0001>.mat"])
    ['*/*.mp4', '*/*.avi', 'labels/*.mat']
    """
    matches: list[str] = []
    for pattern in patterns:
        choices = []
        # split at {...}: every second piece lists alternatives
        for i, piece in enumerate(re.split(r"\{([^{}]*)\}", re.sub("<[^<>]*>", "*", pattern))):
            choices.append(piece.split(",") if i % 2 else [piece])
        matches += map("".join, itertools.product(*choices))
    return matches
