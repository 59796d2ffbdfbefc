"""Write, copy and delete splits and streams.  tracks -> [cache] -> windows"""
