"""Calls that are refused alike."""

import pytest


def all_raise(error, text, *calls):
    for call in calls:
        with pytest.raises(error, match=text):
            call()
