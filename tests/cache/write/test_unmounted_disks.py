"""The folder `lost+found` of a mounted disk is no split and no stream."""

import shutil
import tempfile
from pathlib import Path

import cache
from tests.cache.users import as_another_user

SPLIT = "toy/train"
FEATURES = f"{SPLIT}/features"


def test_the_folder_lost_and_found_of_a_mounted_disk_is_no_split_and_no_stream(made):
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        root = shutil.copytree(made, folder / "cache")
        for name in ("toy", FEATURES):
            (root / name / "lost+found").mkdir(mode=0o700)  # of root, as mkfs makes it

        def use():
            assert cache.open(root).splits == (SPLIT,)
            assert cache.open(root)[SPLIT].streams == ("resnet50",)
            report = cache.verify(root)
            assert (report.problems, report.notes) == ((), [])

        assert as_another_user(use) == ""
    finally:
        shutil.rmtree(folder)
