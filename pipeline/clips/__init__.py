"""People in clips: detectors, and files of keypoints beside the clips.  [pixels] -> raw keypoints
-> tracks
"""
