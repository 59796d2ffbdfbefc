"""Contract tests for packages: what datasets, streams, detectors and protocols promise."""
