"""Calls that are refused."""

import pytest

from cache import CacheError
from pipeline.errors import ConfigError, PipelineError, RawDataError


def cache_refuses(text):
    """Expect a CacheError whose message has a pattern."""
    return pytest.raises(CacheError, match=text)


def raw_refuses(text):
    """Expect a RawDataError whose message has a pattern."""
    return pytest.raises(RawDataError, match=text)


def pipeline_refuses(text):
    """Expect a PipelineError whose message has a pattern."""
    return pytest.raises(PipelineError, match=text)


def config_refuses(text):
    """Expect a ConfigError whose message has a pattern."""
    return pytest.raises(ConfigError, match=text)


def all_raise(error, text, *calls):
    for call in calls:
        with pytest.raises(error, match=text):
            call()
