"""Options of the commands that draw."""

from __future__ import annotations

import argparse

from pipeline.cli.command_line import whole
from pipeline.settings.options import path, root, split_arguments
from pipeline.show import CLIP


def check(sub: argparse.ArgumentParser) -> None:
    help_ = "File of people in the clip, or folder with a file for each frame, of any tool"
    sub.add_argument("file", metavar="FILE", type=path, help=help_)
    sub.add_argument("clip", metavar="CLIP", type=path, help="Video file")
    help_ = "Also decode the clip, and write a page (.html) with the people drawn over it"
    sub.add_argument("--out", type=path, help=help_)


def show(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    split_arguments(sub)
    add("--cache", type=root, help="folder or URL of the cache: show converted tracks")
    add(
        "--raw",
        type=path,
        help="the dataset's raw folder: without --cache, show the tracks that conversion would "
        "read; with --cache, the current folder of the images",
    )
    add(
        "--out",
        type=path,
        required=True,
        help="output: a folder for the page of a split in the cache, the worst tracks first; one "
        f"HTML file for a video's player; with the suffix {CLIP}, a clip of a video",
    )
    add(
        "--body",
        type=path,
        help="folder of SMPL's files, to draw SMPL poses (default: [paths] body)",
    )
    add(
        "--video",
        metavar="NAME",
        default="",
        help="the video to show (default: the worst one; of raw files, the first one)",
    )
    add(
        "--start",
        type=whole(0),
        metavar="SECONDS",
        default=0,
        help="start of the shown part of a video that is too long for a page (default: 0)",
    )
