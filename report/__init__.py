"""The page that people look at.  raw -> tracks -> features -> windows -> training -> evaluation -> [report]

`page` writes one HTML file out of sections; `figures` draws its plots. What is in the cache: `data`, of `opened`,
`samples`, `overview`, `examples`, `distributions`, `stream_health`. How training went: `training`, of `curves`,
`results`, `bodies`, `provenance`.
"""
