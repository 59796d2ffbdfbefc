"""The detector of a preparation: which one it is, and whose keypoints it replaces.  [raw] -> tracks

`prepare` finds people in clips without keypoints. `choose_detector` takes the detector of
`--detector`, else of luigi.cfg, else the usual one, and loads or downloads its weights, so that a
missing file is reported before any work. If nothing names a detector, clips with keypoints of any
detector are left alone (`keeps_other_keypoints`). `load_networks` checks the weights of streams.
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.cli.console import DOUBT, plain
from pipeline.clips import detectors
from pipeline.clips.detectors import Detector
from pipeline.clips.files import KEYPOINTS, list_clips
from pipeline.clips.plan import detected_otherwise, unlabelled_clips, usual_detector
from pipeline.errors import ConfigError, MissingAssets, RawDataError
from pipeline.features import computing
from pipeline.features.spec import StreamSpec
from pipeline.files.pixels.frames import Video
from pipeline.recipe.overview import SplitPlan
from pipeline.settings.sections import Settings, detector_of

NO_DETECTOR: Final = "none"
NO_DOWNLOAD: Final = (
    "Or leave --weights out (tracks without features), or use untrained:0 (random weights, "
    "a trial run)."
)


def choose_detector(
    args: argparse.Namespace, settings: Settings, specs: Sequence[StreamSpec]
) -> Detector | None:
    """Choose the detector for clips without keypoints; None if no clip needs one.

    specs: streams, whose missing weights are named beside those of the detector. Raises ConfigError
    for invalid options, MissingAssets for missing weights.
    """
    if args.dataset not in args.cfg.detect.datasets or args.detector == NO_DETECTOR:
        if args.every is not None:
            raise ConfigError(f"--every {args.every}: no detector runs here. Leave the option out.")
        return None
    name = args.detector or usual_detector(args.raw)
    detectors.find(name)  # a misspelt name is refused even if no clip needs a detector
    if args.raw.is_file():
        return None  # the dataset's reader reports the expected files
    clips = unlabelled_clips(args.raw, by_any_detector=keeps_other_keypoints(args, name))
    if not any(_is_whole(args.raw, clip) for clip in clips):
        return None  # the conversion names the clips that cannot be read
    try:
        detector = detector_of(args.cfg.source, name, every=args.every)
        if not detector.downloads or not args.plan:
            detectors.identity(detector)  # downloads its weights
    except (ConfigError, MissingAssets) as error:
        do = (
            "Or name another --detector, or put keypoints of another tool into "
            f"{args.raw}/{KEYPOINTS}."
        )
        others = list[str]()
        if isinstance(error, MissingAssets) and not args.plan:
            others = load_networks(args, settings, specs)
        message = _with_options_of_prepare(str(error), name)
        raise type(error)(" ".join([f"{message}. {do}", *others])) from error
    return detector


def _with_options_of_prepare(message: str, detector: str) -> str:
    """Replace options of `detect` in an error message by those of `prepare`: `--set min_score=` by
    `--set rtmpose.min_score=`, `--weights FILE` by `--detector rtmpose --set rtmpose.weights=FILE`.
    """
    message = re.sub(rf"--set (?!\[|{re.escape(detector)}\.)", f"--set {detector}.", message)
    message = message.rstrip(".")
    return message.replace("--weights ", f"--detector {detector} --set {detector}.weights=")


def _is_whole(raw: Path, clip: str) -> bool:
    """Whether a clip is a video that is not cut off (`Video.require_whole`)."""
    try:
        Video(raw, clip).require_whole()
    except RawDataError:
        return False
    return True


def keeps_other_keypoints(args: argparse.Namespace, detector: str) -> bool:
    """Whether keypoints of other detectors are kept: no option or section names this one."""
    return not (args.detector or args.every is not None or args.cfg.source.section(detector))


def load_networks(
    args: argparse.Namespace, settings: Settings, specs: Sequence[StreamSpec]
) -> list[str]:
    """Load the networks that this process will run. Returns messages about missing weights."""
    messages = list[str]()
    if settings.dask.scheduler or settings.features.processes:
        return messages
    for spec in specs:
        try:
            computing.load(spec.stream, settings.features.machine(), None)
        except MissingAssets as error:
            message = str(error)
            if args.weights:
                message += f" {NO_DOWNLOAD}"
            messages.append(message)
    return messages


def describe_other_keypoints(raw: Path, plans: Sequence[SplitPlan]) -> list[str]:
    """Lines about clips whose keypoints are by another detector, or with another --every: they are
    replaced, or kept if no detector is named.
    """
    detector = plans[0].recipe.detector
    if detector is None:
        return []
    options = None  # until the detector's weights are downloaded
    to_detect = set[str]()
    detections = [plan.detection for plan in plans if plan.detection is not None]
    if detections:
        options = detections[0].about["options"]
        to_detect.update(files.clip for files in detections[0].missing)
    else:
        for plan in plans:
            to_detect.update(plan.undetected)
    not_to_detect = {*list_clips(raw)} - to_detect
    describe = functools.partial(
        detected_otherwise, raw / KEYPOINTS, detector=detector, options=options
    )
    texts = [f"  {DOUBT} replaces keypoints of {plain(clips)}" for clips in describe(to_detect)]
    new = f"other clips get {detector.name}, --every {detector.every}"
    texts += [
        f"  {DOUBT} keeps, as no --detector is named, keypoints of {plain(clips)}; {new}"
        for clips in describe(not_to_detect)
    ]
    return texts
