"""`python -m pipeline show`: a page, or a clip, that shows wrong joint orders and boxes at a glance."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.cli.console import DOUBT, STAND_IN, err, out, plain, size
from pipeline.cli.options import whole
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import count
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.files.raw.stand_in import is_stand_in
from pipeline.settings.arguments import check_own_folder, split_arguments
from pipeline.settings.commands import body_of, dataset_of
from vibe_extensions.pages import show
from vibe_extensions.pages.show.tracks import PAGE_FRAMES

CLIP: Final = ".mp4"  # what --out of a clip ends in


def options(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub)
    sub.add_argument("--cache", type=cache.place_of, help="the cache's folder, or its URL: show what was converted")
    sub.add_argument(
        "--raw",
        type=Path,
        help="the dataset's own raw folder: without --cache, show what conversion would make of it; "
        "with --cache, where the pictures are now",
    )
    sub.add_argument(
        "--out",
        type=Path,
        required=True,
        help=f"the page to write, one HTML file; or, where it ends in {CLIP}, a clip of one video",
    )
    sub.add_argument("--body", type=Path, help="SMPL's files, to draw SMPL parameters as joints; default: [paths] body")
    sub.add_argument("--tracks", type=whole(1), default=6, help="how many, spread evenly over the split (default 6)")
    sub.add_argument("--track", action="append", default=[], metavar="NAME", help="this track; may be repeated")
    sub.add_argument(
        "--video", metavar="NAME", default="", help="all tracks of this video; of a clip the default: a first one"
    )
    sub.add_argument(
        "--rejected",
        action="store_true",
        help="videos that conversion rejects since labels and pixels do not fit: what it would read",
    )
    sub.add_argument(
        "--frames",
        type=whole(1),
        help=f"of each track on a page, spread evenly over it (default {PAGE_FRAMES}); a clip has all",
    )


def reads(args: argparse.Namespace) -> list[str]:
    """The dataset's section for raw files; the cache has what it was converted with."""
    return ["paths.body", *([args.dataset] if args.cache is None else [])]


def run(args: argparse.Namespace) -> int:
    """Draw some tracks of one split."""
    clip = args.out.suffix.lower() == CLIP
    check_page(args.out)
    if clip:
        from vibe_extensions.pages.show.clip import require_h264, write_clip  # imports SciPy

        require_h264(args.out)
    if clip and args.frames is not None:
        raise PipelineError("--frames: a clip has all frames of its video. Leave it out, or write a page.")
    choice = show.Choice(args.tracks, tuple(args.track), args.video, args.frames or PAGE_FRAMES, args.rejected)
    if clip and not (choice.names or choice.video):
        first = _shown(args, replace(choice, tracks=1, frames=1)).tracks
        choice = replace(choice, video=first[0].record.video if first else "")
    shown = _shown(args, replace(choice, frames=sys.maxsize) if clip else choice)
    name = shown.name
    for warning in shown.warnings:
        err.print(f"{DOUBT} {plain(f'{name}: {warning}')}")
    with bar(f"show {name}", err, unit="frame" if clip else "track") as progress:
        of = ""
        if clip:
            n_frames, with_rows = write_clip(shown, args.out, progress=progress)
            of = f" of {shown.tracks[0].record.video}, {count(n_frames, 'frame')}, {with_rows:,} with rows,"
        else:
            show.write_page(shown, args.out, progress=progress)
    tracks = count(len(shown.tracks), "track")
    out.print(plain(f"{name}: {tracks}{of} in {args.out} ({size(args.out.stat().st_size)})"))
    if shown.stand_in:
        out.print(f"  {STAND_IN} demo data, not the dataset itself")
    return 0


def split_of(page: Path) -> str:
    """The digest of the committed split that a page shows; "" where there is no such page."""
    return show.split_of(page)


def write_split(root: cache.Root, name: str, page: Path, *, raw: Path, body: Path | None, progress: Progress) -> int:
    """Write a page of some tracks of a split. Returns how many."""
    shown = show.from_cache(root, name, show.Choice(), raw=raw, body=body)
    show.write_page(shown, page, progress=progress)
    return len(shown.tracks)


def _shown(args: argparse.Namespace, choice: show.Choice) -> show.Shown:
    """The chosen tracks, from the cache or from raw files."""
    name = f"{args.dataset}/{args.split}"
    if args.cache is not None:
        demo = bool(cache.open(args.cache)[name].manifest.get("stand_in", False))
        body = _body(args, datasets.get(args.dataset), demo=demo)
        return show.from_cache(args.cache, name, choice, raw=args.raw, body=body)
    if args.raw is not None:
        dataset = dataset_of(args, args.dataset)
        check_own_folder(args.raw, dataset)
        body = _body(args, dataset, demo=is_stand_in(args.raw))
        return show.from_raw(dataset, args.split, args.raw, choice, body=body)
    raise PipelineError("what to show? --cache DIR for converted rows, --raw DIR for raw files")


def _body(args: argparse.Namespace, dataset: Dataset, *, demo: bool) -> Path | None:
    """As `body_of`, but that a page needs none: that of luigi.cfg may be missing."""
    body = body_of(args, dataset, demo=demo, needed="pose" in dataset.columns(args.split, body=False))
    return body if body is None or body == args.body or body.is_dir() else None


def check_page(page: Path) -> None:
    """Raise PipelineError, before minutes of drawing, where the page cannot be written."""
    if page.is_dir():
        raise PipelineError(f"--out {page}: is a folder. Name the page to write: --out {page / 'page.html'}")
    if not page.parent.is_dir():
        raise PipelineError(f"--out {page}: there is no folder {page.parent}. Make it, or name another.")
    if page.suffix.lower() not in (".html", ".htm", CLIP):
        raise PipelineError(f"--out {page}: expected a name that ends in .html, or in {CLIP} for a clip")
