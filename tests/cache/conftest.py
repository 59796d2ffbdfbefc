"""The small splits that tests of the cache share: made once, copied to be changed."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cache import toy


@pytest.fixture(scope="module")
def memory():
    """Every URL leads to a store of obstore's in this process, which does in seconds what takes a
    server minutes.
    """
    store, stores = pytest.importorskip("obstore.store"), dict[str, Any]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            store, "from_url", lambda url, **_: stores.setdefault(url, store.MemoryStore())
        )
        yield


_numbers = itertools.count()


@pytest.fixture
def bucket(memory):
    """The URL of an empty place in it."""
    return f"s3://memory/{next(_numbers)}"


def _copied(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "cache"))


@pytest.fixture(scope="session")
def made_tracks(tmp_path_factory):
    """Six videos in 143 rows. Only to be read or copied, as all that is made once."""
    root = tmp_path_factory.mktemp("tracks") / "cache"
    toy.write(root, toy.videos())
    return root


@pytest.fixture(scope="session")
def made(made_tracks, tmp_path_factory):
    """The same with features."""
    root = _copied(made_tracks, tmp_path_factory.mktemp("features"))
    toy.write_stream(root)
    return root


@pytest.fixture
def tracks(made_tracks, tmp_path):
    """A copy of the tracks alone, to change."""
    return _copied(made_tracks, tmp_path)


@pytest.fixture
def root(made, tmp_path):
    """A copy of tracks and features, to change."""
    return _copied(made, tmp_path)
