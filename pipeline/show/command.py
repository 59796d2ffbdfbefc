"""`python -m pipeline show`: a page or a clip of some tracks, to spot wrong joint orders and
boxes.

In come tracks of one split, from the cache or as conversion would read them from raw files. Out
goes one file, by the suffix of --out: an HTML page with some frames of each track, or a clip, the
whole video of the tracks. The terminal gets what was drawn, and how good the tracks are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.cli.command_line import Command
from pipeline.cli.console import STAND_IN, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, count, few, size
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.files.outputs import PAGES, OutputRule, inputs_of
from pipeline.files.places import require_parent
from pipeline.files.raw import is_stand_in
from pipeline.settings.folders import BODY, body_of, check_own_folder
from pipeline.show import CLIP
from pipeline.show.page import is_page, write_page
from pipeline.show.tracks import Choice, PageContent, from_cache, from_raw, worst_video


def _run(args: argparse.Namespace) -> int:
    """Draw the tracks of one video into a page or clip, and print what was drawn. Motions without
    images are drawn by track.
    """
    is_clip = args.out.suffix.lower() == CLIP
    check_page(args.out, (*PAGES, CLIP))
    inputs = inputs_of(args.cache, args.raw)
    OutputRule("show", inputs, args.overwrite, is_page).require_file(args.out)
    name = f"{args.dataset}/{args.split}"
    choice = Choice(video=args.video)
    has_images = _has_images(args)
    with bar(f"show {name}", err, unit="frame" if has_images else "track") as progress:
        if is_clip or has_images:
            choice = _choose_video(args)
        shown = _read_tracks(args, choice)
        for warning in shown.warnings:
            err.warn(f"{name}: {warning}")
        drawn = count(len(shown.tracks), "track")
        if is_clip:
            from pipeline.show.clip import write_clip  # imports SciPy

            n, with_rows = write_clip(shown, args.out, progress=progress)
            drawn += f" of {choice.video}, {count(n, 'frame')}, {with_rows:,} with rows,"
        elif has_images and shown.tracks:
            from pipeline.show.player import write_player

            drawn += f" of {choice.video}"
            left_out = write_player(shown, args.out, start_s=args.start, progress=progress)
            for text in left_out:
                err.warn(f"{name}: {text}")
        else:
            write_page(shown, args.out, progress=progress)
    out.print(plain(f"{shown.name}: {drawn} in {args.out} ({size(args.out.stat().st_size)})"))
    if has_images and not args.video:
        out.print("  Another video: --video NAME")
    _print_quality(shown, args.out)
    return 0


def _print_quality(shown: PageContent, page: Path) -> None:
    """Print the first tracks' grades; the page has all of them, and how well estimated bodies
    fit.
    """
    graded = [f"  {track.record.name}: {track.grade.verdict}" for track in shown.tracks]
    for line in few(graded, FEW, str(page)):
        out.print(plain(line))
    if shown.stand_in:
        out.print(f"  {STAND_IN} demo data, not the dataset itself")


def _has_images(args: argparse.Namespace) -> bool:
    """Whether the split's tracks are in images, and not motions alone."""
    if args.cache is not None:
        return "bbox" in cache.open(args.cache)[f"{args.dataset}/{args.split}"].columns
    return "bbox" in datasets.get(args.dataset).columns(args.split, body=False)


def _choose_video(args: argparse.Namespace) -> Choice:
    """All rows of the chosen video; if the user chose none, of the worst one in the cache, or of
    the first one of raw files. An empty name if no video has tracks.
    """
    video = args.video
    if not video and args.cache is not None:
        video = worst_video(args.cache, f"{args.dataset}/{args.split}")
    elif not video:
        first = _read_tracks(args, Choice(n_tracks=1, n_frames=1)).tracks
        video = first[0].record.video if first else ""
    return Choice(video=video, n_frames=sys.maxsize)


def _read_tracks(args: argparse.Namespace, choice: Choice) -> PageContent:
    """Read the chosen tracks from the cache or from raw files."""
    name = f"{args.dataset}/{args.split}"
    if args.cache is not None:
        demo = bool(cache.open(args.cache)[name].manifest.get("stand_in", False))
        body = _body(args, datasets.get(args.dataset), demo=demo)
        return from_cache(args.cache, name, choice, raw=args.raw, body=body)
    if args.raw is not None:
        dataset = args.cfg.dataset(args.dataset)
        check_own_folder(args.raw, dataset)
        body = _body(args, dataset, demo=is_stand_in(args.raw), needed=dataset.labels.needs_body)
        return from_raw(dataset, args.split, args.raw, choice, body=body)
    raise PipelineError(
        "Nothing to show: add --cache DIR for converted tracks, or --raw DIR for raw files."
    )


def _body(
    args: argparse.Namespace, dataset: Dataset, *, demo: bool, needed: bool = False
) -> Path | None:
    """As `body_of`, but None if the folder in luigi.cfg is missing: a page does not need a body.

    needed: whether the tracks cannot be read without one.
    """
    needed |= "pose" in dataset.columns(args.split, body=False)
    body = body_of(args.cfg, args.body, dataset, demo=demo, needed=needed)
    if body is not None and body != args.body and not body.is_dir():
        return None
    return body


def check_page(page: Path, suffixes: tuple[str, ...] = PAGES) -> None:
    """Raise PipelineError if the page cannot be written."""
    if page.is_dir():
        raise PipelineError(f"--out {page}: is a folder. Name a file: --out {page / 'page.html'}")
    require_parent(page)
    if page.suffix.lower() not in suffixes:
        or_clip = f", or {CLIP} for a clip" if CLIP in suffixes else ""
        raise PipelineError(f"--out {page}: expected a file name with the suffix .html{or_clip}")


def _reads(args: argparse.Namespace) -> tuple[str, ...]:
    return BODY if args.cache else (args.dataset, *BODY)


COMMAND: Final = Command(_run, reads=_reads)
