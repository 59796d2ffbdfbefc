"""Read untrusted files, which may be damaged or hostile: label formats, images and videos, and the
detection of changes.
"""
