"""`python -m pipeline show`: a split, or one of its videos, to spot wrong joint orders and boxes.

In come tracks of one split, from the cache or as conversion would read them from raw files. What
goes out, --out says: a folder gets the page of the split, an HTML file a video's player, and a file
with the suffix of a clip the whole video. The terminal gets what was drawn, and how good it is.
"""

from __future__ import annotations

import argparse
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
from pipeline.files.raw import is_demo_data
from pipeline.settings.folders import BODY, body_of, check_own_folder
from pipeline.show import CLIP
from pipeline.show.tracks import PageContent, from_cache, from_raw
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.grading import describe_words


def _run(args: argparse.Namespace) -> int:
    """Write the page of a split, or the tracks of one video into a page or clip, and print what was
    drawn.
    """
    if args.out.is_dir() or not args.out.suffix:
        return _write_split(args)
    is_clip = args.out.suffix.lower() == CLIP
    check_page(args.out, (*PAGES, CLIP))
    inputs = inputs_of(args.cache, args.raw)
    OutputRule("show", inputs, args.overwrite).require_file(args.out)
    name = f"{args.dataset}/{args.split}"
    with bar(f"show {name}", err, unit="frame") as progress:
        shown = _read_tracks(args)
        for warning in shown.warnings:
            err.warn(f"{name}: {warning}")
        drawn = count(len(shown.tracks), "track")
        if shown.tracks:
            drawn += f" of {shown.tracks[0].record.video}"
        if is_clip:
            from pipeline.show.clip import write_clip  # imports SciPy

            n, with_rows = write_clip(shown, args.out, progress=progress)
            drawn += f", {count(n, 'frame')}, {with_rows:,} with rows,"
        else:
            from pipeline.show.player import write_video

            for text in write_video(shown, args.out, start_s=args.start, progress=progress):
                err.warn(f"{name}: {text}")
    out.print(plain(f"{shown.name}: {drawn} in {args.out} ({size(args.out.stat().st_size)})"))
    if not args.video:
        out.print("  Another video: --video NAME")
    _print_quality(shown, args.out)
    return 0


def _write_split(args: argparse.Namespace) -> int:
    """Write the page of a split into a folder, with players of the worst videos."""
    from pipeline.show.split.page import FOLDERS, INDEX, PLAYERS, SplitPage

    name = f"{args.dataset}/{args.split}"
    if args.cache is None or args.video:
        raise PipelineError(
            f"--out {args.out}: a folder is for the page of a split in a cache (--cache DIR), and "
            "has all of its videos. For one video (--video NAME), name a file: --out video.html"
        )
    require_parent(args.out)
    rule = OutputRule("show", inputs_of(args.cache, args.raw), args.overwrite)
    rule.require_folder(args.out, (INDEX, *FOLDERS))
    split = cache.open(args.cache)[name]
    with bar(f"show {name}", err) as progress:
        shown = _read_tracks(args, n_tracks=0)
        page = SplitPage(shown, split, progress)
        for text in (*shown.warnings, *page.write(args.out, rule, n_players=PLAYERS)):
            err.warn(f"{name}: {text}")
    out.print(plain(f"{name}: {describe_words(page.words)} in {args.out / INDEX}"))
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


def _read_tracks(args: argparse.Namespace, n_tracks: int | None = None) -> PageContent:
    """Read tracks from the cache or from raw files. n_tracks: as of `from_cache`."""
    name = f"{args.dataset}/{args.split}"
    if args.cache is not None:
        demo = ConversionRecord(cache.open(args.cache)[name]).is_stand_in
        body = _body(args, datasets.get(args.dataset), demo=demo)
        return from_cache(args.cache, name, args.video, n_tracks=n_tracks, raw=args.raw, body=body)
    if args.raw is not None:
        dataset = args.cfg.dataset(args.dataset)
        check_own_folder(args.raw, dataset)
        body = _body(args, dataset, demo=is_demo_data(args.raw), needed=dataset.labels.needs_body)
        return from_raw(dataset, args.split, args.raw, args.video, body=body)
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
