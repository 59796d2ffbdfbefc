"""Where frames come from: pictures, videos, records, and how they are decoded.  [pixels] -> crops -> features"""
