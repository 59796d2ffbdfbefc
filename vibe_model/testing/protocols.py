"""Contract of evaluation protocols, checked on random frames (docs/adding-a-protocol.md).  training
-> [evaluation]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.skeletons import JOINTS
from pipeline.testing.common import fail_if_any
from vibe_model.evaluation.protocols import LEFT_OUT, Labels, Protocol
from vibe_model.metrics import METRICS, Metric

Floats = NDArray[np.floating[Any]]

# Keys of a split in metrics.json besides errors and further protocols.
RESERVED: Final = frozenset(
    "protocol label_body baseline smoothed sigma stand_in keypoints dynamics frames frames_2d "
    f"frames_total frames_predicted frames_not_predicted frames_not_counted {LEFT_OUT}".split()
)
_FRAMES: Final = 12
_SHAPES: Final = {"vertices": 50, "vertices at rest": 50, "keypoints": 49}
_NEAR_ZERO: Final = 1e-6  # mm or %
_LEAST_RIGHT: Final = 95.0  # %, of a perfect prediction (AUC's threshold of 0 counts no joint)


class ProtocolContract:
    """Tests of an evaluation protocol (`protocol_problems`): fixture `protocol`."""

    def test_protocol_keeps_its_promises(self, protocol: Protocol) -> None:
        fail_if_any(protocol_problems(protocol))


def protocol_problems(protocol: Protocol) -> list[str]:
    """List the promises that a protocol breaks; empty if none.

    Names must not clash with keys of metrics.json. A metric must return one finite number (or NaN)
    per frame: 0 or about 100 % for a perfect prediction only, independent of neighbouring frames
    and of a shift that the root removes. It must not change its arrays. Row rules must return one
    flag per frame, the same for the same labels.
    """
    problems = []
    if protocol.name in {*RESERVED, *METRICS}:
        problems.append(f"name: {protocol.name!r} is reserved in metrics.json: use another name")
    if not protocol.metrics:
        problems.append("metrics: expected at least one, found none")
    for name, metric in protocol.metrics.items():
        if name in RESERVED:
            problems.append(
                f"metric {name}: the name is reserved in metrics.json: use another name"
            )
        ours = METRICS.get(name, metric)
        if (ours.title, ours.unit, ours.lower_is_better) != (
            metric.title,
            metric.unit,
            metric.lower_is_better,
        ):
            problems.append(
                f"metric {name}: a built-in metric has this name ({ours.title}, {ours.unit}): "
                "use another name"
            )
        try:
            problems += [
                f"metric {name}: {problem}" for problem in _metric_problems(protocol, name, metric)
            ]
        except PipelineError as error:
            problems.append(str(error))
        except Exception as error:  # third-party code can raise anything
            problems.append(f"metric {name}: {type(error).__name__}: {error}")
    return [*problems, *_row_problems(protocol)]


def _metric_problems(protocol: Protocol, name: str, metric: Metric) -> Iterator[str]:
    pred, target = _arrays(protocol, metric)
    before = pred.copy(), target.copy()
    values = protocol.measure(name, pred, target)
    if not all(np.array_equal(*pair) for pair in zip((pred, target), before, strict=True)):
        yield "changes the arrays that it is given"
        pred, target = (array.copy() for array in before)
    if np.isnan(values).all():
        yield "has no number for any of the random frames, all of which have labels"
        return
    again = protocol.measure(name, pred.copy(), target.copy())
    if not np.array_equal(values, again, equal_nan=True):
        yield "returns different numbers when called again"
    part = protocol.measure(name, pred[2:9], target[2:9])
    if not np.allclose(part, values[2:][: len(part)], rtol=1e-9, atol=_NEAR_ZERO, equal_nan=True):
        yield "a frame's number depends on the frames before and after it"
    if metric.lower_is_better is None:
        return
    right = protocol.measure(name, target[..., : pred.shape[-1]].copy(), target)
    perfect = (
        0.0 if metric.lower_is_better else float(np.clip(np.nanmean(right), _LEAST_RIGHT, 100))
    )
    if np.nanmax(np.abs(right - perfect)) > _NEAR_ZERO:
        yield f"expected {perfect:g} for a perfect prediction, found {np.nanmean(right):.4g}"
    if np.nanmin(np.abs(values - perfect)) <= _NEAR_ZERO:
        yield f"is {perfect:g} for a wrong prediction, too"
    elif bool(np.nanmean(values) > perfect) is not metric.lower_is_better:
        yield (
            f"lower_is_better = {metric.lower_is_better}, but a wrong prediction has "
            f"{np.nanmean(values):.4g}"
        )
    # "joints" are already relative to the root
    if protocol.root and metric.reads == "placed joints":
        shifted = protocol.measure(name, target + np.array([0.3, -2.0, 5.0]), target)
        if np.nanmax(np.abs(shifted - perfect)) > _NEAR_ZERO:
            yield (
                "changes when the whole body is shifted, though the root is "
                f"{', '.join(protocol.root)}"
            )


def _arrays(protocol: Protocol, metric: Metric) -> tuple[Floats, Floats]:
    """Random prediction and labels of a person's size as a metric reads them, tens of cm apart."""
    random = np.random.default_rng(0)
    n_points = _SHAPES.get(metric.reads, len(JOINTS[protocol.joints]))
    target = random.normal(size=(_FRAMES, n_points, 3)) * 0.4
    pred = target + random.normal(size=target.shape) * 0.2
    if metric.reads == "keypoints":
        return pred[..., :2], np.concatenate(
            [target[..., :2], np.ones((_FRAMES, n_points, 1))], axis=-1
        )
    if metric.reads == "joints":
        return protocol.rooted(pred), protocol.rooted(target)
    return pred, target


def _row_problems(protocol: Protocol) -> Iterator[str]:
    random = np.random.default_rng(1)
    flags = (random.random(_FRAMES) < 0.7 for _ in range(3))
    kp_2d = np.concatenate(
        [random.uniform(-1, 1, (_FRAMES, 49, 2)), random.random((_FRAMES, 49, 1))], -1
    )
    labels = Labels(
        random.normal(size=(_FRAMES, 14, 3)), kp_2d, random.normal(size=(_FRAMES, 85)), *flags
    )
    before = [array.copy() for array in labels]
    for name, rule in (("rows", protocol.rows), ("rows_2d", protocol.rows_2d)):
        try:
            found, again = (np.asarray(rule(labels)) for _ in range(2))
        except Exception as error:  # third-party code can raise anything
            yield f"{name}: {type(error).__name__}: {error}"
            continue
        if found.shape != (_FRAMES,) or found.dtype != np.bool_:
            yield f"{name}: expected ({_FRAMES},) bool, found {found.shape} {found.dtype}"
        if not np.array_equal(found, again):
            yield f"{name}: returns different rows when called again"
        if not all(np.array_equal(*pair) for pair in zip(labels, before, strict=True)):
            yield f"{name}: changes the labels"
            break
