"""Waiting for events, however slow the machine is: no test depends on how fast something
happens.
"""

import time

LIMIT = 180.0  # s, until what a test waits for is taken for missing


def await_that(is_true):
    """Return once it is true."""
    latest = time.monotonic() + LIMIT
    while not is_true():
        assert time.monotonic() < latest, "it never came true"
        time.sleep(0.01)


def with_growing_limit(judge, first):
    """Call `judge(limit)`, with a longer limit in s while it fails, up to a minute and more.

    What hangs is ended at any limit; what is healthy, but slow on a busy machine, needs a long one.
    """
    limit = first
    while limit < 60:
        try:
            return judge(limit)
        except AssertionError:
            limit *= 4
    return judge(limit)
