"""`python -m pipeline check`: what is read from a file of people, before anything is converted.

The lines come from the file, and from the clip's header and first frame, by the code that
`convert` reads them with (`read_people`). What `convert` would note about the clip is odd. The page
of --out has the tracks that `convert` would make of a folder with links to the file and the clip.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount, describe_counts
from pipeline.cli.command_line import Command
from pipeline.cli.console import err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count, first_few, from_here
from pipeline.clips.files import KEYPOINTS
from pipeline.clips.labels.detections import Detections
from pipeline.clips.labels.label_content import ABOUT_CLASSES, BOXES_ALONE, UPLOADED
from pipeline.clips.labels.label_files import CLASSES
from pipeline.clips.labels.people_table import ByFrame
from pipeline.clips.labels.text_files import find_class_list
from pipeline.clips.tracks.identities import UNCHECKED
from pipeline.datasets.shared.clips.clip import read_people
from pipeline.datasets.shared.clips.clip_dataset import ClipDataset
from pipeline.datasets.shared.clips.people import MIN_CONFIDENCE, confident_people
from pipeline.datasets.videos import OwnVideos
from pipeline.errors import FOLDER, PipelineError, RawDataError, reading_refused
from pipeline.files.outputs import PAGES, OutputRule
from pipeline.files.pixels.frames import Image, Video
from pipeline.files.raw.files import caching
from pipeline.people.boxes import crop_person, extents
from pipeline.people.skeletons import Doubles, joint_names

# of the joints of the person who shows most; the person in the last line shows at least as many
MOST_SHOWN: Final = 0.9
PERSON_PX: Final = 720  # side of the image of this person
AROUND: Final = 1.3  # that side / the person's height
STYLE: Final = (
    "pre { white-space: pre-wrap; } figure { margin: 0; } figure img { max-width: 100%; }"
)
DOT: Final = 2  # px, from a point to the edge of its mark


class _LabelReading(NamedTuple):
    """What is read of a file."""

    labels: Path
    video: Video
    people: Detections  # as the file has them, in pixels of the clip
    uses_identities: bool
    account: VideoAccount  # with notes, and what is assumed and not read
    refusals: list[RawDataError]


def _run(args: argparse.Namespace) -> int:
    """Print what is read. Returns 1 if something is odd, and 2 if `convert` refuses the file."""
    dataset = args.cfg.dataset(OwnVideos.name)
    if args.out is not None:
        from pipeline.show.command import check_page  # 0.3 s, with the next two imports

        check_page(args.out, PAGES)
        inputs = [args.file, args.clip]
        OutputRule("check", inputs, args.overwrite).require_file(args.out)
    with caching():
        reading = _read(dataset, args.file, Video(args.clip.parent, args.clip.name))
        lines = [f"{key:<11}{text}" for key, text in _lines(reading)]
        problems = [f"odd: {text}" for text in _odd_lines(reading)]
        problems += [f"refused: {refusal}" for refusal in reading.refusals]
        for line in lines:
            out.print(plain(line))
        for problem in problems:
            out.show_problem(problem)
        if args.out is not None:
            _write_page(reading, dataset, args.out, [*lines, *problems])
    return 2 if reading.refusals else int(bool(problems))


def _read(dataset: ClipDataset, labels: Path, video: Video) -> _LabelReading:
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
    return _LabelReading(labels, video, people, uses_identities, account, refusals)


def _odd_lines(reading: _LabelReading) -> Iterator[str]:
    """Yield what is odd: a line for each kind, with numbers."""
    last = reading.people.frame_index.max(initial=0)
    n_frames = reading.video.header().n_frames
    if n_frames and last >= n_frames:
        yield f"people up to frame {last}; the clip's header states {n_frames} frames, from 0"
    yield from [note for note in reading.account.notes if note not in reading.people.remarks]


# --------------------------------------------------------------------------------------------------
# lines


def _lines(reading: _LabelReading) -> Iterator[tuple[str, str]]:
    """Yield key and text of each line."""
    yield "format", f"{reading.people.format}: {reading.labels.name}"
    if reading.people.n_persons:
        yield from _lines_of_people(reading)
    else:
        yield "people", "none"
    of_classes = []
    others = []
    for kind, names in reading.account.unread.items():
        text = ": ".join(filter(None, [kind, describe_counts(names)]))
        if kind in ABOUT_CLASSES:
            of_classes.append(text)
        elif kind == UPLOADED:
            yield "name", text
        elif kind != BOXES_ALONE:
            others.append(text.replace(" not read", ""))
    yield "not read", "; ".join(others) or "nothing"
    yield "classes", "; ".join(of_classes) or "people alone"


def _lines_of_people(reading: _LabelReading) -> Iterator[tuple[str, str]]:
    people = reading.people
    header = reading.video.header()
    width, height = reading.video.size()
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
    yield "identities", _describe_identities(reading)
    scores = people.keypoints.rows[..., 2]
    shown = scores[scores > 0]
    text = f"{shown.min():.2g} to {shown.max():.2g}, median {np.median(shown):.2g}"
    text += f"; {(shown < MIN_CONFIDENCE).mean():.0%} below {MIN_CONFIDENCE}, which are not used"
    yield "scores", "; ".join([text, *people.remarks])

    person = _Person.choose(people)
    points = [f"{name} ({x:.0f}, {y:.0f})" for name, (x, y) in person.points.items()]
    yield "person", f"in frame {person.frame}: {', '.join(points)}"


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


def _describe_identities(reading: _LabelReading) -> str:
    identity = reading.people.identity
    if identity is None:
        return "none: people are linked"
    names = [str(number) for number in np.unique(identity.rows)]
    listed = first_few(reading.people.names or names)
    use = "used" if reading.uses_identities else "not used"
    if UNCHECKED in reading.account.assumed:
        use = "used, unchecked"
    return f"{len(names)}: {listed}; {use}"


class _Person(NamedTuple):
    """One person in one frame."""

    frame: int
    points: Mapping[str, Doubles]  # (2,) px, by name; those that are shown

    @classmethod
    def choose(cls, people: Detections) -> _Person:
        """The largest of the people who show nearly as many joints as anybody."""
        rows = people.keypoints.rows
        n_shown = (rows[..., 2] > 0).sum(axis=1)
        corners, _ = extents(rows)
        sizes = np.ptp(corners, axis=1).max(axis=1)
        sizes[n_shown < MOST_SHOWN * n_shown.max()] = -1
        row = int(sizes.argmax())
        frames = np.repeat(people.frame_index, np.diff(people.keypoints.start))
        named = zip(joint_names(people.skeleton), rows[row], strict=True)
        points = {name: point[:2] for name, point in named if point[2] > 0}
        return cls(int(frames[row]), points)

    def draw(self, image: Image) -> Image:
        """The person, cut out of the frame, with the name of each point."""
        from pipeline.show.canvas import WHITE, Canvas

        points = np.array([*self.points.values()])
        low = points.min(axis=0)
        high = points.max(axis=0)
        side = AROUND * float((high - low).max())
        centre = (low + high) / 2
        drawn = crop_person(image, np.array([*centre, side, side]), 1, PERSON_PX)
        canvas = Canvas(drawn)
        for name, point in self.points.items():
            place = (point - centre) * PERSON_PX / side + PERSON_PX / 2
            canvas.draw_box(place - DOT, place + DOT, name, WHITE)
        return drawn


# --------------------------------------------------------------------------------------------------
# page


def _write_page(
    reading: _LabelReading, dataset: OwnVideos, page: Path, lines: Sequence[str]
) -> None:
    """Write the player of the tracks that `convert` would make, the lines, and one person.

    Without a track, the page has no player. Then it raises PipelineError, which says why.
    """
    from pipeline.show.page import templates, write
    from pipeline.show.player import Page, write_player
    from pipeline.show.tracks import from_raw

    clip = reading.video.path
    people = []
    if reading.people.n_persons:
        person = _Person.choose(reading.people)
        for frame in reading.video.read([person.frame]):
            if frame.image is not None:
                people.append((person.frame, person.draw(frame.image)))
    with TemporaryDirectory() as folder, bar(f"check {clip}", err, unit="frame") as progress:
        raw = Path(folder)
        _link_files(reading, raw)
        title = reading.labels.name
        variables: dict[str, Any] = {"lines": lines, "people": people, "layout": "player.html"}
        try:
            with reading_refused():  # `reading` has them
                shown = from_raw(dataset, dataset.split_of(clip), raw, clip)
        except PipelineError as error:  # no track
            variables |= {"layout": "no_track.html", "title": title, "style": STYLE, "why": error}
            write(templates("check").get_template("check.html").stream(variables), page)
            out.print(plain(f"page       {from_here(page)}"))
            raise
        shown = replace(shown, origin=str(reading.labels), raw=None)
        form = Page("check", (), "check.html", title, style=STYLE, variables=variables)
        for text in write_player(shown, page, page=form, progress=progress):
            err.warn(text)
    out.print(plain(f"page       {from_here(page)}"))


def _link_files(reading: _LabelReading, raw: Path) -> None:
    """Make a raw folder with links to the clip and to its files of people."""
    labels = reading.labels.resolve()
    keypoints = raw / KEYPOINTS
    keypoints.mkdir()
    (raw / reading.video.path).symlink_to(reading.video.place.resolve())
    suffix = "" if labels.is_dir() else labels.suffix.lower()
    (keypoints / f"{reading.video.path}{suffix}").symlink_to(labels)
    class_list = find_class_list(labels)
    if class_list is not None:
        (keypoints / CLASSES).symlink_to(class_list)


def _reads(_: argparse.Namespace) -> list[str]:
    return [OwnVideos.name]


COMMAND: Final = Command(_run, _reads)
