"""Rows of a split -> a stream's shards, as fast as the machine allows.  tracks -> [crops -> features] -> windows

jobs.py         what is to be decoded, video by video, each frame once
decoders.py     processes (worker.py) that decode and crop, into memory.py, as pieces.py says; resting.py keeps them
slabs.py        batches that span tracks and videos
computation.py  what becomes of a batch
engine.py       the loop that keeps all of it busy
assembly.py     shards until they are whole
meter.py        where the time goes
shards.py       all of it together
"""

from pipeline.features.engine.shards import Resources, Run

__all__ = ["Resources", "Run"]
