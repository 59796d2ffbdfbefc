"""The page about data, training and results.  raw -> tracks -> features -> training -> evaluation -> [report]

`assembly` reads everything and writes one HTML file by `page`, of the sections in the other modules.
"""
