"""Calls that are refused."""

import pytest

from cache import CacheError


def cache_refuses(text):
    """Expect a CacheError whose message has a pattern."""
    return pytest.raises(CacheError, match=text)


def all_raise(error, text, *calls):
    for call in calls:
        with pytest.raises(error, match=text):
            call()
