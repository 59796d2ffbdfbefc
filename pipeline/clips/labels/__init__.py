"""Read label files of people in images, from detectors and annotation tools.  [raw] -> tracks"""
