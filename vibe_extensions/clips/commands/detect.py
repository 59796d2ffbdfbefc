"""`python -m pipeline detect`: clips -> people and their keypoints, where a video comes without."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from pipeline import detect
from pipeline.cli.console import DOUBT, STAND_IN, err, out, plain, show_json
from pipeline.cli.options import json_option, named_values
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, count
from pipeline.detect.base import DetectionResources, Detector
from pipeline.detect.clips import pictures_in
from pipeline.detect.plan import plan_detection, usual_detector
from pipeline.settings import sections
from pipeline.settings.commands import from_settings, setting_options
from pipeline.settings.file import BY_SET, Section, SettingsFile
from vibe_extensions.clips.detection.run import detect_planned

TAKES: Final = [field.name for field in fields(DetectionResources)]  # settings that are options, too
KEPT: Final = "finished clips are kept; the same command continues with the others"


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("raw", type=Path, metavar="RAW", help="the folder that the clips are in, at any depth; or one clip")
    add("--out", type=Path, required=True, metavar="KEYPOINTS", help="the folder for one JSON file a clip")
    detectors = ", ".join(detect.names())
    add("--detector", help=f"{detectors} (default: that of [detect], else rtmpose, and demo for demo data)")
    add("--weights", metavar="FILE|pretrained", help="the network's; pretrained: published ones, downloaded once")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the detector, as min_score=0.5")
    setting_options(sub, "detect", *TAKES)
    setting_options(sub, "dask", "scheduler")
    from_settings(sub, detector="detect.detector")
    json_option(sub)


def reads(args: argparse.Namespace) -> list[str]:
    """The detector's section."""
    return [args.detector or usual_detector(args.raw)]


def kept(_: argparse.Namespace) -> str:
    """What of an interrupted run is kept."""
    return KEPT


def run(args: argparse.Namespace) -> int:
    """Clips -> one file of COCO's JSON each. 1 where a clip has none."""
    detector = detector_of(args.detector or usual_detector(args.raw), args.weights, args.set, args.cfg.source)
    machine = DetectionResources(**{key: getattr(args, key) for key in TAKES})
    plan = plan_detection(args.raw, args.out, detector)
    with bar(f"detect {args.raw.name}", err, unit="frame") as progress:
        report = detect_planned(plan, machine, scheduler=args.scheduler, progress=progress)
    if args.json:
        show_json(report.as_dict() | {"stand_in": detector.stand_in})
        return 1 if report.problems else 0
    if report.done:
        out.print(plain(str(report)))
    for clip, before in report.renamed.items():
        out.print(plain(f"renamed {before} -> {clip}: its keypoints, too"))
    if report.up_to_date:
        out.print(f"{count(report.up_to_date, 'clip')} up to date")
    if pictures := pictures_in(args.raw):
        first = ", ".join(pictures[:FEW]) + (", ..." if len(pictures) > FEW else "")
        out.print(f"  {DOUBT} {count(len(pictures), 'picture')}, no clips, passed over: {plain(first)}")
    if detector.stand_in and (report.done or report.up_to_date):
        out.print(f"  {STAND_IN} the stand-in detector: keypoints for trying the pipeline only")
    for message in (*report.doubts, *report.problems.values()):
        out.print(f"  {DOUBT} {plain(message)}")
    return 1 if report.problems else 0


def detector_of(name: str, weights: str | None, pairs: Sequence[str], source: SettingsFile) -> Detector:
    """The detector with `NAME=VALUE` options over those of luigi.cfg. Raises ConfigError for one that it lacks."""
    given = {} if weights is None else {"weights": weights}
    options = {**named_values("--set", pairs, "min_score=0.5"), **given}
    return sections.detector_of(source, name, Section(BY_SET, name, options))
