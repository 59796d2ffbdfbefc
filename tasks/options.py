"""Options of the commands of `python -m tasks`. --help needs only this module, and that of `train`
the settings of the models, which it names.
"""

from __future__ import annotations

import argparse
from typing import Final

from pipeline.cli.command_line import every_option, json_option, whole
from pipeline.plug_ins import DETECTORS, list_names
from pipeline.settings.options import path, root

TOO_LARGE: Final = 1e6  # frames; a Gaussian's sigma must be smaller


def train(sub: argparse.ArgumentParser) -> None:
    """Add the options of `train`, with the names of models and of their variants."""
    from vibe_model import models

    names = ", ".join(models.names())
    first = models.names()[0]
    sub.add_argument(
        "--model", type=_model, default=first, metavar="NAME", help=f"{names} (default: {first})"
    )
    variants = "; ".join(
        f"{model.section}: {', '.join(model.variants)}" for model in models.every()
    )
    help_ = f"Variant of the model, or several joined by + (default: luigi.cfg's). {variants}"
    sub.add_argument("--variant", metavar="NAME", help=help_)
    sub.add_argument("--seed", type=whole(0), help="Seed, at least 0 (default: luigi.cfg's)")


def predict(sub: argparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    sub.add_argument(
        "named", metavar="CLIPS", help="A clip, a folder of clips, or DATASET/SPLIT of the cache"
    )
    sub.add_argument(
        "--cache", type=root, required=True, metavar="DIR", help="Cache of tracks and features"
    )
    help_ = f"Detector for clips without keypoints: {', '.join(list_names(DETECTORS))}, or none"
    sub.add_argument("--detector", help=f"{help_} (default: [detect] detector)")
    every_option(sub)
    sub.add_argument(
        "--tracks",
        default="*",
        metavar="PATTERN",
        help="Names of tracks to predict, such as 'dance*' (default: all)",
    )
    model = _model_options(sub)
    model.add_argument(
        "--weights",
        help="Weights of the feature network, such as spin:FILE (default: from luigi.cfg)",
    )
    model.add_argument(
        "--pose-embedding",
        type=path,
        metavar="FILE",
        help="best.pt of TrainPrVIPE, if it has moved",
    )
    model.add_argument("--stream", help="Feature stream of a split (default: the model's)")
    model.add_argument(
        "--smooth",
        type=_positive,
        default=0.0,
        metavar="SIGMA",
        help="Smooth bodies over time by a Gaussian of SIGMA frames, over 0 (default: none)",
    )
    outputs = sub.add_argument_group("output")
    outputs.add_argument(
        "--out", type=path, metavar="DIR", help="Output folder (default: NAME-bodies)"
    )
    outputs.add_argument(
        "--overlay",
        action=argparse.BooleanOptionalAction,
        help="Write players of the bodies over the frames (default: for clips only)",
    )
    outputs.add_argument(
        "--export", action="store_true", help="Also write motion files for SMPL's Blender add-ons"
    )
    json_option(sub, ": predictions.json, and the folder")


def evaluate(sub: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    _model_options(sub)
    add = sub.add_argument_group("data").add_argument
    add("--cache", type=root, help="Folder or URL of the cache (default: [paths] cache)")
    add(
        "--split",
        action="append",
        default=[],
        metavar="NAME",
        help="Split, such as 3dpw/test (repeatable; default: the evaluation splits of the model's "
        "settings)",
    )
    add(
        "--stream",
        help="Feature stream (default: the model's, otherwise the first of [features] streams)",
    )
    add(
        "--protocol",
        action="append",
        metavar="NAME",
        help="Protocol, such as default, published or hmmr (repeatable; default: all for the "
        "split)",
    )
    add(
        "--seqlen",
        type=whole(0),
        metavar="N",
        help="Frames per window; 0: whole tracks (default: the model's)",
    )
    sub.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="Folder for metrics.json, results.csv and results by track (default: none is written)",
    )
    json_option(sub, ": the content of metrics.json")


def report(sub: argparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    sub.add_argument(
        "--out",
        type=path,
        metavar="FILE",
        help="output page (default: report.html in [paths] runs)",
    )
    sub.add_argument(
        "--run",
        type=path,
        action="append",
        default=[],
        dest="folders",
        metavar="FOLDER",
        help="folder of a training run, finished or not (repeatable; default: the runs that "
        "luigi.cfg names)",
    )
    help_ = (
        "Another cache: report on its data, and on the runs that --run names (default: "
        "[paths] cache)"
    )
    sub.add_argument("--cache", type=root, metavar="DIR", help=help_)


def _model(name: str) -> str:
    from vibe_model import models

    if name not in models.names():
        raise argparse.ArgumentTypeError(str(models.unknown(name)))
    return name


def _positive(text: str) -> float:
    """Type of an option that takes a number above 0 and below TOO_LARGE."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < TOO_LARGE:
        limits = f"above 0 and below {TOO_LARGE:,.0f}"
        raise argparse.ArgumentTypeError(f"expected a number {limits}, found {text!r}")
    return value


def _model_options(sub: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of all commands that use a model."""
    model = sub.add_argument_group("model")
    model.add_argument(
        "--checkpoint",
        type=path,
        required=True,
        metavar="FILE",
        help="best.pt of a run, or a published file of VIBE, SPIN or HMR2.0",
    )
    model.add_argument(
        "--body", type=path, metavar="DIR", help="Folder of SMPL's files (default: [paths] body)"
    )
    model.add_argument(
        "--device",
        default="auto",
        help="Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ... (default: auto)",
    )
    return model
