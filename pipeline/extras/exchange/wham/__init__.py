"""WHAM's dataset/parsed_data files.  tracks, features -> [files of other programs]"""
