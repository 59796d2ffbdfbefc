"""`python -m pipeline detect`: clips -> people and their keypoints, where a video comes without."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from pipeline import detect
from pipeline.cli.console import DOUBT, STAND_IN, err, out, plain, show_json
from pipeline.cli.options import json_option, named_values, scheduler_option, whole, workers_option
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, count
from pipeline.detect.base import Detector
from pipeline.detect.clips import pictures_in
from pipeline.processes.devices import device_names
from pipeline.raw.stand_in import is_stand_in
from pipeline.settings.file import Section, Text
from pipeline.settings.sections import configured

HELP: Final = "Find people and their keypoints in every frame of a folder of clips."
KEPT: Final = "finished clips and every 250 frames of a longer one are kept; the same command continues from there"


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("raw", type=Path, metavar="RAW", help="the folder that the clips are in, at any depth; or one clip")
    add("--out", type=Path, required=True, metavar="KEYPOINTS", help="the folder for one JSON file a clip")
    known = ", ".join(detect.names())
    add("--detector", help=f"{known} (default keypoint_rcnn; for demo data demo)")
    add("--weights", metavar="FILE|pretrained", help="the network's; pretrained: torchvision's, downloaded once")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another option of the detector, as min_score=0.5",
    )
    add("--device", default="auto", help="auto (cuda when there is one), cpu, cuda, cuda:1, ...")
    add("--devices", default="", metavar="0,1,...", help="several GPUs of this machine, a process for each")
    add("--batch-size", type=whole(0), default=0, help="pictures at once; 0: the detector's own (default)")
    workers_option(sub, "processes that decode clips")
    add("--timeout", type=whole(1), default=600, help="seconds without progress after which decoding is given up")
    scheduler_option(sub)
    json_option(sub)


def kept(_: argparse.Namespace) -> str:
    """What of an interrupted run is kept."""
    return KEPT


def run(args: argparse.Namespace) -> int:
    """Clips -> one file of COCO's JSON each. 1 where a clip has none."""
    from pipeline.detect.plan import plan_detection
    from pipeline.detect.run import Machine, detect_planned

    demo = is_stand_in(args.raw.parent if args.raw.is_file() else args.raw)
    detector = detector_of(args.detector or ("demo" if demo else "keypoint_rcnn"), args.weights, args.set)
    devices = device_names(args.devices, args.device)
    machine = Machine(args.device, args.batch_size, args.workers, timeout=args.timeout, devices=devices)
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


def detector_of(name: str, weights: str | None, pairs: list[str]) -> Detector:
    """The detector with `NAME=VALUE` options, each of its field's type. Raises ConfigError for one that it lacks."""
    given = {} if weights is None else {"weights": weights}
    given |= named_values("--set", pairs, "min_score=0.5")
    section = Section(Path("--detector"), name, {key: Text.at(value, 0, Path("--set")) for key, value in given.items()})
    return configured(section, detect.find(name), detect.get)
