"""Raw videos -> committed rows: what would be converted and why, and the conversion itself.  [raw -> tracks -> rows]"""
