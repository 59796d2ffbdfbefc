"""The engine: compute the shards of a stream from rows of a split, as fast as the machine allows.
tracks -> [crops -> features] -> windows

run.py       start here: outputs; the main loop; streams of labels
tasks.py     the words of the engine; jobs of decoding, their tasks, and slots in batches
worker.py    what a decoding process does
shards.py    open shards, whose rows are being computed
meter.py     how much time each stage takes
"""
