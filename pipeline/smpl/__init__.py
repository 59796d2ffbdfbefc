"""How the body model is read and posed: files, joints, rotations.  raw -> tracks; training; evaluation"""
