"""Extensions of the core, found by the table `pipeline.table`; each has a README."""
