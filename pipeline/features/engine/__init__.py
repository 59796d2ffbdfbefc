"""Rows of a split -> a stream's shards, as fast as the machine allows.  tracks -> [crops -> features] -> windows

jobs.py      what is to be decoded, video by video, each frame once
worker.py    what a decoding process does, in memory that all processes share
decoders.py  the decoding processes
batches.py   batches that span tracks and videos
shards.py    shards until they are finished
meter.py     where the time goes
run.py       the loop that keeps all of them busy
"""

from pipeline.features.engine.run import Run

__all__ = ["Run"]
