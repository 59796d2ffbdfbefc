"""More than one machine: conversion and extraction on a Dask cluster.  raw -> tracks -> features"""

from pipeline.cluster.mapping import map_on_workers
from pipeline.cluster.needs import Needs, SplitSeen
from pipeline.cluster.shards import extract_shards

__all__ = ["Needs", "SplitSeen", "extract_shards", "map_on_workers"]
