"""A small model: VIBE's regressor on features that a learned kernel smooths over five frames."""

from vibe_model.models import Model

MODEL = Model("Smoothing", __name__, section="smoothing", preset="usual", baseline="single-frame")
