"""Errors for the user: what was expected, what was found, what to do."""

from __future__ import annotations


class VibeModelError(Exception):
    """Base of every error of this package that a user can correct."""


class ConfigError(VibeModelError):  # no ValueError: pydantic would take it for one of its own
    """A setting is unknown, of the wrong type, or contradicts another."""


class CheckpointError(VibeModelError, ValueError):
    """A checkpoint is damaged, unsafe, or not of the model it is meant for. The model is left as it was."""


class StandInMixed(VibeModelError, ValueError):
    """Demo data or the procedural body was about to be used together with real data."""


class DataError(VibeModelError, ValueError):
    """A split lacks what training or evaluation needs of it."""


class TrainingDiverged(VibeModelError, RuntimeError):
    """Losses stayed non-finite: training stopped, with the last finite state saved."""
