"""All steps from raw files to features: `python -m pipeline prepare`, and the step that Luigi's tasks run likewise."""
