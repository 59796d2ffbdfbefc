"""What readers share: checks of labels, images, numbers of frames, SMPL bodies; clips/ of detected
people.  [raw] -> tracks"""
