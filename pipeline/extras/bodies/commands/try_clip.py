"""`python -m pipeline try`: the usual commands on a clip of two people, and a page of their
results.

The commands prepare tracks with joints in metres, fit bodies, and draw the joints:

    <out>/clips/         the clip, and a file of its keypoints
    <out>/cache/         the tracks and their joints
    <out>/bodies/        the fitted bodies, and a video of them
    <out>/joints.mp4     the clip with the joints
    <out>/try.html       the page with both videos and a table of the people

A second run keeps what is up to date: the last two files if both exist and the page's head has the
digest of bodies.json.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from cache.storage.durable import write_atomic
from pipeline.__main__ import main
from pipeline.cli.command_line import WORK_KEPT, Command
from pipeline.cli.console import DONE, ERROR, IDLE, err, out, plain, task_line
from pipeline.cli.progress import bar
from pipeline.cli.text import command, from_here, size
from pipeline.clips import detectors
from pipeline.clips.files import KEYPOINTS
from pipeline.errors import MissingAssets
from pipeline.extras.bodies.body_file import PACKAGE, body_file
from pipeline.extras.bodies.writing import SUMMARY, TrackSummary, read_summary
from pipeline.files.packages import PackageFile, cache_folder, fetch_files
from pipeline.files.pixels.frames import Image, Video
from pipeline.files.raw.files import whole_file_digest
from pipeline.grades import tracks_of, video_grades
from pipeline.grades.words import Grade
from pipeline.people.boxes import crop_person
from pipeline.people.skeletons import Array
from pipeline.settings.file import PATH
from pipeline.show.clip import PEOPLE
from pipeline.show.page import VERSION, shows, templates, write

CLIP: Final = PackageFile(
    "sports2d",
    "0.8.34",
    "Sports2D/Demo/demo.mp4",
    "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
)
NAME: Final = "sports2d.mp4"
DETECTOR: Final = "blaze_pose"
SPLIT: Final = "videos/train"
PAGE: Final = "try.html"
CREDITS: Final = (  # what, whose, licence, where it is from
    (
        "Clip",
        "Copyright (c) 2022, perfanalytics",
        "BSD-3-Clause",
        f"{CLIP.package} {CLIP.version}, {CLIP.path}",
    ),
    ("Body", "NAVER; data: MakeHuman and MPFB2", "Apache-2.0; data: CC0", " ".join(PACKAGE)),
)
TEXTS: Final = (
    "Tracks: boxes, and 2D joints. A person's right side is orange, the left one blue.",
    "Bodies over the same frames, estimated from the joints in metres.",
)
PORTRAIT_SCALE: Final = 1.1  # side of a person's image in the table / side of the box


class _ClipTrack(NamedTuple):
    """Where and when a person is in the clip."""

    fitted: TrackSummary
    frame_index: Array  # (N,) frame numbers of the track's rows
    middle_frame: int  # the one that the page shows
    middle_bbox: Array  # (4,) the box in it: cx, cy, width, height px
    seconds: tuple[float, float]  # first and last time at which the person is seen


class _DrawnPerson(NamedTuple):
    """A person of the clip: a row of the page's table."""

    colour: str
    track: _ClipTrack
    grade: Grade
    images: list[Image]  # one with joints, one with the body


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--out",
        type=PATH,
        metavar="DIR",
        default=Path("data/try"),
        help="Folder (default: data/try)",
    )


def _run(args: argparse.Namespace) -> int:
    """Fetch the files, run the commands, and write the page. Returns the code of a command that
    fails.
    """
    folder = args.out
    raw = folder / "clips"
    missing = _fetch(raw / NAME)
    for text in missing:
        err.print(f"{ERROR} {plain(text)}")
    if missing:
        return 2
    joints = folder / "joints.mp4"
    bodies = folder / "bodies"
    page = folder / PAGE
    prepare, fit_bodies, draw_joints = _commands(
        str(raw), str(folder / "cache"), str(bodies), NAME, str(joints)
    )
    # the whole folder is this command's, also what an earlier version wrote without a mark
    code = _run_command(prepare) or _run_command([*fit_bodies, "--overwrite"])
    if code:
        return code

    # bodies.json contains the digests of the split and of its stream of joints, so a page with the
    # digest of bodies.json shows the current tracks, joints and bodies.
    digest = whole_file_digest(bodies / SUMMARY)
    mark = IDLE
    if not (joints.is_file() and shows(page, digest)):
        mark = DONE
        code = _run_command([*draw_joints, "--overwrite"])
        if code:
            return code
        split = cache.open(folder / "cache")[SPLIT]
        content = _page_content(split, raw, joints, bodies)
        template = templates("try", Path(__file__).parents[1] / "templates").get_template(PAGE)
        write(template.stream(content, digest=digest), page)

    listed = task_line("page", plain(from_here(page)), size(page.stat().st_size))
    out.print(f"\n{mark} {listed}")
    out.print("The same with your own clips, in a folder CLIPS:")
    for text in _usage():
        out.print(plain(f"  {text}"), soft_wrap=True)
    return 0


