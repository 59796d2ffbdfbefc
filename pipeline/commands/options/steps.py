"""Options of the commands that make a cache, by luigi.cfg or by options."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Final

from pipeline.cli.command_line import every_option, json_option
from pipeline.features.weights import KINDS
from pipeline.plug_ins import DATASETS, DETECTORS, STREAMS, list_names
from pipeline.processes.settings import DetectionResources, DeviceName, Resources
from pipeline.settings.options import (
    CACHE,
    DROP,
    cache_option,
    checked_text,
    from_settings,
    part_option,
    path,
    root,
    setting_options,
    split_arguments,
)

NO_DETECTOR: Final = "none"


def config(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("names", nargs="*", metavar="SECTION[.KEY]", help="Sections or keys to print")
    add("--all", action="store_true", help="Also print settings that have their default")
    json_option(sub)
    add(
        "--check",
        action="store_true",
        help="Only check the file. Exits with 1 if training would be refused",
    )
    sub.set_defaults(complete=lambda _: None)  # `run` reads and checks every `--set`


def convert(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub)
    cache_option(sub, required=True)
    help_ = "The dataset's raw folder (default: all as recorded, but [convert] corrections)"
    sub.add_argument("--raw", type=path, help=help_)
    help_ = "Folder of SMPL's files, for datasets that need them (default: [paths] body)"
    sub.add_argument("--body", type=path, help=help_)
    setting_options(sub, "convert", "workers")
    setting_options(sub, "dask", "scheduler", set_only="patience")
    help_ = "Delete rows of missing and unusable videos (default: [convert] removed)"
    sub.add_argument(DROP, action="store_true", help=help_)
    mode = sub.add_mutually_exclusive_group()
    setting_options(sub, "convert", "strict", group=mode)
    mode.add_argument(
        "--retry", action="store_true", help="Retry failed videos even if they have not changed"
    )
    part_option(mode, "new and changed videos")


def detect(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("raw", type=path, metavar="RAW", help="a folder of clips, with subfolders, or one clip")
    add(
        "--out",
        type=path,
        required=True,
        metavar="KEYPOINTS",
        help="output folder: a JSON file per clip",
    )
    known = ", ".join(list_names(DETECTORS))
    add(
        "--detector",
        help=f"{known} (default: from [detect], otherwise rtmpose, or demo for demo data)",
    )
    add(
        "--weights",
        metavar="FILE|pretrained",
        help="the network's weights (pretrained: downloaded once; default: from its section)",
    )
    every_option(sub)
    part_option(sub, "clips")
    setting_options(sub, "detect", *(field.name for field in fields(DetectionResources)))
    setting_options(sub, "dask", "scheduler", set_only="patience")
    from_settings(sub, detector="detect.detector")
    json_option(sub)


def doctor(sub: argparse.ArgumentParser) -> None:
    help_ = "Datasets to check (default: [data] datasets; with --raw: all)"
    sub.add_argument("datasets", nargs="*", metavar="DATASET", help=help_)
    sub.add_argument(
        "--raw", type=path, help="Folder that contains <dataset>/ (default: [paths] raw)"
    )
    help_ = "Folder of SMPL's files (default: [paths] body; with --raw: none)"
    sub.add_argument("--body", type=path, help=help_)
    json_option(sub)


def extract(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub)
    cache_option(sub)
    weights = "; ".join(kind.form for kind in KINDS.values())
    add = sub.add_argument
    add("--stream", help="Name of the stream in the cache")
    from_settings(sub, stream="features.streams")
    kinds = ", ".join(list_names(STREAMS))
    add(
        "--kind",
        help=f"Kind of the stream: {kinds} (default: from its section, otherwise its name)",
    )
    add("--weights", help=f"Weights of the network: {weights} (default: from its section)")
    help_ = "Arithmetic: exact is plain fp32 (default: from its section)"
    add("--precision", choices=["exact", "fast"], help=help_)
    setting_options(sub, "features", *(field.name for field in fields(Resources)))
    setting_options(sub, "dask", "scheduler", set_only="patience")
    add("--raw", type=path, help="The dataset's raw folder, if it has moved")
    mode = sub.add_mutually_exclusive_group()
    mode.add_argument(
        "--replace",
        action="store_true",
        help="Delete an existing stream, then compute all its rows again",
    )
    part_option(mode, "missing shards")


def init(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "folder",
        type=path,
        nargs="?",
        default=Path(),
        help="Working folder (default: the current one)",
    )
    add("--real", action="store_true", help="Write settings for real data, not for the demo data")
    add(
        "--raw",
        type=path,
        metavar="DIR",
        help="Folder of the downloads, with --real (default: data/raw)",
    )
    add(
        "--body",
        type=path,
        metavar="DIR",
        help="Folder of SMPL's files, with --real (default: data/body)",
    )
    help_ = "Weights of the network, with --real (default: spin:data/model_checkpoint.pt)"
    add("--weights", metavar="SPEC", help=help_)


def plan(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "names",
        nargs="*",
        metavar="DATASET[/SPLIT]",
        help="Datasets or splits (default: [data] datasets)",
    )
    add("--all", action="store_true", help="Name every video instead of the first few")
    add("--cache", type=root, help=f"{CACHE} (default: [paths] cache)")
    json_option(sub, ", with all videos")


def prepare(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "dataset",
        metavar="DATASET",
        help=f"{', '.join(list_names(DATASETS))} (videos: your own clips)",
    )
    add(
        "--raw",
        type=path,
        required=True,
        help="The dataset's raw folder; for videos, the folder of the clips",
    )
    cache_option(sub, required=True)
    add("--plan", action="store_true", help="Print what would be done, and stop")
    add("--all", action="store_true", help="Name every video in the plan instead of the first few")
    add(
        "--weights", help="Weights of the network, as for extract (default: from luigi.cfg, if any)"
    )
    add("--stream", help="Name of the stream, as for extract")
    add(
        "--body",
        type=path,
        help="Folder of SMPL's files, for datasets that need them (default: [paths] body)",
    )
    detector_names = ", ".join([*list_names(DETECTORS), NO_DETECTOR])
    add("--detector", help=f"Detector for clips without keypoints: {detector_names}")
    every_option(sub)
    help_ = "Device: auto, cpu, cuda, cuda:1, ... (default: [detect] device, [features] device)"
    add("--device", type=checked_text(DeviceName), help=help_)
    from_settings(sub, detector="detect.detector", stream="features.streams")
