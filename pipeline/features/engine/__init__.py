"""Rows of a split -> a stream's shards, as fast as the machine allows.  tracks -> [crops -> features] -> windows

tasks.py     what is decoded, video by video, each frame once, and which slots of which batch it goes to
worker.py    what a decoding process does, in memory that all processes share
decoders.py  the decoding processes
shards.py    shards until they are finished
outputs.py   a stream's slots, batches, shards and network; several streams may share a run
meter.py     where the time goes
run.py       the loop that keeps all of them busy; streams of labels need none of this
"""
