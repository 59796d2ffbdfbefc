"""A small network, as for tests of features."""

from tests.pipeline.features.conftest import small_backbone, small_resnet

__all__ = ["small_backbone", "small_resnet"]
