"""`python -m pipeline try`: the usual commands on a clip of two people, and a page of their
results.

The commands detect people, convert them to tracks, prepare joints in metres, and fit bodies:

    <out>/clips/         the clip, and a file of its keypoints
    <out>/cache/         the tracks and their joints
    <out>/bodies/        the fitted bodies, and a video of them
    <out>/try.html       the page: a player, first of the tracks alone, then of the bodies, too

A second run keeps what is up to date: the page, if its head has the digest of what it shows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import webbrowser
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

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
from pipeline.files.pixels.frames import Frame, Image, Video
from pipeline.files.raw.files import whole_file_digest
from pipeline.show.clip import frames_of
from pipeline.show.page import shows
from pipeline.show.player import Page, Paint, write_player
from pipeline.show.tracks import from_cache

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
    commands = _Commands.compose(str(raw), root, str(bodies))
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
    code = code or _run_command(commands.prepare) or _run_command(commands.fit_bodies)
    if code:
        return code

    # bodies.json contains the digests of the split and of its stream of joints, so a page with the
    # digest of bodies.json shows the current tracks, joints and bodies.
    digest = whole_file_digest(bodies / SUMMARY)
    mark = IDLE
    if not shows(folder / PAGE, digest):
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
    if (folder / BODIES / SUMMARY).is_file() or shows(folder / PAGE, digest):
        return
    _write_page(folder, digest)
    page = folder / PAGE
    shown = "tracks and 2D joints; bodies follow: reload"
    out.print(f"{DONE} {task_line('page', plain(from_here(page)), shown)}")
    if out.is_terminal and any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        webbrowser.open(page.resolve().as_uri())


def _write_page(
    folder: Path, digest: str, fitted: Sequence[TrackSummary] = (), overlays: Sequence[str] = ()
) -> None:
    """Write the page of the tracks, and of fitted bodies and their video, if there are any.

    digest: of what the page shows. overlays: as in bodies.json.
    """
    shown = from_cache(folder / "cache", SPLIT, NAME)
    tracks = {track.record.name: track for track in shown.tracks}
    for person in fitted:
        track = tracks[person.name]
        grade = replace(track.grade, body_distance_mm=person.mean_distance_mm)
        tracks[person.name] = replace(track, grade=grade)
    label_file = folder / "clips" / KEYPOINTS / f"{NAME}.json"
    detected = json.loads(label_file.read_bytes())["info"]["weights"]
    weights = [
        ("Weights", "The MediaPipe Authors", file["licence"], file["source"]) for file in detected
    ]
    variables = {
        "people": [(person, tracks[person.name]) for person in fitted],
        "commands": _usage(),
        "credits": [CREDITS[0], *weights, CREDITS[1]],
    }
    page = Page(
        by="try",
        folders=(Path(__file__).parents[1] / "templates",),
        template=PAGE,
        title="People in a clip, without a label",
        digest=digest,
        variables=variables,
    )
    paint = None
    if overlays:
        paint = _read_bodies((folder / BODIES).resolve(), overlays[0])
    shown = replace(shown, tracks=tuple(tracks.values()))
    with bar(f"draw {NAME}", err, unit="frame") as progress:
        write_player(shown, folder / PAGE, paint=paint, page=page, progress=progress)


def _read_bodies(folder: Path, overlay: str) -> Paint:
    """The frames of a video of bodies, for those of the clip in order; after its end, the clip's
    own.
    """
    drawn = frames_of(Video(folder, overlay), sys.maxsize)

    def paint(frame: Frame, image: Image) -> Image:
        for of_bodies, painted in drawn:
            if of_bodies.index == frame.index:
                return painted
        return image

    return paint


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


class _Commands(NamedTuple):
    """The words of two commands."""

    prepare: list[str]  # tracks with joints in metres
    fit_bodies: list[str]

    @classmethod
    def compose(cls, clips: str, root: str, bodies: str) -> Self:
        """clips: the raw folder. root: the cache. bodies: the folder of fitted bodies."""
        networks = [*DETECTION, "--stream", "blaze_joints"]
        return cls(
            ["prepare", "videos", "--raw", clips, "--cache", root, *networks],
            ["bodies", SPLIT, "--cache", root, "--out", bodies],
        )


def _usage() -> list[str]:
    """The commands for the reader's own clips, as typed."""
    root = "data/mine"
    commands = _Commands.compose("CLIPS", root, BODIES)
    play = ["show", SPLIT, "--cache", root, "--video", "CLIP.mp4", "--out", "CLIP.html"]
    return [command(*words) for words in (*commands, play)]


def _run_command(words: list[str]) -> int:
    out.print(f"\n[bold]{plain(command(*words))}[/bold]", soft_wrap=True)
    return main(words)


COMMAND: Final = Command(_run, kept=WORK_KEPT)
