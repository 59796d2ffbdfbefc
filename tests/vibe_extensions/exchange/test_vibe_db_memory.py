"""Exporting and importing take no more memory for more rows."""

import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
FEW = 2_500  # rows: the features of three times as many are 61 MB

CODE = r"""
import re, sys
from pathlib import Path
import cache.write.split_writer
from vibe_extensions.exchange import rows
from vibe_extensions.exchange.vibe_db.export import export
from vibe_extensions.exchange.vibe_db.importing import import_database
cache.write.split_writer.ROWS_PER_SHARD, cache.write.split_writer.ROWS_PER_CHUNK = 1024, 64
rows.BATCH = 1024
what, file, root, out = sys.argv[1], *map(Path, sys.argv[2:])
seen = [0]

def measure(*_):
    # Pages of files that are mapped are the system's to take away, so they do not count.
    seen.append(int(re.search(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]))

cache.StreamWriter.write = lambda self, *args, own=cache.StreamWriter.write: (measure(), own(self, *args), measure())
if what == "import":
    import_database(file, root, "posetrack/train", progress=measure)
else:
    export(root, "posetrack/train", out, progress=measure)
print(max(seen))
"""


def peak(what: str, *places: Path) -> float:
    """Anonymous MiB of a process of its own."""
    command = [sys.executable, "-c", CODE, what, *map(str, places)]
    return int(subprocess.check_output(command, cwd=ROOT)) / 1024


def write(file: Path, n_rows: int) -> None:
    of_track = np.arange(n_rows) // 60
    joblib.dump(
        {
            "vid_name": np.array([f"data/annotations/{k:06d}.json_0" for k in of_track]),
            "img_name": np.array([f"images/train/{k:06d}/{i % 60:06d}.jpg" for i, k in enumerate(of_track)]),
            "joints2D": np.ones((n_rows, 49, 3)),
            "bbox": np.full((n_rows, 4), 100.0),
            "features": np.ones((n_rows, 2048), np.float32),
        },
        file,
    )


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Of an import and an export, of few rows and of four times as many."""
    found: dict[str, list[float]] = {"import": [], "export": []}
    for n_rows in (FEW, 4 * FEW):
        folder = tmp_path_factory.mktemp("memory")
        write(folder / "db.pt", n_rows)
        for what, measured in found.items():
            measured.append(peak(what, folder / "db.pt", folder / "cache", folder / "out.pt"))
        for big in (folder / "db.pt", folder / "out.pt"):
            big.unlink()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("what", ["import", "export"])
def test_memory_does_not_grow_with_the_rows(what: str, peaks: dict[str, list[float]]) -> None:
    few, many = peaks[what]
    assert many - few < 30, f"MiB: {peaks}"
