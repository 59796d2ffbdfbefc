"""`python -m pipeline leaks`: overlaps of training and test splits.  [raw -> tracks] -> features ->
training

A model must not be tested on people or recordings that it was trained on. The command reads
all splits of a cache and makes a list of `Comparison`s: one kind of thing (subject, recording)
in two splits, with what they share. Splits called `train` are training splits, and all
others test splits. For example, as printed:

    penn_action/train and penn_action/test share 1 subject:
        S1: 0001, 0002 | 0007

People (subjects) and recordings are compared by their names (`compare_names`): those of
`Dataset.origin`, and those of people in a video's labels (`VideoAccount.subjects`). The report of
Luigi's tasks prints `summary`.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

import cache
from pipeline.cli.command_line import Command, json_option
from pipeline.cli.console import DONE, DOUBT, WRONG, CommandResult
from pipeline.cli.text import FEW, count, few
from pipeline.datasets import find_installed
from pipeline.datasets.base import Origin
from pipeline.settings.arguments import cache_option

TRAIN: Final = "train"  # name of training splits; all others are test splits
# `Dataset.recording` where recordings are videos of the web, which have one name in all datasets
PUBLISHED: Final = "video"
NOT_COMPARABLE: Final = "names of two releases cannot be compared"


def _options(sub: argparse.ArgumentParser) -> None:
    cache_option(sub)
    sub.add_argument("--all", action="store_true", help="List everything that is shared or unknown")
    json_option(sub, ", with everything")


def _run(args: argparse.Namespace) -> int:
    """Print what pairs of splits share, and what is unknown. Returns 1 if training and test splits
    share anything.
    """
    opened = cache.open(args.cache)
    compared = compare_names([opened[name] for name in opened.splits])
    has_leaks = any(comparison.leaks for comparison in compared)
    result = CommandResult(compared, exit_code=int(has_leaks))
    _add_text(result, compared, every=args.all)
    return result.print(as_json=args.json)


def _add_text(result: CommandResult, compared: Sequence[Comparison], *, every: bool) -> None:
    """Add the lines for the terminal: what splits share, what they do not share, what is unknown.

    every: list everything that is shared, and the reasons why something is unknown.
    """
    if not any(comparison.is_of_training for comparison in compared):
        result.line("nothing to compare: this needs a split named train, and another one")
    # "a/train and b/test" -> kinds of things that they do not share
    unshared = defaultdict[str, list[str]](list)
    # kind of thing, reason -> pairs of splits for which it is unknown
    unknown = defaultdict[tuple[str, str], list[str]](list)
    for comparison in compared:
        both = f"{comparison.first} and {comparison.second}"
        if comparison.common:
            _add_common(result, comparison, both, every=every)
        if comparison.unknown:
            unknown[comparison.what, comparison.unknown].append(both)
        elif not comparison.common:
            unshared[both].append(comparison.what)
    for both, kinds in unshared.items():
        result.line(f"{both} share no {' and no '.join(kinds)}", DONE)
    if unknown and not every:
        text = _summarize_unknown(unknown)
        result.line(f"unknown: {text} (leaks --all prints the reasons)", DOUBT)
        return
    for (what, why), pairs in unknown.items():
        where = ", ".join(pairs)
        if why == NOT_COMPARABLE:
            where = f"{count(len(pairs), 'pair')} of splits of two datasets"
        result.line(f"{what}s of {where}: unknown: {why}", DOUBT)


def _add_common(result: CommandResult, comparison: Comparison, both: str, *, every: bool) -> None:
    """Add what two splits share, or one split has twice: a heading, and a line for each thing."""
    verb = f"{both} share"
    if comparison.first == comparison.second:
        verb = f"{comparison.first} has twice"
    mark = WRONG if comparison.leaks else DOUBT
    common = comparison.common
    result.line(f"{verb} {count(len(common), comparison.what)}:", mark)
    named = [f"{c.name}: {', '.join(c.first)} | {', '.join(c.second)}" for c in common]
    most = None if every else FEW
    result.lines(few(named, most, "leaks --all"), indent=4)


def _summarize_unknown(unknown: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """One line without the reasons, such as `subjects of 12 pairs of splits, recordings of a/train
    and b/test`.

    unknown: (kind of thing, reason) -> pairs of splits.
    """
    by_what = defaultdict[str, list[str]](list)
    for (what, _), pairs in unknown.items():
        by_what[what] += pairs
    texts = list[str]()
    for what, pairs in by_what.items():
        which = pairs[0]
        if len(pairs) > 1:
            which = f"{len(pairs):,} pairs of splits"
        texts.append(f"{what}s of {which}")
    return ", ".join(texts)


class _Common(NamedTuple):
    """One thing that two splits share: a person or a recording."""

    name: str
    first: tuple[str, ...]  # its videos in either split
    second: tuple[str, ...]


class Comparison(NamedTuple):
    """One kind of thing compared in two splits: in a training and a test split, in two training
    splits, or in one split with itself to find what it has twice.
    """

    first: str  # name of a split
    second: str
    what: str  # the kind: subject; sequence, motion, video or recording
    common: tuple[_Common, ...]  # everything that is known to be shared
    unknown: str  # why some or all videos cannot be compared; "" if all can

    @property
    def leaks(self) -> bool:
        """Whether training and test splits share anything."""
        return bool(self.common) and self.is_of_training

    @property
    def is_of_training(self) -> bool:
        """Whether a training and a test split are compared."""
        return _is_training(self.first) and not _is_training(self.second)


class _Origins(NamedTuple):
    """Names of the subjects and recordings that the videos of one split show. Only videos with
    tracks count.
    """

    split: str
    recording: str  # the dataset's word for a recording, such as sequence
    people: str  # splits with the same value name subjects alike, so that names can be compared
    videos: tuple[str, ...]
    # "subject" and "recording" -> (video, name), such as ("0001", "S1"); None: unknown name
    by_field: Mapping[str, Sequence[tuple[str, str | None]]]

    @classmethod
    def from_split(cls, split: cache.Split) -> _Origins:
        """Ask the dataset's reader for the names; if it is not installed, all are unknown."""
        people = split.name.partition("/")[0]
        recording = "recording"
        reader = find_installed(people)
        if reader:
            recording = reader.recording
            people = reader.people or people
        numbers = np.unique(split.tracks.video).tolist()
        videos = tuple(split.videos.names[number] for number in numbers)
        subjects = list[tuple[str, str | None]]()
        recordings = list[tuple[str, str | None]]()
        for number, video in zip(numbers, videos, strict=True):
            origin = reader.origin(video) if reader else Origin()
            recordings.append((video, origin.recording))
            labelled = [origin.subject]
            if not origin.subject:
                labelled = split.videos.account(number).get("subjects") or [origin.subject]
            subjects += [(video, name) for name in dict.fromkeys(labelled)]
        if reader and reader.people:  # tracks are named VIDEO/SUBJECT
            subjects.clear()
            for track in dict.fromkeys(split.tracks.names):
                video, _, subject = track.rpartition("/")
                subjects.append((video, subject))
        by_field = {"subject": subjects, "recording": recordings}
        return cls(split.name, recording, people, videos, by_field)

    def videos_by_name(self, field: str) -> dict[str, list[str]]:
        """Name of each subject, or of each recording -> its videos. field: a key of `by_field`."""
        videos: dict[str, list[str]] = defaultdict(list)
        for video, name in self.by_field[field]:
            if name is not None:
                videos[name].append(video)
        return videos

    def nameless(self, field: str) -> str:
        """The videos without a known name, as text: the split, or "3 of 10 videos of a/train"; ""
        if all have one.
        """
        n = sum(name is None for _, name in self.by_field[field])
        if n == 0:
            return ""
        if n < len(self.videos):
            return f"{n:,} of {count(len(self.videos), 'video')} of {self.split}"
        return self.split


