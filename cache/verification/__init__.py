"""Is the cache what its manifests say? And what can be repaired.  [cache]"""
