"""The report's sections about what is in a cache.  raw -> tracks -> features -> [report]"""
