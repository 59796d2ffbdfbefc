"""A training run's folder, written by hand: what its curves, results and pictures are, is known."""

import json

from vibe_model.runs import CURVES
from vibe_model.vibe.config import TrainConfig

SPLIT = "3dpw/test"
ITERATIONS = 10
ERRORS = {"pa_mpjpe": 51.25, "mpjpe": 82.5, "accel": 20.0, "accel_error": 21.0, "pck": 80.0}


def log(folder, scalars):
    """Add to the run's curves, as training does."""
    file = folder / CURVES
    with file.open("a") as lines:
        for step, numbers in scalars.items():
            lines.write(json.dumps([step, step - 1.0, numbers]) + "\n")
    return file


def metrics(*, stand_in=False, **changes):
    """metrics.json, with the mean body's errors twice the model's."""
    own = {**ERRORS, **changes}
    found = {**own, "frames": 1234, "baseline": {name: 2 * value for name, value in own.items()}}
    best = {"epoch": 1, "pa_mpjpe": 60.0}
    return {
        SPLIT: {**found, "published": found},
        "stand_in": stand_in,
        "best": best,
        "skipped_steps": 0,
    }


def validation(score):
    return {"validation/3dpw/validation/pa_mpjpe": score, "learning_rate/gen_optimizer": 1e-4}


def make_run(
    parent,
    name="vibe-0123",
    *,
    stand_in=False,
    track="<b>bad</b>/0",
    **about,
):
    """Three epochs, of which the second is the best."""
    folder = parent / name
    folder.mkdir()
    row = {
        "split": SPLIT,
        "track": track,
        "first_frame": 3,
        "last_frame": 18,
        "frames": 16,
        **ERRORS,
    }
    for file, content in {
        "config": {
            "config": TrainConfig(iterations=ITERATIONS).as_dict(),
            "stand_in": stand_in,
            "fingerprint": "0123",
            "software": {"torch": "2.0"},
            **about,
        },
        "metrics": metrics(stand_in=stand_in),
        "sequences": {"sequences": [row, {**row, "track": "worse/0", "pa_mpjpe": 99.9}]},
    }.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    (folder / "best.pt").write_bytes(b"")
    scalars = {step: {"train/total": float(step)} for step in range(1, 31)}
    for step, score in ((10, 70.0), (20, 60.0), (30, 65.0)):
        scalars[step] |= validation(score)
    log(folder, scalars)
    return folder
