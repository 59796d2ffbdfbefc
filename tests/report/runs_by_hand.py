"""A training run's folder, written by hand: what its curves, results and pictures are, is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from report.training import events
from vibe_model.settings.config import TrainConfig

SPLIT = "3dpw/test"
ITERATIONS = 10
ERRORS = {"pa_mpjpe": 51.25, "mpjpe": 82.5, "accel": 20.0, "accel_error": 21.0, "pck": 80.0}
WINDOW = "3dpw/validation/walking/0 frames 0-15"


def png(colour: tuple[int, int, int], width: int = 96, height: int = 32) -> bytes:
    """One colour, RGB."""
    done, data = cv2.imencode(".png", np.full((height, width, 3), colour[::-1], np.uint8))
    assert done
    return data.tobytes()


def log(
    folder: Path,
    scalars: Mapping[int, Mapping[str, float]],
    pictures: Mapping[int, bytes] | None = None,
    start: int = 0,
) -> Path:
    """An event file of the run, as SummaryWriter leaves it; start: the step that a resumed run goes on from."""
    before = set(folder.glob(events.PATTERN))
    writer = EventFileWriter(str(folder))
    if start:
        writer.add_event(event_pb2.Event(step=start, wall_time=1000, session_log=event_pb2.SessionLog(status=1)))
    for step, values in scalars.items():
        for tag, value in values.items():
            summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(event_pb2.Event(step=step, wall_time=1000 + step, summary=summary))
        if pictures and step in pictures:
            image = summary_pb2.Summary.Image(encoded_image_string=pictures[step], width=96, height=32, colorspace=3)
            summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=WINDOW, image=image)])
            writer.add_event(event_pb2.Event(step=step, wall_time=1000 + step, summary=summary))
    writer.close()
    (written,) = set(folder.glob(events.PATTERN)) - before
    return written


def metrics(*, stand_in: bool, **changes: float) -> dict[str, Any]:
    """metrics.json, with the mean body's errors twice the model's."""
    own = {**ERRORS, **changes}
    found = {**own, "frames": 1234, "baseline": {name: 2 * value for name, value in own.items()}}
    best = {"epoch": 1, "pa_mpjpe": 60.0}
    return {SPLIT: {**found, "published": found}, "stand_in": stand_in, "best": best, "skipped_steps": 0}


def validation(score: float) -> dict[str, float]:
    return {"validation/3dpw/validation/pa_mpjpe": score, "learning_rate/gen_optimizer": 1e-4}


def make_run(parent: Path, name: str = "vibe-0123", *, stand_in: bool = False, track: str = "<b>bad</b>/0") -> Path:
    """Three epochs of which the second is the best, with a green picture; the third one's is blue."""
    folder = parent / name
    folder.mkdir()
    settings = TrainConfig.published(iterations=ITERATIONS).as_dict()
    about = {"config": settings, "stand_in": stand_in, "fingerprint": "0123", "software": {"torch": "2.0"}}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "metrics.json").write_text(json.dumps(metrics(stand_in=stand_in)))
    (folder / "best.pt").write_bytes(b"")
    row = {"split": SPLIT, "track": track, "first_frame": 3, "last_frame": 18, "frames": 16, **ERRORS}
    (folder / "sequences.json").write_text(
        json.dumps({"sequences": [row, {**row, "track": "worse/0", "pa_mpjpe": 99.9}]})
    )
    (folder / "worst_windows.json").write_text(json.dumps({"worst_windows": [row]}))
    scalars: dict[int, dict[str, float]] = {step: {"train/total": float(step)} for step in range(1, 31)}
    for step, score in ((10, 70.0), (20, 60.0), (30, 65.0)):
        scalars[step] |= validation(score)
    log(folder, scalars, {10: png((255, 0, 0)), 20: png((0, 255, 0)), 30: png((0, 0, 255))})
    return folder
