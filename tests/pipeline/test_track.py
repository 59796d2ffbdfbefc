import numpy as np
import pytest

from pipeline.track import Track


def track(frame_index: list[int], **columns: np.ndarray) -> Track:
    return Track(
        dataset="d", split="train", name="v/0", video="v", fps=25.0, frame_index=np.array(frame_index), **columns
    )


@pytest.mark.parametrize(  # of two equally common ones the smaller
    ("frame_index", "step"),
    [([0, 1, 2, 3, 5, 6], 1), ([0, 2, 4, 6], 2), ([0, 4, 8, 9, 13], 4), ([0, 3, 5, 8, 10], 2), ([7], 1)],
)
def test_the_step_is_the_most_common_difference(frame_index: list[int], step: int) -> None:
    assert track(frame_index).step == step


def test_frame_indices_that_do_not_increase_and_arrays_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="strictly increasing"):
        track([0, 2, 2])
    with pytest.raises(ValueError, match=r"bbox is \(2, 4\), expected \(3, 4\)"):
        track([0, 1, 2], bbox=np.zeros((2, 4), np.float32))
