"""Read the formats of untrusted files into arrays.  [raw] -> tracks -> features -> windows"""
