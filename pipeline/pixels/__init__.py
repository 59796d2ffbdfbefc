"""Where a row's pixels are, and how they are decoded.  [pixels] -> crops -> features"""
