"""Contract tests for packages: what datasets, streams, detectors, protocols and models promise, as pytest classes."""

from __future__ import annotations

from vibe_extensions.contracts.classes import (
    DatasetContract,
    DetectorContract,
    ModelContract,
    ProtocolContract,
    StreamContract,
)

__all__ = ["DatasetContract", "DetectorContract", "ModelContract", "ProtocolContract", "StreamContract"]
