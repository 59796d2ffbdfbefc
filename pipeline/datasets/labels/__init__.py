"""Label files of releases that need a module of their own, beside their readers.  [raw] ->
tracks"""
