"""The rule by which committed videos keep rows (`pipeline.steps.conversion.keep`), cell by cell."""

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.accounting import BY_USER, LEFT_OUT, NOT_NOW, PASSING, UNSETTLED, VideoAccount
from pipeline.steps.conversion.keep import (
    InOtherSplit,
    Kind,
    MayGo,
    NotThere,
    Reading,
    RowsBefore,
    RowsNow,
    Unusable,
    keep,
)

MAY_GO = [MayGo(*flags) for flags in itertools.product([False, True], repeat=3)]
REASONS = ["", "bad_label_file", "low_grade", "unexpected_error", NOT_NOW, "no_such_track"]


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
    st.builds(account_of, set_aside=st.sampled_from(REASONS[1:])),
    st.builds(account_of, other_split=st.just(True)),
)


@st.composite
def readings(draw):
    account = draw(ACCOUNTS)
    lost = draw(st.integers(0, account.kept))
    return Reading(
        account,
        is_same_content=draw(st.booleans()),
        lost={"frame_damaged": lost} if lost else {},
        n_lost_before=draw(st.one_of(st.integers(0, 5), st.just(math.inf))),
        by_detect=draw(st.booleans()),
    )


STATES = st.one_of(
    st.builds(NotThere, st.sampled_from(["", "labels/clip.json"])),
    st.builds(Unusable, st.just("clip: 3 of 5 rows left."), st.booleans()),
    st.just(InOtherSplit()),
    readings(),
)


def rows_of(account):
    """Rows that the reader gave, also those that the user leaves out."""
    return account.kept + sum(account.dropped[reason] for reason in BY_USER)


def n_gone(before, reading):
    """Rows that are no more, or, where their number before is known, that have no image more."""
    fewer_rows = rows_of(before) - rows_of(reading.account)
    if math.isinf(reading.n_lost_before):
        return max(0, fewer_rows)
    with_image = rows_of(reading.account) - sum(reading.lost.values())
    fewer_images = rows_of(before) - int(reading.n_lost_before) - with_image
    return max(0, fewer_rows, fewer_images)


def permits(may_go, reading):
    """Whether somebody has said that rows of a video that was read may go."""
    reason = reading.account.set_aside
    by_reader = may_go.other_reader and reading.is_same_content and reason not in UNSETTLED
    return may_go.drop or by_reader or (reading.by_detect and not reason)


@pytest.mark.promise("rows kept")
@given(ACCOUNTS, readings(), st.sampled_from(MAY_GO))
def test_rows_of_a_video_that_was_read_go_by_permission_alone_and_no_better_one_is_refused(
    before, now, may_go
):
    answer = keep(before, now, may_go)
    reason = now.account.set_aside
    if reason in PASSING:
        assert (answer.kind, answer.account) == (Kind.NOT_NOW, now.account)
    elif n_gone(before, now) and not permits(may_go, now):
        assert (answer.kind, answer.account) == (Kind.UNUSABLE, now.account)
        assert answer.may_have_moved == now.account.other_split
    else:
        assert isinstance(answer, RowsNow)


@given(ACCOUNTS, STATES, st.sampled_from(MAY_GO))
def test_what_stays_is_told_and_what_another_reader_drops_is_counted(before, now, may_go):
    answer = keep(before, now, may_go)
    if isinstance(answer, RowsBefore):
        assert answer.why or now == NotThere("")
        if isinstance(now, Reading):
            expected = f"{now.account.kept - sum(now.lost.values())} of {before.kept} row"
            assert (now.account.set_aside or expected) in answer.why
    elif isinstance(now, Reading):
        by_user = may_go.drop or (now.by_detect and not now.account.set_aside)
        assert answer.n_gone == (0 if by_user else n_gone(before, now))
    else:
        assert answer == RowsNow()


@given(ACCOUNTS, STATES, st.sampled_from(MAY_GO), st.integers(0, 2))
def test_who_permits_more_keeps_no_more(before, now, may_go, flag):
    more = MayGo(*(allowed or i == flag for i, allowed in enumerate(may_go)))
    if isinstance(keep(before, now, may_go), RowsNow):
        assert isinstance(keep(before, now, more), RowsNow)


@pytest.mark.parametrize("may_go", MAY_GO)
@pytest.mark.parametrize("n_before", [0, 5])
def test_a_video_that_was_not_read_stays_until_the_user_or_another_split_takes_it(n_before, may_go):
    before = account_of(n_before)

    def kind(now):
        return getattr(keep(before, now, may_go), "kind", None)

    stays = n_before > 0 and not may_go.drop
    for file in "", "labels/clip.json":
        assert kind(NotThere(file)) == (Kind.MISSING if stays else None)
    stays = stays and not may_go.retry and not may_go.other_reader
    for is_of_other_split in False, True:
        now = Unusable("clip: 3 of 5 rows left.", is_of_other_split)
        assert kind(now) == (Kind.UNUSABLE if stays else None)
    assert kind(InOtherSplit()) is None


@pytest.mark.parametrize(
    ("lost_before", "rows_now", "lost_now", "stays"),
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
    lost_before, rows_now, lost_now, stays
):
    now = Reading(account_of(rows_now), lost={"no_picture": lost_now}, n_lost_before=lost_before)
    assert isinstance(keep(account_of(34), now, MayGo()), RowsBefore) == stays


def test_the_reasons_of_a_loss_are_those_of_its_rows_and_images():
    now = Reading(account_of(30), lost=Counter(frame_damaged=2), n_lost_before=0)
    why = "clip: 28 of 34 rows left with a readable image (40 frames labelled, 40 before, 10 no_box, 2 frame_damaged)."
    assert keep(account_of(34), now, MayGo()) == RowsBefore(Kind.UNUSABLE, why, now.account)