def compare_names(splits: Sequence[cache.Split]) -> list[Comparison]:
    """Compare splits by names of subjects and recordings, in this order:

    - every training split with every test split; these comparisons are always returned;
    - two splits of a dataset without a training split, by recordings, and two training splits that
      name people alike; returned if they share something;
    - a split with itself, for recordings that it has twice.
    """
    by_split = {split.name: _Origins.from_split(split) for split in splits}
    compared = list[Comparison]()
    for train, test in _pairs([*by_split]):
        compared += _compare_origins(by_split[train], by_split[test])
    for first, second in itertools.combinations(by_split.values(), 2):
        dataset = first.split.partition("/")[0]
        is_one_dataset = second.split.partition("/")[0] == dataset
        are_of_training = _is_training(first.split) and _is_training(second.split)
        others = list[Comparison]()
        if is_one_dataset and f"{dataset}/{TRAIN}" not in by_split:
            others = [c for c in _compare_origins(first, second) if c.what != "subject"]
        elif are_of_training and first.people == second.people:
            others = [*_compare_origins(first, second)]
        compared += [comparison for comparison in others if comparison.common]
    for origins in by_split.values():
        if origins.recording in ("motion", PUBLISHED):  # a sequence may have several cameras
            compared += _find_twice(origins)
    return compared


def _find_twice(origins: _Origins) -> Iterator[Comparison]:
    """A split compared with itself, if it has a recording twice."""
    twice = list[_Common]()
    for recording, videos in sorted(origins.videos_by_name("recording").items()):
        if len(videos) > 1:
            twice.append(_Common(recording, tuple(videos[:1]), tuple(videos[1:])))
    if twice:
        name = origins.split
        yield Comparison(name, name, origins.recording, tuple(twice), "")


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The names of every training split with every test split."""
    training = [name for name in names if _is_training(name)]
    test = [name for name in names if not _is_training(name)]
    return [*itertools.product(training, test)]


def _is_training(split: str) -> bool:
    return split.rpartition("/")[2] == TRAIN


def _compare_origins(first: _Origins, second: _Origins) -> Iterator[Comparison]:
    """Compare the subjects of two splits, then their recordings: two comparisons."""
    is_one_dataset = first.split.partition("/")[0] == second.split.partition("/")[0]
    are_published = first.recording == second.recording == PUBLISHED
    recording = "recording"
    if first.recording == second.recording:
        recording = first.recording
    for field, what, are_comparable in (
        ("subject", "subject", first.people == second.people),
        ("recording", recording, is_one_dataset or are_published),
    ):
        if not are_comparable:
            yield Comparison(first.split, second.split, what, (), NOT_COMPARABLE)
            continue
        in_first = first.videos_by_name(field)
        in_second = second.videos_by_name(field)
        common = list[_Common]()
        for name in sorted(in_first.keys() & in_second.keys()):
            common.append(_Common(name, tuple(in_first[name]), tuple(in_second[name])))
        unknown = ""
        nameless = [*filter(None, (first.nameless(field), second.nameless(field)))]
        if nameless:
            unknown = f"not in the names of {' and '.join(nameless)}"
        yield Comparison(first.split, second.split, what, tuple(common), unknown)


def summary(compared: Sequence[Comparison]) -> str:
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
    n_unknown = sum(bool(comparison.unknown) for comparison in of_training)
    line = "; ".join(shared) or "training and test splits share no name of a person or recording"
    if n_unknown:
        line += f" ({n_unknown} of {len(of_training)} comparisons by name are impossible)"
    return line


COMMAND: Final = Command(_options, _run)
