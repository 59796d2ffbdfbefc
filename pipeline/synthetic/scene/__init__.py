"""People in a place, in front of a camera: pixels and their labels.  motion -> [pixels and labels] -> raw"""
