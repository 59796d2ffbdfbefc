"""Plans and steps of one split.  [raw -> tracks -> features]"""
