"""Raw datasets -> tracks -> features. Plain functions; no Luigi, no training."""

import os

# Undecodable files are reported here. OpenCV and its FFmpeg, which read these variables on loading, print no messages.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
