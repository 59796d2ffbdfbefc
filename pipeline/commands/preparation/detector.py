"""The detector of a preparation: which one it is.  [raw] -> tracks

`prepare` finds people in clips without keypoints. `choose_detector` takes the detector of
`--detector`, else of luigi.cfg, else the usual one, and loads or downloads its weights, so that a
missing file is reported before any work. If nothing names a detector, clips with keypoints of any
detector are left alone (`keeps_other_keypoints`). `load_networks` checks the weights of streams.

`args` are the arguments of `prepare`: `dataset`, `raw`, `detector` (a name, NO_DETECTOR, or None),
`every` (None: the default), `weights` of streams, `plan` (only print the plan: downloads nothing),
and `cfg`, the settings of luigi.cfg, `--set` and `--device`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.clips import detectors
from pipeline.clips.detectors import Detector
from pipeline.clips.files import KEYPOINTS
from pipeline.clips.plan import unlabelled_clips, usual_detector
from pipeline.errors import ConfigError, MissingAssets, PipelineError, RawDataError
from pipeline.features import computing
from pipeline.features.spec import StreamSpec
from pipeline.files.pixels.frames import Video
from pipeline.settings.sections import Settings, detector_of

NO_DETECTOR: Final = "none"


def choose_detector(args: argparse.Namespace) -> Detector | None:
    """Choose the detector for clips without keypoints; None if no clip needs one.

    Raises ConfigError for invalid options, MissingAssets for missing weights.
    """
    if args.dataset not in args.cfg.detect.datasets or args.detector == NO_DETECTOR:
        if args.every is not None:
            raise ConfigError(f"--every {args.every}: no detector runs here. Leave the option out.")
        return None
    name = args.detector or usual_detector(args.raw)
    detectors.find(name)  # a misspelt name is refused even if no clip needs a detector
    if not _has_clips_to_detect(args, name):
        return None
    try:
        detector = detector_of(args.cfg.source.override_keys(name, every=args.every), name)
        if not (args.plan and detector.downloads):
            detectors.identity(detector)  # reads or downloads its weights
    except (ConfigError, MissingAssets) as error:
        do = (
            "Or name another --detector, or put keypoints of another tool into "
            f"{args.raw}/{KEYPOINTS}."
        )
        raise type(error)(f"{str(error).rstrip('.')}. {do}") from error
    return detector


def _has_clips_to_detect(args: argparse.Namespace, detector: str) -> bool:
    """Whether a clip without keypoints can be read. The conversion names those that cannot."""
    if args.raw.is_file():
        return False  # the dataset's reader reports the expected files
    clips = unlabelled_clips(args.raw, by_any_detector=keeps_other_keypoints(args, detector))
    return any(_is_whole(args.raw, clip) for clip in clips)


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


def load_networks(settings: Settings, specs: Sequence[StreamSpec], *, downloads: bool) -> list[str]:
    """Load the networks that this process will run. Returns messages about weights that are missing
    or invalid, and about a missing device.

    downloads: Also load networks whose weights may have to be downloaded.
    """
    messages = list[str]()
    if settings.dask.scheduler or settings.features.processes:
        return messages
    for spec in specs:
        stream = spec.stream
        if not (downloads or stream.weights_file or stream.stand_in):
            continue
        try:
            computing.load(stream, settings.features.machine(), None)
        except PipelineError as error:
            messages.append(str(error))
    return messages
