"""The page about data, training and results.  raw -> tracks -> features -> training -> evaluation -> [report]

`assembly` reads everything and writes one HTML file with `page`; the other modules make its sections.
"""
