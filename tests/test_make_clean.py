"""`make clean` takes the folder of demo data away, and nothing that has not its mark."""

import shutil
from pathlib import Path

import pytest

from tests.environments import run

ROOT = Path(__file__).parents[1]


@pytest.mark.promise("outputs")
@pytest.mark.parametrize("is_marked", [True, False])
def test_a_marked_folder_of_demo_data_goes_and_any_other_stays(is_marked, tmp_path, demo_data):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("docs/_build", "demo/cache", "data/cache", "runs"):
        (tmp_path / folder).mkdir(parents=True)
    if is_marked:
        demo_data.body(tmp_path / "demo/body")
    for _ in range(2):  # the second time, there is nothing else to do
        done = run(["make", "--no-print-directory", "clean"], tmp_path)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        kept = ["data", "docs", "runs"]
        if not is_marked:
            kept.append("demo")
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(kept)
    assert not (tmp_path / "docs/_build").exists()
