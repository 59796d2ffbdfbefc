"""Errors for the person at the keyboard: what was expected, what was found, what to do."""

from __future__ import annotations


class VibeModelError(Exception):
    """Base of every error of this package that a user can mend."""


class ConfigError(VibeModelError, ValueError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class CheckpointError(VibeModelError, ValueError):
    """A checkpoint is damaged, unsafe, or not of the model it is meant for. The model is left as it was."""


class StandInMixed(VibeModelError, ValueError):
    """Stand-in data or a stand-in body was about to meet the real thing."""


class DataError(VibeModelError, ValueError):
    """A split does not hold what training or evaluation needs from it."""


class TrainingDiverged(VibeModelError, RuntimeError):
    """Losses stayed non-finite: training stopped, with the last good state saved."""
