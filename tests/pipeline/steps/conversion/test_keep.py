"""What a committed video would lose that is read again (`pipeline.steps.conversion.keep`)."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.accounting import BY_USER, LEFT_OUT, NOT_NOW, PASSING, VideoAccount
from pipeline.steps.conversion.keep import Loss

REASONS = ["bad_label_file", "low_grade", "unexpected_error", NOT_NOW, "no_such_track"]


def account_of(n_rows=0, *, left_out=0, set_aside="", other_split=False):
    """Of a video with 40 labelled person-frames, of which the user leaves some out."""
    account = VideoAccount("clip", found=40, other_split=other_split)
    if set_aside:
        account.reject(set_aside, "it is cut off")
    elif n_rows + left_out:
        account.keep_track(n_rows + left_out)
        account.take_back_rows(LEFT_OUT, left_out)
        account.drop("no_box", 40 - n_rows - left_out)
    return account


N_ROWS = st.integers(0, 20)
ACCOUNTS = st.one_of(
    st.builds(account_of, N_ROWS, left_out=N_ROWS),
    st.builds(account_of, set_aside=st.sampled_from(REASONS)),
    st.builds(account_of, other_split=st.just(True)),
)


def rows_of(account):
    """Rows that the reader gave, also those that the user leaves out."""
    return account.kept + sum(account.dropped[reason] for reason in BY_USER)


@pytest.mark.promise("rows kept")
@given(ACCOUNTS, ACCOUNTS, st.data())
def test_a_video_loses_rows_that_are_no_more_or_have_no_image_more(before, now, data):
    n_lost = data.draw(st.integers(0, now.kept))
    n_before = data.draw(st.one_of(st.integers(0, 5), st.just(math.inf)))
    loss = Loss.from_reading(before, now, {"frame_damaged": n_lost}, n_before)
    n_gone = rows_of(before) - rows_of(now)
    if n_before != math.inf:
        n_gone = max(n_gone, n_gone + n_lost - n_before)
    assert (loss is not None) == (n_gone > 0 or now.set_aside in PASSING)
    if loss is not None:
        assert (loss.before, loss.now, loss.file) == (before.kept, now.kept - n_lost, None)
        assert now.set_aside in loss.why
        assert loss.may_have_moved == now.other_split


@pytest.mark.parametrize(
    ("lost_before", "rows_now", "lost_now", "is_loss"),
    [
        (2, 34, 2, False),
        (2, 34, 1, False),  # one of two damaged images is repaired
        (2, 34, 3, True),
        (2, 36, 3, False),  # 33 rows with an image, 32 before
        (2, 33, 1, True),  # a row is no more
        (0, 34, 1, True),
        (math.inf, 34, 3, False),  # no stream has tried these images
    ],
)
def test_damaged_images_are_compared_with_those_that_were_damaged_before(
    lost_before, rows_now, lost_now, is_loss
):
    loss = Loss.from_reading(
        account_of(34), account_of(rows_now), {"no_picture": lost_now}, lost_before
    )
    assert (loss is not None) == is_loss


def test_the_reasons_of_a_loss_are_those_of_its_rows_and_images():
    loss = Loss.from_reading(account_of(34), account_of(30), Counter(frame_damaged=2), 0)
    why = "40 frames labelled, 40 before, 10 no_box, 2 frame_damaged"
    assert loss == Loss(34, 28, why)
    assert str(loss) == f"28 of 34 rows left ({why})."
