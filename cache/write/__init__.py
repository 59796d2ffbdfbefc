"""Write, copy, tag and delete splits and streams.  tracks -> [cache] -> windows"""
