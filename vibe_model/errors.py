"""Errors for the user: what was expected, what was found, what to do."""

from __future__ import annotations

from pipeline.errors import ConfigError, PipelineError, StandInMixed

__all__ = ["CheckpointError", "ConfigError", "DataError", "StandInMixed", "TrainingDiverged"]


class CheckpointError(PipelineError, ValueError):
    """A checkpoint is damaged, unsafe, or not of the model it is meant for. The model is left as it was."""


class DataError(PipelineError, ValueError):
    """A split without the data that training or evaluation needs."""


class TrainingDiverged(PipelineError, RuntimeError):
    """Losses stayed non-finite: training stopped, with the last finite state saved."""
