"""What is to be in a cache, and how it gets there: plans and steps of one split.  [raw -> tracks -> features]"""
