"""Extensions of the core, found by the table `pipeline.extensions`; each has a README."""
