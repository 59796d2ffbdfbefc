import numpy as np
import pytest

from pipeline.track import Track


@pytest.mark.parametrize(  # of two equally common ones the smaller
    ("frame_index", "step"),
    [
        ([0, 1, 2, 3, 5, 6], 1),
        ([0, 2, 4, 6], 2),
        ([0, 4, 8, 9, 13], 4),
        ([0, 3, 5, 8, 10], 2),
        ([7], 1),
    ],
)
def test_the_step_is_the_most_common_difference(frame_index: list[int], step: int) -> None:
    track = Track(
        dataset="d",
        split="train",
        name="v/0",
        video="v",
        fps=25.0,
        frame_index=np.array(frame_index),
    )
    assert track.step == step
