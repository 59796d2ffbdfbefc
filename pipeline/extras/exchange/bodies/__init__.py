"""Results of body estimators, in one form and checked by projection.  [files of other programs] ->
tracks
"""
