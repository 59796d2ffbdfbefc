"""Read committed rows, and windows of rows.  tracks -> features -> [windows] -> training"""
