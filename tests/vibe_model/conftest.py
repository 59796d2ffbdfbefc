import pytest
from torch import nn

from tests.vibe_model.builders import TinyBody
from tests.vibe_model.training.tiny_runs import KINDS, Observer, in_memory, undisturbed_run


@pytest.fixture
def body():
    return TinyBody()


@pytest.fixture
def without_dropout(monkeypatch):
    """Two passes compute the same, and processes that train as one what a single one does."""
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, values: values)


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
    """By kind, what the runs below show: after each step, and after each epoch."""
    return {kind: ([], []) for kind in KINDS}


@pytest.fixture(scope="session")
def every_run(tmp_path_factory, reports):
    """By kind, the folder of a run that was not interrupted, made when it is first asked for."""

    class Runs(dict):
        def __missing__(self, kind):
            steps, epochs = reports[kind]
            observer = Observer(
                lambda *shown: steps.append(shown), lambda *shown: epochs.append(shown)
            )
            self[kind] = undisturbed_run(kind, tmp_path_factory.mktemp(kind), observer)
            return self[kind]

    return Runs()


@pytest.fixture
def undisturbed(every_run, kind):
    return every_run[kind]
