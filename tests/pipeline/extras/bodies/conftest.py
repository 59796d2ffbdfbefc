"""The user's cache folder."""

import numpy as np
import pytest

from pipeline.extras.bodies.body_file import FILE
from pipeline.files.packages import cache_folder
from tests.pipeline.extras.bodies.made_body import make_body


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache folder of the user that holds the small body."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache_folder().mkdir(parents=True)
    np.savez(cache_folder() / FILE, **make_body()._asdict())
    return cache_folder()
