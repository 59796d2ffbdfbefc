"""Sources of frames (images, videos, records), and decoding.  [pixels] -> crops -> features"""