def _page_content(split: cache.Split, raw: Path, joints: Path, bodies: Path) -> dict[str, Any]:
    """The variables of the page's template, except the digest. joints: the drawn video. bodies: the
    folder of fitted bodies.
    """
    written = read_summary(bodies)
    clips = (joints, bodies / written.overlays[0])
    posters, people = _people(split, written.tracks, raw, clips)
    detected = json.loads((raw / KEYPOINTS / f"{NAME}.json").read_bytes())["info"]["weights"]
    weights = [
        ("Weights", "The MediaPipe Authors", file["licence"], file["source"]) for file in detected
    ]
    return {
        "version": VERSION,
        "commands": _usage(),
        "people": people,
        "clips": [*zip(map(_data_uri, clips), posters, TEXTS, strict=True)],
        "credits": [CREDITS[0], *weights, CREDITS[1]],
    }


def _fetch(clip: Path) -> list[str]:
    """Fetch the clip, weights and body if missing. Returns messages about files that cannot be
    fetched.
    """
    steps: tuple[Callable[[], object], ...] = (
        partial(fetch_files, CLIP),
        detectors.get(DETECTOR).identity,
        body_file,
    )
    missing = []
    with bar(f"fetch files into {cache_folder()}", err, unit="package") as progress:
        for number, fetch in enumerate(steps):
            progress(number, len(steps))
            try:
                fetch()
            except MissingAssets as error:
                missing.append(str(error))
    if not (missing or clip.is_file()):
        write_atomic(clip, CLIP.cached_path.read_bytes())
    return missing


def _commands(clips: str, root: str, bodies: str, clip: str, drawn: str) -> list[list[str]]:
    """The words of three commands: prepare tracks with joints in metres, fit bodies, draw joints.

    clips: the raw folder. root: the cache. bodies: the folder of fitted bodies. clip: the name of
    the clip to draw. drawn: the video to write.
    """
    networks = ["--detector", DETECTOR, "--every", "5", "--stream", "blaze_joints"]
    return [
        ["prepare", "videos", "--raw", clips, "--cache", root, *networks],
        ["bodies", SPLIT, "--cache", root, "--out", bodies],
        ["show", SPLIT, "--cache", root, "--video", clip, "--out", drawn],
    ]


def _usage() -> list[str]:
    """The commands for the reader's own clips, as typed."""
    commands = _commands("CLIPS", "data/mine", "bodies", "CLIP.mp4", "joints.mp4")
    return [command(*words) for words in commands]


def _run_command(words: list[str]) -> int:
    out.print(f"\n[bold]{plain(command(*words))}[/bold]", soft_wrap=True)
    return main(words)


def _people(
    split: cache.Split, fitted: Sequence[TrackSummary], raw: Path, clips: Sequence[Path]
) -> tuple[list[Image], list[_DrawnPerson]]:
    """Return an image of each drawn clip, and the rows of the table.

    clips: the drawn videos, of joints and of bodies.
    """
    tracks = [_read_track(split, person) for person in fitted]
    poster_frame = int(np.median(np.concatenate([track.frame_index for track in tracks])))
    frames = {poster_frame, *(track.middle_frame for track in tracks)}
    drawn = [_read_images(clip, frames) for clip in clips]
    numbers = tracks_of(split, split.videos.names.index(NAME))
    grades = video_grades(split, numbers, Video(raw.resolve(), NAME))
    people: list[_DrawnPerson] = []
    for track in tracks:
        images = [
            crop_person(images[track.middle_frame], track.middle_bbox, PORTRAIT_SCALE)
            for images in drawn
        ]
        rgb = PEOPLE[len(people) % len(PEOPLE)]
        colour = "#" + bytes(round(255 * share) for share in rgb).hex()
        person = track.fitted
        grade = replace(grades[person.name], body_distance_mm=person.mean_distance_mm)
        people.append(_DrawnPerson(colour, track, grade, images))
    return [images[poster_frame] for images in drawn], people


def _read_track(split: cache.Split, fitted: TrackSummary) -> _ClipTrack:
    record = split.tracks[split.tracks.names.index(fitted.name)]
    frame_index = split.rows("frame_index", record.start, record.stop)
    middle = len(frame_index) // 2
    bbox = split.rows("bbox", record.start + middle, record.start + middle + 1)[0]
    seconds = frame_index[0] / record.fps, frame_index[-1] / record.fps
    return _ClipTrack(fitted, frame_index, int(frame_index[middle]), bbox, seconds)


def _data_uri(clip: Path) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"


def _read_images(clip: Path, frames: Iterable[int]) -> dict[int, Image]:
    """The images of these frames, by frame number; without those that cannot be decoded."""
    read = Video(clip.parent.resolve(), clip.name).read(sorted(frames))
    return {frame.index: frame.image for frame in read if frame.image is not None}


COMMAND: Final = Command(_options, _run, kept=WORK_KEPT)
