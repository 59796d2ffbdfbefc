"""Options of the commands that exchange data with other code."""

from __future__ import annotations

import argparse

from pipeline.extras.exchange.formats import FORMATS
from pipeline.settings.options import cache_option, path, split_arguments


def export(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    split_arguments(sub)
    cache_option(sub)
    about = "; ".join(f"{form.name}: {form.about}" for form in FORMATS.every())
    add("--format", required=True, choices=FORMATS.names(), help=about)
    add(
        "--out",
        type=path,
        required=True,
        help="output file, or a folder for a file with its usual name",
    )
    add(
        "--stream",
        help="stream, for formats with features (default: resnet50; parquet: none)",
    )
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the format (repeatable)",
    )
    add(
        "--raw",
        type=path,
        help="the dataset's raw folder, if it has moved; for formats with images",
    )
    add(
        "--body",
        type=path,
        help="folder of SMPL's files, for formats with bodies (default: [paths] body)",
    )


def fits(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "files",
        type=path,
        nargs="+",
        metavar="FILE",
        help="4D-Humans' 000000.tar, ..., or CameraHMR's .npz files",
    )
    sub.add_argument(
        "--raw", type=path, required=True, help="the dataset's raw folder, for fits.sqlite"
    )
    text = "regular expression whose first group extracts the image's name from its key"
    sub.add_argument("--key", default="", metavar="REGEX", help=f"{text} (default: the whole key)")
