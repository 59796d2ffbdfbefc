"""Raw datasets -> tracks -> features. Plain functions; no Luigi, no training."""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

if sys.argv[:1] == ["-m"]:  # python3 -m pipeline, tasks
    if not all(map(find_spec, ("google_crc32c", "luigi", "rich"))):
        sys.stderr.write(
            f"error: {sys.executable} has none of the required packages. Use .venv/bin/python "
            "(make setup).\n"
        )
        raise SystemExit(2)
    here = sys.path[0]  # the working folder, where Python looks first
    clone = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    for file in os.listdir(here):  # noqa: PTH208 - pathlib takes its time to import
        name, ending = os.path.splitext(file)  # noqa: PTH122
        hidden = PathFinder.find_spec(name, sys.path[1:]) if ending == ".py" else None
        # Python takes any folder for a package, such as the demo data of a clone.
        is_data = hidden is not None and hidden.loader is None and name in os.listdir(clone)  # noqa: PTH208
        if hidden is not None and not is_data:
            what = f"{file} in this folder hides the Python package {name}"
            sys.stderr.write(f"error: {what}. Rename it, or run the command in another folder.\n")
            raise SystemExit(2)

# Undecodable files are reported here. OpenCV and its FFmpeg, which read these variables on loading,
# print no messages.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
