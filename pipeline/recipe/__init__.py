"""Plan and run the steps that prepare a split: detect, convert, extract.  [raw -> tracks ->
features]
"""
