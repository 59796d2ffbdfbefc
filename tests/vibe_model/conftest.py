import pytest

from tests.vibe_model.builders import MemorySplit, TinyBody


@pytest.fixture
def body():
    return TinyBody()


@pytest.fixture(scope="session")
def tiny_body():
    return TinyBody


@pytest.fixture(scope="session")
def memory_split():
    return MemorySplit
