"""Rows of a split -> a stream's shards, as fast as the machine allows.  tracks -> [crops -> features] -> windows

tasks.py     what is decoded, video by video, each frame once, and which slots of which batch it goes to
worker.py    what a decoding process does, a work of `pipeline.processes.pool`, in memory that all of them share
shards.py    shards until they are finished
meter.py     where the time goes
run.py       a stream's slots, batches, shards and network (Output), of one or several that share a run; the loop that
             keeps all of them busy; streams of labels need none of this

By example: `resnet50` and `homography` lack rows 100 to 139, two persons in frames 0 to 19 of one video.

    output     0 is resnet50, 1 is homography; both have the shard of these rows open (PendingShard)
    DecodingJob  all 40 rows, by frame: 100, 120, 101, 121, ... with a CropRequest for each row and output
    Task       at most 16 rows of it, whole frames: 0 to 7, then 8 to 15, then 16 to 19. Slots are given out here
    CropRequest  by frame of a task; of frame 1 four: rows 101 and 121 for both outputs. It says where
               one row's crop goes: output, slot, the box to cut (Cut), and for homography the previous frame, 0
    slot       the place of one crop, or of what is computed of a pair, in the output's shared memory
    Batch      neighbouring slots of one output, which go through its network together; then their rows are `put` into
               the PendingShard, and the shard is written once none of its rows is left

A decoding process decodes frame 1 once, fills four slots of it, keeps as many frames as a later row may need the first
of as its previous one (`n_kept`), and answers each Task with the slots that it could not fill, and a Meter.
"""
