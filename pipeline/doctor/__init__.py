"""Is a download complete, and in the layout that the readers expect?  [raw] -> tracks -> features -> windows"""
