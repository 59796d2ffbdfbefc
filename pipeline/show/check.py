"""`python -m pipeline check`: what is read from a file of people, before anything is converted.

The lines come from the file, and from the clip's header and first frame, by the code that
`convert` reads them with (`read_people`). What `convert` would note about the clip is odd.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount, describe_counts
from pipeline.cli.command_line import Command
from pipeline.cli.console import out, plain
from pipeline.cli.text import count, first_few
from pipeline.clips.labels.detections import Detections
from pipeline.clips.labels.label_content import BOXES_ALONE
from pipeline.clips.labels.people_table import ByFrame
from pipeline.clips.tracks.identities import UNCHECKED
from pipeline.datasets.shared.clips.clip import ClipDataset, read_people
from pipeline.datasets.shared.clips.people import MIN_CONFIDENCE, confident_people
from pipeline.datasets.videos import OwnVideos
from pipeline.errors import FOLDER, RawDataError, reading_refused
from pipeline.files.pixels.frames import Video
from pipeline.files.raw.files import caching
from pipeline.people.boxes import extents
from pipeline.people.skeletons import joint_names
from pipeline.settings.file import PATH

# of the joints of the person who shows most; the person in the last line shows at least as many
MOST_SHOWN: Final = 0.9
_OF_CLASSES: Final = ("people skipped", "categories", "classes")  # starts of kinds of `unread`


class _Check(NamedTuple):
    """What is read of a file."""

    labels: Path
    video: Video
    people: Detections  # as the file has them, in pixels of the clip
    uses_identities: bool
    account: VideoAccount  # with notes, and what is assumed and not read
    refusals: list[RawDataError]


def _options(sub: argparse.ArgumentParser) -> None:
    help_ = "File of people in the clip, or folder with a file for each frame, of any tool"
    sub.add_argument("file", metavar="FILE", type=PATH, help=help_)
    sub.add_argument("clip", metavar="CLIP", type=PATH, help="Video file")


def _run(args: argparse.Namespace) -> int:
    """Print what is read. Returns 1 if something is odd, and 2 if `convert` refuses the file."""
    dataset = args.cfg.dataset(OwnVideos.name)
    with caching():
        check = _read(dataset, args.file, Video(args.clip.parent, args.clip.name))
        for key, text in _lines(check):
            out.print(plain(f"{key:<11}{text}"))
        odd = [*_odd_lines(check)]
    for text in odd:
        out.show_problem(f"odd: {text}")
    for refusal in check.refusals:
        out.show_problem(f"refused: {refusal}")
    return 2 if check.refusals else int(bool(odd))


def _read(dataset: ClipDataset, labels: Path, video: Video) -> _Check:
    """Read a file as `convert` does. Raises RawDataError if nothing can be shown of it."""
    account = VideoAccount(video.path)
    with reading_refused() as refusals:
        people = read_people(dataset, labels, video, account)
        if people is None:
            raise RawDataError(labels, FOLDER, "files of people", "none", "Name another folder.")
        keypoints = ByFrame(people.keypoints.rows.copy(), people.keypoints.start)
        used = confident_people(
            replace(people, keypoints=keypoints),
            people.frame_index / video.header().fps,
            account,
            dataset.stated(video.path).identities,
        )
    uses_identities = used.detections.identity is not None
    return _Check(labels, video, people, uses_identities, account, refusals)


def _odd_lines(check: _Check) -> Iterator[str]:
    """Yield what is odd: a line for each kind, with numbers."""
    last = check.people.frame_index.max(initial=0)
    n_frames = check.video.header().n_frames
    if n_frames and last >= n_frames:
        yield f"people up to frame {last}; the clip's header states {n_frames} frames, from 0"
    yield from [note for note in check.account.notes if note not in check.people.remarks]


# --------------------------------------------------------------------------------------------------
# lines


def _lines(check: _Check) -> Iterator[tuple[str, str]]:
    """Yield key and text of each line."""
    yield "format", f"{check.people.format}: {check.labels.name}"
    if check.people.n_persons:
        yield from _lines_of_people(check)
    else:
        yield "people", "none"
    of_classes = []
    others = []
    for kind, names in check.account.unread.items():
        text = f"{kind}: {describe_counts(names)}"
        if kind.startswith(_OF_CLASSES):
            of_classes.append(text)
        elif kind != BOXES_ALONE:
            others.append(text.replace(" not read", ""))
    yield "not read", "; ".join(others) or "nothing"
    yield "classes", "; ".join(of_classes) or "people alone"


def _lines_of_people(check: _Check) -> Iterator[tuple[str, str]]:
    people = check.people
    header = check.video.header()
    width, height = check.video.size()
    frames = people.frame_index
    of_clip = f"{header.n_frames} by its header, {header.fps:.4g} a second, {width} x {height} px"
    with_people = f"{len(frames):,} with people, {frames[0]} to {frames[-1]}"
    yield "frames", f"{with_people}; the clip has {of_clip}"
    n_of_frame = np.diff(people.keypoints.start)
    of_frame = f"{np.median(n_of_frame):.0f} in a frame, at most {n_of_frame.max()}"
    yield "people", f"{count(people.n_persons, 'detection')}; {of_frame}"
    yield "joints", _describe_joints(people)

    corners, is_shown = extents(people.keypoints.rows)
    sides = np.diff(corners[is_shown], axis=1)[:, 0]
    median = np.median(sides, axis=0)
    n_wide = int((sides[:, 0] > sides[:, 1]).sum())
    text = f"{median[0]:.0f} x {median[1]:.0f} px (median), {median[1] / height:.0%} of the image's"
    yield "boxes", f"{text} height; {n_wide} of {len(sides)} wider than high"
    yield "identities", _describe_identities(check)
    scores = people.keypoints.rows[..., 2]
    shown = scores[scores > 0]
    text = f"{shown.min():.2g} to {shown.max():.2g}, median {np.median(shown):.2g}"
    text += f"; {(shown < MIN_CONFIDENCE).mean():.0%} below {MIN_CONFIDENCE}, which are not used"
    yield "scores", "; ".join([text, *people.remarks])

    n_shown = (scores > 0).sum(axis=1)
    sizes = np.ptp(corners, axis=1).max(axis=1)
    person = int(np.argmax(sizes * (n_shown >= MOST_SHOWN * n_shown.max())))
    yield "person", _describe_person(people, person)


def _describe_joints(people: Detections) -> str:
    if people.boxes_alone:
        return "none: boxes alone"
    names = np.array(joint_names(people.skeleton))
    text = f"{len(names)} joints, {people.order_known_by}"
    if isinstance(people.skeleton, str):
        text = f"{people.skeleton}: {text}"
    is_shown = (people.keypoints.rows[..., 2] > 0).any(axis=0)
    missing = names[~is_shown].tolist()
    return f"{text}; in no frame: {', '.join(missing)}" if missing else text


def _describe_identities(check: _Check) -> str:
    identity = check.people.identity
    if identity is None:
        return "none: people are linked"
    names = [str(number) for number in np.unique(identity.rows)]
    listed = first_few(check.people.names or names)
    use = "used" if check.uses_identities else "not used"
    if UNCHECKED in check.account.assumed:
        use = "used, unchecked"
    return f"{len(names)}: {listed}; {use}"


def _describe_person(people: Detections, row: int) -> str:
    """The points of a person by name, px."""
    frame = np.repeat(people.frame_index, np.diff(people.keypoints.start))[row]
    points = []
    for name, (x, y, score) in zip(
        joint_names(people.skeleton), people.keypoints.rows[row].tolist(), strict=True
    ):
        if score > 0:
            points.append(f"{name} ({x:.0f}, {y:.0f})")
    return f"in frame {frame}: {', '.join(points)}"


def _reads(_: argparse.Namespace) -> list[str]:
    return [OwnVideos.name]


COMMAND: Final = Command(_options, _run, _reads)
