import pytest

from tests.vibe_model.builders import TinyBody


@pytest.fixture
def body():
    return TinyBody()
