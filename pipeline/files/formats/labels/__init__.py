"""Label files of the datasets and of detectors, as arrays.  [raw] -> tracks -> features -> windows"""
