"""Extensions of the core, found by the entry points in pyproject.toml; each has a README."""
