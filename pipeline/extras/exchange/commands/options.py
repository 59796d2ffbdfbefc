"""Options of the commands that exchange data with other code."""

from __future__ import annotations

import argparse

from pipeline.cli import pages
from pipeline.errors import did_you_mean
from pipeline.extras.exchange.formats import FORMATS
from pipeline.settings.options import cache_option, path, root, split_arguments


def export(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    help_ = "DATASET/SPLIT, or DATASET for all its splits; several for parquet"
    add("splits", nargs="+", metavar="DATASET/SPLIT", help=help_)
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
    help_ = "write a card for everybody, if the terms of all datasets let you pass the rows on"
    add("--public", action="store_true", help=f"{help_}; for parquet")
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


def import_(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "file",
        type=path,
        nargs="+",
        help="database file, joblib (.pt) or HDF5 (.h5); with --format arrays also npy, npz, "
        "safetensors or Parquet; with --format bodies result files; no code in it is run",
    )
    split_arguments(sub)
    cache_option(sub, required=True)
    formats = (
        "vibe: a database file becomes a split; arrays: an array becomes a stream of an "
        "existing split; bodies: results of GVHMR, WHAM, TRAM, PHALP, PromptHMR, VIBE, TCMR "
        "or SAM 3D Body become labels of the people in --clips"
    )
    add(
        "--format",
        choices=("vibe", "arrays", "bodies"),
        default="vibe",
        help=f"{formats} (default: vibe)",
    )
    add(
        "--as",
        dest="stream",
        metavar="NAME",
        help="stream name of its features (default: resnet50)",
    )
    add(
        "--joints-2d",
        type=_joint_order,
        metavar="ORDER",
        help=f"joint order of joints2D, such as coco ({pages.JOINT_ORDERS}; also common13; "
        "default: by their number)",
    )
    add(
        "--crop-scale",
        type=float,
        help="crop side / box side of the features (default: the dataset's)",
    )
    add("--array", metavar="NAME", help="array of the file (default: the only one, or features)")
    add("--clips", type=root, metavar="CACHE", help="cache with the clips' people, for bodies")
    add("--body", type=path, metavar="DIR", help="folder of SMPL's body, for bodies")
    add("--smplx", type=path, metavar="FILE", help="SMPLX_NEUTRAL.npz, for GVHMR and PromptHMR")


def _joint_order(text: str) -> str:
    from pipeline.people.skeletons import JOINTS  # --help does not need it

    orders = sorted({*JOINTS, "common13"} - {"smpl54"})
    if text not in orders:
        hint = did_you_mean(text, orders) or ";"
        raise argparse.ArgumentTypeError(
            f"no joint order {text!r}{hint} known: {', '.join(orders)}"
        )
    return text
