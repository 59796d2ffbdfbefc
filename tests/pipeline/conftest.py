"""The fixtures of `tests/fixtures.py`, and a cache of three datasets."""

import pytest

from tests.fixtures import *  # noqa: F403


@pytest.fixture(scope="session")
def root(embedded, into, tmp_path_factory):
    """A cache of three datasets. Only to be read."""
    root = tmp_path_factory.mktemp("shown") / "cache"
    for name in ("penn_action", "3dpw", "amass"):
        into.convert(root, embedded.raw(name), name, body=embedded.body if name == "3dpw" else None)
    return root
