"""The fixtures of tests of models."""

from tests.vibe_model.conftest import *  # noqa: F403
