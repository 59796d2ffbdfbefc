import pytest

from tests.vibe_model.builders import TinyBody, write_splits
from tests.vibe_model.training.tiny_runs import KINDS, in_memory, undisturbed_run


@pytest.fixture
def body():
    return TinyBody()


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A cache on disk for `small_config`. Only to be read, but for splits of a test's own."""
    root = tmp_path_factory.mktemp("cache")
    write_splits(root)
    return root


# Of files that set `kind`: a training that takes a second.


@pytest.fixture
def run(kind):
    return KINDS[kind].run


@pytest.fixture
def config(kind, tmp_path):
    return KINDS[kind].config(tmp_path)


@pytest.fixture
def splits(kind, monkeypatch):
    return in_memory(monkeypatch, kind)


@pytest.fixture(scope="session")
def reports():
    """By kind, the progress of the runs below."""
    return {kind: [] for kind in KINDS}


@pytest.fixture(scope="session")
def every_run(tmp_path_factory, reports):
    """By kind, the folder of a run that was not interrupted, made when it is first asked for."""

    class Runs(dict):
        def __missing__(self, kind):
            self[kind] = undisturbed_run(kind, tmp_path_factory.mktemp(kind), reports[kind].append)
            return self[kind]

    return Runs()


@pytest.fixture
def undisturbed(every_run, kind):
    return every_run[kind]
