"""A download, compared with the release: what is missing, or lies elsewhere.  [raw]"""
