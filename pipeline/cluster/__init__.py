"""A Dask cluster that the user has started: jobs and their results.  raw -> tracks -> features

Nothing here imports Dask before a scheduler is named.
"""

from pipeline.cluster.workers import Workers, connected, map_on_workers

__all__ = ["Workers", "connected", "map_on_workers"]
