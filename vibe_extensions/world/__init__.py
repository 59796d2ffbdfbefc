"""Datasets, streams and files for models of motion in world coordinates, such as WHAM. See README.md."""
