"""Grades of tracks: a word with its reasons, and the numbers behind it.  raw -> [tracks] ->
features
"""

from pipeline.grades.measures import (
    BLAZE_JOINTS,
    grade,
    grades_of,
    tracks_of,
    video_grades,
)
from pipeline.grades.words import DOUBTFUL, GOOD, WORDS, Grade

__all__ = [
    "BLAZE_JOINTS",
    "DOUBTFUL",
    "GOOD",
    "WORDS",
    "Grade",
    "grade",
    "grades_of",
    "tracks_of",
    "video_grades",
]
