"""Uses pipeline.show. The page about data, training and results.  raw -> ... -> evaluation ->
[report]

`assembly` reads everything and writes one HTML file with `page`; the other modules make its
sections.
"""
