"""Raw datasets -> tracks -> features. Plain functions; no Luigi, no training."""

import os

# We report what cannot be decoded, file by file; OpenCV and its FFmpeg would print messages of their own besides. They
# read these variables when they are loaded: so they are set here, before that, and for every process that is started.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
