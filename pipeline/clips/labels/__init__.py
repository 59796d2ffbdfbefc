"""Read files of people in clips by other tools: OpenPose, AlphaPose, COCO, MOT, ...  [raw] ->
tracks"""
