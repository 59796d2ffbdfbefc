"""Detection of people in folders of clips: its plan, its run, its results.  pixels -> raw
keypoints"""
