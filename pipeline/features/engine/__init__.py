"""Rows of a split -> a stream's shards, as fast as the machine allows.  tracks -> [crops ->
features] -> windows

run.py       the words of the engine; outputs; the loop; streams of labels
tasks.py     jobs, their tasks, and slots in batches
worker.py    the function of a decoding process
shards.py    open shards
meter.py     time by stage
"""
