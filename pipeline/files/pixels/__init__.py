"""Decode frames from images, videos and TFRecords.  [pixels] -> crops -> features"""
