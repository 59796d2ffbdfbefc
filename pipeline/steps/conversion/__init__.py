"""Convert raw videos to committed rows: plan, read, write.  [raw -> tracks -> rows]"""
