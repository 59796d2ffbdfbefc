"""Label files of people in images, of detectors and annotation tools.  [raw] -> tracks"""
