"""The insides of the body model: files, joints, rotations.  raw -> tracks; training; evaluation"""
