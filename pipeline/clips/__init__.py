"""People in clips: detectors, label files of other tools, and tracks of both.  [pixels] -> raw
keypoints
-> tracks
"""
