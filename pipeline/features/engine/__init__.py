"""Rows of a split -> a stream's shards, as fast as the machine allows.  tracks -> [crops -> features] -> windows

tasks.py     frames to decode, video by video, and their slots in batches
worker.py    the function of a decoding process
shards.py    open shards
meter.py     time by stage
run.py       a stream's slots, batches, shards and network (Output); the loop; streams of labels

Example: `resnet50` and `homography` miss rows 100 to 139, two persons in frames 0 to 19 of one video.

    output     0 is resnet50, 1 is homography; both have the shard of these rows open (PendingShard)
    DecodingJob  all 40 rows, by frame: 100, 120, 101, 121, ... with a CropRequest for each row and output
    Task       at most 16 rows of a job, whole frames: 0 to 7, 8 to 15, 16 to 19. Slots are assigned here
    CropRequest  output, slot, box (Cut) and, for homography, previous frame of one row's crop; frame 1 has four
    slot       memory of one crop, or of the numbers of a pair, shared with the decoding processes
    Batch      neighbouring slots of one output, computed together and stored in the PendingShard, which is written when
               no row is left

A decoding process decodes frame 1 once, fills its four slots, keeps the last `n_kept` frames for later rows, and
answers each Task with the problems of its slots, and a Meter.
"""
