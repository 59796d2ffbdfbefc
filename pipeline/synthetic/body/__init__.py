"""The procedural body in SMPL's file format.  [body files] -> motion -> raw"""
