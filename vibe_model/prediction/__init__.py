"""Bodies predicted in tracks, as files and videos.  windows -> [prediction] ->
evaluation
"""
