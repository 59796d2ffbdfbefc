"""The files of WHAM's `dataset/parsed_data`, written from a cache.  tracks, features -> [files of other programs]"""
