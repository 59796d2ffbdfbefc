"""`python -m pipeline detect`: clips -> people and their keypoints."""

from __future__ import annotations

import argparse
from typing import Final

from pipeline.cli.command_line import Command
from pipeline.cli.console import err, out, print_json
from pipeline.cli.progress import bar
from pipeline.settings import sections
from pipeline.settings.arguments import part_text
from pipeline.steps.detection.plan import plan_detection, usual_detector
from pipeline.steps.detection.run import run_detection


def _run(args: argparse.Namespace) -> int:
    """Write one file of COCO JSON per clip. Returns 1 if a clip has none, or lost frames."""
    name = args.detector or usual_detector(args.raw)
    source = args.cfg.source.override_keys(name, every=args.every, weights=args.weights)
    detector = sections.detector_of(source, name)

    work = plan_detection(args.raw, args.out, detector, part=args.part)
    with bar(f"detect {args.raw.name}{part_text(args.part)}", err, unit="clip") as progress:
        report = run_detection(work, args.cfg, progress, args.part, retries=True)

    if args.json:
        print_json(report.document)
        for flaw in report.flaws:
            err.show_problem(flaw)
        return int(bool(report.flaws))
    code = report.print("detect", args.raw.name)
    if args.part is not None:
        out.print(
            f"share {args.part} of the clips has ended. The same command without --part detects "
            "missing ones"
        )
    return code


def _reads(args: argparse.Namespace) -> list[str]:
    return [args.detector or usual_detector(args.raw)]


COMMAND: Final = Command(
    _run, _reads, "clips with a keypoint file are done; the same command does the others"
)
