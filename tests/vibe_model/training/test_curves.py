import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vibe_model.runs import CURVES
from vibe_model.training import curves
from vibe_model.training.curves import SPEED_EVERY, Curves
from vibe_model.training.trainer import StepResult

GOOD = StepResult({"kp_2d": 2.0, "pose": 0.5}, {"generator": 3.0, "discriminator": 4.0}, good=True)
BAD = StepResult({"kp_2d": float("nan")}, {"generator": float("nan")}, good=False)


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


def logged(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_speed_and_the_share_of_waiting_are_those_of_the_clock_between_steps(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(curves, "time", clock)

    def batches():
        while True:
            clock.now += 0.05
            yield "batch"

    ready = batches()
    with Curves(tmp_path, first_step=1, windows=32) as found:
        clock.now += 100  # validation is no training
        found.start_clock()
        for number in range(1, SPEED_EVERY + 1):
            assert found.next_batch(ready) == "batch"
            clock.now += 0.20
            found.step(number, GOOD, 0)
    points = logged(tmp_path)
    assert points["speed/windows_per_second"] == [(SPEED_EVERY, pytest.approx(32 / 0.25))]
    assert points["speed/waiting_for_data"] == [(SPEED_EVERY, pytest.approx(0.05 / 0.25))]


def test_a_good_step_has_its_losses_and_gradient_norms_and_a_skipped_one_draws_no_nan(tmp_path):
    with Curves(tmp_path, first_step=1, windows=8) as found:
        found.step(1, GOOD, 0)
        found.step(2, BAD, 7)
    assert logged(tmp_path) == {
        "train/kp_2d": [(1, 2.0)],
        "train/pose": [(1, 0.5)],
        "train/total": [(1, 2.5)],
        "gradient/generator": [(1, 3.0)],
        "gradient/discriminator": [(1, 4.0)],
        "train/skipped_steps": [(2, 7.0)],
    }


def test_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path):
    with Curves(tmp_path, first_step=1, windows=8) as found:
        for number in range(1, 6):
            found.step(number, GOOD, 0)
    file = tmp_path / CURVES
    whole = file.read_bytes()
    with file.open("ab") as lines:
        lines.write(b'[6, 1.0, {"train')  # it was killed here
    with Curves(tmp_path, first_step=4, windows=8) as found:
        found.step(4, StepResult({"kp_2d": 7.0}, {}, good=True), 0)
    lines = file.read_bytes().splitlines(keepends=True)
    assert b"".join(lines[:3]) == b"".join(whole.splitlines(keepends=True)[:3])
    steps = [json.loads(line) for line in lines]
    assert [step for step, *_ in steps] == [1, 2, 3, 4]
    assert steps[3][2] == {"train/kp_2d": 7.0, "train/total": 7.0}
    assert [spent for _, spent, _ in steps] == sorted(spent for _, spent, _ in steps)
