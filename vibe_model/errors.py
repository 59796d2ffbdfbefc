"""Errors for the user."""

from __future__ import annotations

from pipeline.errors import ConfigError, PipelineError, StandInMixed

__all__ = ["CheckpointError", "ConfigError", "DataError", "StandInMixed", "TrainingDiverged"]


class CheckpointError(PipelineError, ValueError):
    """A checkpoint is damaged, unsafe, or of another model. The model is unchanged."""


class DataError(PipelineError, ValueError):
    """A split without the data that training or evaluation needs."""


class TrainingDiverged(PipelineError, RuntimeError):
    """Losses stayed non-finite: training stopped, with the last finite state saved."""
