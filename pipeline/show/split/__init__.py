"""The page of a split: its tracks, the worst first, with pictures and histograms.  cache -> page

`tracks` reads what the page has of each track, and `page` writes it.
"""
