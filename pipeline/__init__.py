"""Raw datasets -> tracks -> features. Plain functions; no Luigi, no training."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec

if sys.argv[:1] == ["-m"]:  # python3 -m pipeline, tasks
    if not all(map(find_spec, ("google_crc32c", "luigi", "rich"))):
        sys.stderr.write(
            f"error: {sys.executable} has none of the required packages. Use .venv/bin/python "
            "(make setup).\n"
        )
        raise SystemExit(2)
    import_module("vibe_model.start").require_one_folder()

# Undecodable files are reported here. OpenCV and its FFmpeg, which read these variables on loading,
# print no messages.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
