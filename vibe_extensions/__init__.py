"""Extensions: what the core does not know. Each is found by the entry points of pyproject.toml; see its README."""
