"""Detection of people in folders of clips.  pixels -> raw keypoints"""
