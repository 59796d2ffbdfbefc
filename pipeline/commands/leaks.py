"""`python -m pipeline leaks`: overlaps of training and test splits.  [raw -> tracks] -> features ->
training

A model must not be tested on people or recordings that it was trained on. The command reads
all splits of a cache and makes a list of `_Overlap`s: one kind of thing (subject, recording)
in two splits, with what they share. Splits called `train` are training splits, and all
others test splits. For example, as printed:

    penn_action/train and penn_action/test share 1 subject:
        S1: 0001, 0002 | 0007

People (subjects) and recordings are compared by their names (`compare_splits`): those of
`Dataset.origin`, and those of people in a video's labels (`VideoAccount.subjects`). Videos of equal
content are one recording under any names (`_equal_contents`). The report of Luigi's tasks prints
`summary`.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

import cache
from cache.read.digest import digest_rows
from pipeline.cli.command_line import Command
from pipeline.cli.console import DONE, DOUBT, WRONG, CommandResult, print_result
from pipeline.cli.text import FEW, count, few
from pipeline.datasets import find_installed
from pipeline.datasets.base import Origin
from pipeline.files.pixels.sources import file_part

TRAIN: Final = "train"  # name of training splits; all others are test splits
# `Release.recording` where recordings are videos of the web, which have one name in all datasets
PUBLISHED: Final = "video"
EQUAL: Final = "equal content"  # in place of a name that videos share
_NOT_COMPARABLE: Final = "names of two releases cannot be compared"


def _run(args: argparse.Namespace) -> int:
    """Print what pairs of splits share, and what is unknown. Returns 1 if training and test splits
    share anything.
    """
    opened = cache.open(args.cache)
    compared = compare_splits([opened[name] for name in opened.splits])
    has_leaks = any(comparison.leaks for comparison in compared)
    result = CommandResult(compared, exit_code=int(has_leaks))
    if not any(comparison.is_of_training for comparison in compared):
        result.add_line("nothing to compare: this needs a split named train, and another one")
    elif not has_leaks:
        result.add_line("training and test splits share no video of equal content", DONE)
    # "a/train and b/test" -> kinds of things that they do not share
    unshared = defaultdict[str, list[str]](list)
    # kind of thing, reason -> pairs of splits for which it is unknown
    unknown = defaultdict[tuple[str, str], list[str]](list)
    for comparison in compared:
        pair = f"{comparison.first} and {comparison.second}"
        if comparison.common:
            _add_common(result, comparison, pair, every=args.all)
        elif comparison.is_impossible:
            unknown[comparison.what, comparison.unknown].append(pair)
        else:
            unshared[pair].append(comparison.what)
    for pair, kinds in unshared.items():
        result.add_line(f"{pair} share no {' and no '.join(kinds)}", DONE)
    if unknown and not args.all:
        result.add_line(f"{_count_unknown(compared)} (leaks --all prints the reasons)", DOUBT)
        unknown.clear()
    for (kind, why), pairs in unknown.items():
        where = ", ".join(pairs)
        if why == _NOT_COMPARABLE:
            where = f"{count(len(pairs), 'pair')} of splits of two datasets"
        result.add_line(f"{kind}s of {where}: unknown: {why}", DOUBT)
    return print_result(result, as_json=args.json)


def _add_common(result: CommandResult, comparison: _Overlap, both: str, *, every: bool) -> None:
    """Add what two splits share, or one split has twice: a heading, and a line for each thing."""
    verb = f"{both} share"
    if comparison.first == comparison.second:
        verb = f"{comparison.first} has twice"
    mark = WRONG if comparison.leaks else DOUBT
    common = comparison.common
    result.add_line(f"{verb} {count(len(common), comparison.what)}:", mark)
    named = [f"{c.name}: {', '.join(c.first)} | {', '.join(c.second)}" for c in common]
    limit = None if every else FEW
    result.add_lines(few(named, limit, "leaks --all"), indent=4)


class _Common(NamedTuple):
    """One thing that two splits share: a person or a recording."""

    name: str
    first: tuple[str, ...]  # its videos in either split
    second: tuple[str, ...]


class _Overlap(NamedTuple):
    """One kind of thing compared in two splits, such as a training and a test split, or in one
    split with itself to find its repetitions.
    """

    first: str  # name of a split
    second: str
    what: str  # the kind: subject; sequence, motion, video or recording
    common: tuple[_Common, ...]  # everything that is known to be shared
    unknown: str  # why some or all videos cannot be compared by name; "" if all can

    @property
    def leaks(self) -> bool:
        """Whether training and test splits share anything."""
        return bool(self.common) and self.is_of_training

    @property
    def is_impossible(self) -> bool:
        """Whether names cannot be compared, and nothing else is known to be shared."""
        return bool(self.unknown) and not self.common

    @property
    def is_of_training(self) -> bool:
        """Whether a training and a test split are compared."""
        return _is_training(self.first) and not _is_training(self.second)


class _Names(NamedTuple):
    """The names of the subjects, or of the recordings, that the videos of one split show. Only
    videos with tracks count.
    """

    split: str
    what: str  # the dataset's word, such as subject or sequence
    scope: str  # splits of one scope name things alike, so that names can be compared
    videos: Mapping[str | None, list[str]]  # name -> its videos; None: of unknown names

    @property
    def known(self) -> list[str]:
        return sorted(name for name in self.videos if name is not None)


class _SplitNames(NamedTuple):
    """All names of a split that are compared."""

    subjects: _Names
    recordings: _Names


def _names_of(split: cache.Split) -> _SplitNames:
    """Ask the dataset's reader for the names of subjects and of recordings; if it is not installed,
    all are unknown.
    """
    dataset = split.name.partition("/")[0]
    reader = find_installed(dataset)
    subjects = defaultdict[str | None, list[str]](list)
    recordings = defaultdict[str | None, list[str]](list)
    videos = split.videos.names
    for number in np.unique(split.tracks.video).tolist():
        origin = Origin() if reader is None else reader.origin(videos[number])
        recordings[origin.recording].append(videos[number])
        if reader is not None and origin.recording is None:
            recordings[videos[number]].append(videos[number])  # one of that name in another split
        labelled = [origin.subject]
        if not origin.subject:
            labelled = split.videos.account(number).get("subjects") or labelled
        for subject in dict.fromkeys(labelled):
            subjects[subject].append(videos[number])
    people = dataset
    recording = "recording"
    if reader is not None:
        recording = reader.release.recording
        if reader.release.people:  # tracks are named VIDEO/SUBJECT
            people = reader.release.people
            subjects.clear()
            for track in dict.fromkeys(split.tracks.names):
                video, _, subject = track.rpartition("/")
                subjects[subject].append(video)
    scope = PUBLISHED if recording == PUBLISHED else dataset
    return _SplitNames(
        _Names(split.name, "subject", people, subjects),
        _Names(split.name, recording, scope, recordings),
    )


def compare_splits(splits: Sequence[cache.Split]) -> list[_Overlap]:
    """Compare splits by names of subjects, and by names and contents of recordings, in this order:

    - every training split with every test split; these comparisons are always returned;
    - two other splits of a dataset, by recordings; returned if they share some;
    - a split with itself, for recordings that it has twice.
    """
    names = {split.name: _names_of(split) for split in splits}
    contents = _equal_contents(splits)
    training = [*filter(_is_training, names)]
    tests = [name for name in names if name not in training]
    compared = list[_Overlap]()
    for train, test in itertools.product(training, tests):
        compared.append(_compare(names[train].subjects, names[test].subjects))
        compared.append(_compare(names[train].recordings, names[test].recordings, contents))
    for first, second in itertools.combinations(names, 2):
        dataset = first.partition("/")[0]
        is_one_dataset = second.partition("/")[0] == dataset
        if is_one_dataset and not {first, second}.intersection(training):
            comparison = _compare(names[first].recordings, names[second].recordings, contents)
            if comparison.common:
                compared.append(comparison)
    for name, (_, recordings) in names.items():
        twice = list[_Common]()
        # a sequence may have several cameras
        if recordings.what in ("motion", PUBLISHED):
            for recording in recordings.known:
                videos = recordings.videos[recording]
                if len(videos) > 1:
                    twice.append(_Common(recording, tuple(videos[:1]), tuple(videos[1:])))
        twice += _find_equal(name, name, contents, twice)
        if twice:
            compared.append(_Overlap(name, name, recordings.what, tuple(twice), ""))
    return compared


def _is_training(split: str) -> bool:
    return split.rpartition("/")[2] == TRAIN


class _SplitVideo(NamedTuple):
    split: str
    name: str


def _equal_contents(splits: Sequence[cache.Split]) -> list[list[_SplitVideo]]:
    """Videos of equal content, two or more for each content.

    Files of images and clips are compared by the digest that the conversion has stored; videos
    without images by their rows, which are read only if two splits have such videos.
    """
    found = defaultdict[str, list[_SplitVideo]](list)
    without_images = dict[_SplitVideo, tuple[cache.Split, int]]()
    for split in splits:
        names = split.videos.names
        digests = split.tables.texts("video_pixels")
        for number in np.unique(split.tracks.video).tolist():
            video = _SplitVideo(split.name, names[number])
            if digests[number]:
                found[file_part(digests[number])].append(video)
            else:
                without_images[video] = split, number
    if len({video.split for video in without_images}) > 1:
        for video, (split, number) in without_images.items():
            rows = split.tables.track_rows[split.tracks.video == number]
            # a motion may begin at any frame
            columns = sorted({*split.columns} - {"frame_index"})
            digest = b"".join(digest_rows(split, column, rows) for column in columns)
            if digest:
                found[digest.hex()].append(video)
    return [videos for videos in found.values() if len(videos) > 1]


def _find_equal(
    first: str, second: str, contents: Sequence[Sequence[_SplitVideo]], named: Sequence[_Common]
) -> list[_Common]:
    """Videos of equal content in two splits, or in one if both are the same, but for those that
    share a name, too: `named`.
    """
    pairs = {pair for common in named for pair in itertools.product(common.first, common.second)}
    equal = []
    for videos in contents:
        ours = tuple(video.name for video in videos if video.split == first)
        theirs = tuple(video.name for video in videos if video.split == second)
        if first == second:
            ours, theirs = ours[:1], theirs[1:]
        if not pairs.issuperset(itertools.product(ours, theirs)):
            equal.append(_Common(EQUAL, ours, theirs))
    return equal


def _compare(
    first: _Names, second: _Names, contents: Sequence[Sequence[_SplitVideo]] = ()
) -> _Overlap:
    """Compare the subjects of two splits, or their recordings, which may have equal contents."""
    kind = first.what if first.what == second.what else "recording"
    common = list[_Common]()
    unknown = _NOT_COMPARABLE
    if first.scope == second.scope:
        for name in first.known:
            if name in second.videos:
                common.append(_Common(name, tuple(first.videos[name]), tuple(second.videos[name])))
        nameless = [names.split for names in (first, second) if None in names.videos]
        unknown = ""
        if nameless:
            unknown = f"not in the names of {' and '.join(nameless)}"
    common += _find_equal(first.split, second.split, contents, common)
    return _Overlap(first.split, second.split, kind, tuple(common), unknown)


def summary(compared: Sequence[_Overlap]) -> str:
    """What training and test splits share, as one line for the report; "" if there is no training
    split or no test split.
    """
    of_training = [comparison for comparison in compared if comparison.is_of_training]
    if not of_training:
        return ""
    shared = [
        f"{c.first} and {c.second} share {count(len(c.common), c.what)}"
        for c in of_training
        if c.leaks
    ]
    line = "; ".join(shared)
    if not line:
        line = "training and test splits share no name of a person or recording, and no equal video"
    if any(comparison.is_impossible for comparison in of_training):
        line += f" ({_count_unknown(of_training)})"
    return line


def _count_unknown(compared: Sequence[_Overlap]) -> str:
    n_unknown = sum(comparison.is_impossible for comparison in compared)
    return f"{n_unknown} of {len(compared)} comparisons by name are impossible"


COMMAND: Final = Command(_run)
