"""The format on disk: names, columns, tables, shards, manifests.  [cache]"""
