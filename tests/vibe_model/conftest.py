import pytest

from tests.vibe_model.builders import TinyBody, write_splits


@pytest.fixture
def body():
    return TinyBody()


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A cache on disk for `small_config`. Only to be read, but for splits of a test's own."""
    root = tmp_path_factory.mktemp("cache")
    write_splits(root)
    return root
