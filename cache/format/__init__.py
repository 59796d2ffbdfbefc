"""What is on disk: names, columns, tables, shards, manifests.  tracks -> [cache] -> windows"""
