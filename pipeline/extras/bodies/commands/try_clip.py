"""`python -m pipeline try`: the usual commands on a clip of two people, and a page of their
results.

The commands detect people, convert them to tracks, prepare joints in metres, and fit bodies:

    <out>/clips/         the clip, and a file of its keypoints
    <out>/cache/         the tracks and their joints
    <out>/joints.mp4     the clip with the tracks and 2D joints
    <out>/bodies/        the fitted bodies, and a video of them
    <out>/try.html       the page: first of the tracks alone, then of the bodies, too

A second run keeps what is up to date: the page and joints.mp4 if both exist and the page's head has
the digest of what it shows.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import webbrowser
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

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
from pipeline.show.clip import PEOPLE, write_clip
from pipeline.show.page import VERSION, shows, templates, write
from pipeline.show.tracks import Choice, from_cache
from pipeline.show.video_file import FOR_PAGES

CLIP: Final = PackageFile(
    "sports2d",
    "0.8.34",
    "Sports2D/Demo/demo.mp4",
    "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
)
NAME: Final = "sports2d.mp4"
DETECTOR: Final = "blaze_pose"
DETECTION: Final = ("--detector", DETECTOR, "--every", "5")
SPLIT: Final = "videos/train"
PAGE: Final = "try.html"
JOINTS: Final = "joints.mp4"
BODIES: Final = "bodies"  # folder
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
    """Fetch the files, run the commands, and write the page, as soon as there are tracks and again
    with bodies. Returns the code of a command that fails.
    """
    folder = args.out
    bodies = folder / BODIES
    raw = folder / "clips"
    root = str(folder / "cache")
    find_people = ["detect", str(raw), "--out", str(raw / KEYPOINTS), *DETECTION]
    convert = ["convert", SPLIT, "--raw", str(raw), "--cache", root]
    prepare, fit_bodies = _commands(str(raw), root, str(bodies))
    code = 0
    with ThreadPoolExecutor(1) as thread:
        body = thread.submit(body_file)  # fetched meanwhile: tracks do not need it
        missing = _fetch(raw / NAME)
        if not missing:
            code = _run_command(find_people) or _run_command(convert)
            if code == 0:
                _show_tracks(folder)
        try:
            body.result()
        except MissingAssets as error:
            missing.append(str(error))
    for text in missing:
        err.print(f"{ERROR} {plain(text)}")
    if missing:
        return 2
    # the whole folder is this command's, also what an earlier version wrote without a mark
    code = code or _run_command(prepare) or _run_command([*fit_bodies, "--overwrite"])
    if code:
        return code

    # bodies.json contains the digests of the split and of its stream of joints, so a page with the
    # digest of bodies.json shows the current tracks, joints and bodies.
    digest = whole_file_digest(bodies / SUMMARY)
    mark = IDLE
    if not _is_current(folder, digest):
        mark = DONE
        written = read_summary(bodies)
        _write_page(folder, digest, written.tracks, written.overlays)

    page = folder / PAGE
    listed = task_line("page", plain(from_here(page)), size(page.stat().st_size))
    out.print(f"\n{mark} {listed}")
    out.print("The same with your own clips, in a folder CLIPS:")
    for text in _usage():
        out.print(plain(f"  {text}"), soft_wrap=True)
    return 0


def _show_tracks(folder: Path) -> None:
    """Write the page of the tracks, and open it on a terminal with a screen. Unless there are
    bodies: then the page shows them, or those of an earlier version until they are made again.
    """
    digest = cache.open(folder / "cache")[SPLIT].manifest["digest"]
    if (folder / BODIES / SUMMARY).is_file() or _is_current(folder, digest):
        return
    _write_page(folder, digest)
    page = folder / PAGE
    shown = "tracks and 2D joints; bodies follow: reload"
    out.print(f"{DONE} {task_line('page', plain(from_here(page)), shown)}")
    if out.is_terminal and any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        webbrowser.open(page.resolve().as_uri())


def _is_current(folder: Path, digest: str) -> bool:
    """Whether the page shows what has this digest."""
    return (folder / JOINTS).is_file() and shows(folder / PAGE, digest)


def _write_page(
    folder: Path, digest: str, fitted: Sequence[TrackSummary] = (), overlays: Sequence[str] = ()
) -> None:
    """Write the page of the tracks, and of fitted bodies and their video, if there are any.

    digest: of what the page shows. overlays: as in bodies.json.
    """
    root = folder / "cache"
    split = cache.open(root)[SPLIT]
    joints = folder / JOINTS
    if not _is_current(folder, split.manifest["digest"]):  # else the page of the tracks has them
        shown = from_cache(root, SPLIT, Choice(video=NAME, n_frames=sys.maxsize))
        with bar(f"draw {NAME}", err, unit="frame") as progress:
            write_clip(shown, joints, FOR_PAGES, progress=progress)
    clips = [joints, *(folder / BODIES / file for file in overlays)]
    raw = folder / "clips"
    posters, people = _people(split, fitted, raw, clips)
    detected = json.loads((raw / KEYPOINTS / f"{NAME}.json").read_bytes())["info"]["weights"]
    weights = [
        ("Weights", "The MediaPipe Authors", file["licence"], file["source"]) for file in detected
    ]
    template = templates("try", Path(__file__).parents[1] / "templates").get_template(PAGE)
    content = template.stream(
        digest=digest,
        version=VERSION,
        commands=_usage(),
        people=people,
        clips=[*zip(map(_data_uri, clips), posters, TEXTS, strict=False)],
        credits=[CREDITS[0], *weights, CREDITS[1]],
    )
    write(content, folder / PAGE)


def _fetch(clip: Path) -> list[str]:
    """Fetch the clip and the weights if missing. Returns messages about files that cannot be
    fetched.
    """
    steps: tuple[Callable[[], object], ...] = (
        partial(fetch_files, CLIP),
        detectors.get(DETECTOR).identity,
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


def _commands(clips: str, root: str, bodies: str) -> list[list[str]]:
    """The words of two commands: prepare tracks with joints in metres, and fit bodies.

    clips: the raw folder. root: the cache. bodies: the folder of fitted bodies.
    """
    networks = [*DETECTION, "--stream", "blaze_joints"]
    return [
        ["prepare", "videos", "--raw", clips, "--cache", root, *networks],
        ["bodies", SPLIT, "--cache", root, "--out", bodies],
    ]


def _usage() -> list[str]:
    """The commands for the reader's own clips, as typed."""
    root = "data/mine"
    prepare, fit_bodies = _commands("CLIPS", root, BODIES)
    draw = ["show", SPLIT, "--cache", root, "--video", "CLIP.mp4", "--out", JOINTS]
    return [command(*words) for words in (prepare, fit_bodies, draw)]


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
    poster_frame = int(np.median(split.rows("frame_index", 0, split.manifest["rows"])))
    frames = {poster_frame, *(track.middle_frame for track in tracks)}
    drawn = [_read_images(clip, frames) for clip in clips]
    posters = [images[poster_frame] for images in drawn]
    if not tracks:
        return posters, []
    source = Video(raw.resolve(), NAME)
    numbers = tracks_of(split, split.videos.names.index(NAME))
    grades = video_grades(split, numbers, source)
    zoom = posters[0].shape[1] / source.size()[0]
    people: list[_DrawnPerson] = []
    for track in tracks:
        images = [
            crop_person(images[track.middle_frame], zoom * track.middle_bbox, PORTRAIT_SCALE)
            for images in drawn
        ]
        rgb = PEOPLE[len(people) % len(PEOPLE)]
        colour = "#" + bytes(round(255 * share) for share in rgb).hex()
        person = track.fitted
        grade = replace(grades[person.name], body_distance_mm=person.mean_distance_mm)
        people.append(_DrawnPerson(colour, track, grade, images))
    return posters, people


def _read_track(split: cache.Split, fitted: TrackSummary) -> _ClipTrack:
    record = split.tracks[split.tracks.names.index(fitted.name)]
    frame_index = split.rows("frame_index", record.start, record.stop)
    middle = len(frame_index) // 2
    bbox = split.rows("bbox", record.start + middle, record.start + middle + 1)[0]
    seconds = frame_index[0] / record.fps, frame_index[-1] / record.fps
    return _ClipTrack(fitted, int(frame_index[middle]), bbox, seconds)


def _data_uri(clip: Path) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"


def _read_images(clip: Path, frames: Iterable[int]) -> dict[int, Image]:
    """The images of these frames, by frame number; without those that cannot be decoded."""
    read = Video(clip.parent.resolve(), clip.name).read(sorted(frames))
    return {frame.index: frame.image for frame in read if frame.image is not None}


COMMAND: Final = Command(_options, _run, kept=WORK_KEPT)
