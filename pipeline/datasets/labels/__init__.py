"""Label files that need a module of their own, beside their reader.  [raw] -> tracks"""
