"""Demo data that tests read, written once and kept from run to run: in pytest's cache, as long as
the code that writes them stays as it is.
"""

import fcntl
import hashlib
import pickle
import platform
import shutil
import time
from importlib import metadata
from pathlib import Path

from pipeline.extras.demo import writing
from pipeline.extras.demo.layouts import Request

ROOT = Path(__file__).parents[1]
# all that decides about a byte of demo data
SOURCES = (
    "pipeline/*.py",
    "pipeline/clips/files.py",
    "pipeline/extras/demo/**/*",
    "pipeline/files/**/*",
    "pipeline/show/**/*",
    "tests/demo_data.py",
)
LIBRARIES = ("numpy", "scipy", "opencv-python", "av", "h5py")
UNUSED = 24 * 3600  # s without a run, after which data of other code are deleted


def version():
    """A digest of the code and the machine that demo data come from."""
    digest = hashlib.sha256(f"{platform.node()} {platform.python_version()}".encode())
    for library in LIBRARIES:
        digest.update(metadata.version(library).encode())
    for file in sorted({file for pattern in SOURCES for file in ROOT.glob(pattern)}):
        if file.is_file() and file.suffix != ".pyc":
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


class DemoData:
    """Writes what `pipeline.extras.demo.writing` writes, by copying what an earlier run has kept."""

    def __init__(self, store):
        store.mkdir(parents=True, exist_ok=True)
        self._folder = store / version()
        self._folder.mkdir(exist_ok=True)
        self._folder.touch()
        for folder in store.iterdir():
            if time.time() - folder.stat().st_mtime > UNUSED:
                shutil.rmtree(folder, ignore_errors=True)

    def dataset(self, name, to, *, size="default", n_videos=None, n_frames=None):
        """Write a dataset's raw folder; the truth behind its videos."""

        def write(folder):
            request = Request(size=size, n_videos=n_videos, n_frames=n_frames)
            takes = writing.write_dataset(name, folder / "raw", request)
            (folder / "takes").write_bytes(pickle.dumps(takes))

        kept = self._kept(f"{name} {size} {n_videos} {n_frames}", write)
        shutil.copytree(kept / "raw", to)
        takes = pickle.loads((kept / "takes").read_bytes())
        return takes

    def body(self, to):
        """Write the stand-in body's folder."""
        kept = self._kept("of a body", lambda folder: writing.write_body(folder / "body"))
        shutil.copytree(kept / "body", to)

    def _kept(self, name, write):
        folder = self._folder / name
        with (self._folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be writing it
            if not folder.is_dir():
                partial = folder.with_name(f".{name}")
                shutil.rmtree(partial, ignore_errors=True)  # of a killed run
                write(partial)
                partial.rename(folder)
        return folder
