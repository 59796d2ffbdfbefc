"""The fixtures of `tests/fixtures.py`."""

from tests.fixtures import *  # noqa: F403
