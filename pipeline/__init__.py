"""Raw datasets -> tracks -> features. Plain functions; no Luigi, no training."""

import os

# What cannot be decoded is told by us, file by file. OpenCV and its FFmpeg would say it besides, in words of their own,
# and look at these only when they are loaded: here, before that, and for every process that is started.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
