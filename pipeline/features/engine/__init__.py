"""The engine: compute the shards of a stream from rows of a split, as fast as the machine allows.
tracks -> [crops -> features] -> windows

run.py       start here: the main loop; streams of labels
tasks.py     what is decoded: shards -> jobs -> tasks
worker.py    what a decoding process does
network.py   a loaded network, and the shared memory of its crops
shards.py    a stream that is computed, and its open shards
"""
