"""`make clean` takes demo data away, and nothing that cost anybody a download or days of computing."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RAW, BODY, CACHE, RUNS = (
    Path("data/embedded/raw/penn_action"),
    Path("data/embedded/body"),
    Path("data/cache"),
    Path("runs"),
)
REAL_CACHE, REAL_RUN = CACHE / "3dpw/train/manifest.json", RUNS / "vibe-1/config.json"


def write(file: Path, *, stand_in: bool) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"stand_in": stand_in}))


@pytest.mark.parametrize(
    ("own", "printed", "stay"),
    [
        (None, "", set()),
        (RAW, "", {RAW}),
        (REAL_CACHE, f"{CACHE} is left: not all of it is demo data\n", {CACHE}),
        (REAL_RUN, f"{RUNS} is left: not all of it is demo data\n", {RUNS}),
    ],
)
def test_what_is_demo_data_goes_and_anything_else_stays(own, printed, stay, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in (RAW / "STAND_IN.json", BODY / "STAND_IN.json", CACHE / "a/b/manifest.json", RUNS / "1/config.json"):
        write(tmp_path / file, stand_in=True)
    (tmp_path / "docs/_build").mkdir(parents=True)
    if own == RAW:
        (tmp_path / RAW / "STAND_IN.json").rename(tmp_path / RAW / "label")
    elif own:
        write(tmp_path / own, stand_in=False)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    for _ in range(2):  # the second time, there is nothing else to do
        captured = {"capture_output": True, "text": True}
        made = subprocess.run(["make", "clean"], cwd=tmp_path, env=environment, check=True, **captured)
        assert made.stdout == printed
        assert {one for one in (RAW, BODY, CACHE, RUNS, Path("docs/_build")) if (tmp_path / one).exists()} == stay
    assert not own or any((tmp_path / own).parent.iterdir())
