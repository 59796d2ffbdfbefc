"""The format of a cache on disk: names, columns, tables, shards and manifests.  [cache]"""
