"""A model in sixty lines: VIBE's regressor on features that a learned kernel smooths over five frames."""
