"""Convert raw videos to committed rows: what is to do, what stays and why, read, write.  [raw ->
tracks -> rows]"""
