"""Work that other code, other libraries or another processor has left: no commit mixes it with work
of this code.
"""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import cv2
import pytest

from cache.write.parts import Part
from pipeline.processes import software
from tests.other_code import ROOT, copy_code, run_other
from tests.pipeline.features.made_pictures import FEW, SPLIT, convert_noise


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A copy of the code with other boxes and homographies."""
    return copy_code(tmp_path_factory.mktemp("other"))


def says_why(printed, pieces):
    """Whether a line names the host, the number of pieces, and the ids of both codes."""
    start = f"unfinished work of {socket.gethostname()} is computed again ({pieces}: code was "
    return start in printed and f", is {software.version('code')}" in printed


CONVERT = f"convert {SPLIT} --raw RAW/penn_action --workers 1 --cache"


def test_videos_that_a_part_of_other_code_has_read_are_read_again(
    penn, other, tmp_path, into, types, reads
):
    types(f"{CONVERT} TMP/calm")
    words = ["convert", SPLIT, "--raw", penn.raw, "--workers", 1, "--cache", penn.root]
    run_other(other, *words, "--part", "1/2")
    types(f"{CONVERT} CACHE --part 2/2")
    reads.clear()
    assert says_why(types(f"{CONVERT} CACHE"), "3 pieces")
    assert reads.names == ["0001", "0002", "0003"]
    assert into.tree(penn.root) == into.tree(tmp_path / "calm")


def test_shards_that_parts_of_other_code_have_staged_are_computed_again(
    other, tmp_path, into, types
):
    calm = convert_noise(tmp_path, 8, cut_short=False, lengths=FEW)
    root = Path(shutil.copytree(calm, tmp_path / "parts"))
    extract = f"extract {SPLIT} --kind homography --workers 1 --cache"
    types(f"{extract} {calm}")
    types(f"{extract} {root} --part 1/2")
    run_other(other, *extract.split(), root, "--part", "2/2")
    shown = types(f"{extract} {root}")
    assert says_why(shown, "4 pieces")
    assert "extracted, 0 rows computed" not in shown
    assert into.tree(root) == into.tree(calm)


def test_a_run_that_was_killed_with_other_code_starts_again_with_a_line(
    penn, other, tmp_path, into, types, small_shards
):
    types(f"{CONVERT} TMP/calm")
    begun = (
        "import sys\nimport cache.write.split_writer as writer\nwriter.ROWS_PER_SHARD, "
        "writer.ROWS_PER_CHUNK = 16, 8\nfrom cache import NextCommit\n"
        "NextCommit.commit = lambda *args, **options: sys.exit(9)\nfrom pipeline.__main__ "
        "import main\nmain(sys.argv[1:])\n"
    )
    words = f"convert {SPLIT} --raw {penn.raw} --workers 1 --cache {penn.root}".split()
    command = [sys.executable, "-c", begun, *words]
    assert subprocess.run(command, cwd=other, capture_output=True, check=False).returncode == 9
    assert says_why(types(f"{CONVERT} CACHE"), "1 piece")
    assert into.tree(penn.root) == into.tree(tmp_path / "calm")


ASKED = "from pipeline.processes.software import version; print(version('code'))"


def answer(folder, asked=ASKED):
    """What Python prints in a folder."""
    return subprocess.check_output([sys.executable, "-c", asked], cwd=folder, text=True)


def test_the_id_follows_the_files_of_the_code_and_of_a_plug_in(other, site):
    here = software.versions()
    libraries = {"av", "numpy", "opencv-python", "scipy", "simplejpeg", "torch"}
    assert here.keys() == {"code", "python", *libraries, "ai-edge-litert", "onnxruntime"}
    assert answer(ROOT) == f"{here['code']}\n" != answer(other)

    site.mkdir()
    (site / "own_streams.py").write_text("class Own:\n    pass\n")
    plug_in = importlib.import_module("own_streams").Own()
    assert software.versions(plug_in).keys() - here.keys() == {"code of own_streams"}


def test_code_that_changes_while_a_process_runs_has_an_id_of_its_own(tmp_path):
    code = copy_code(tmp_path / "code")
    asked = (
        "import os, time\nfrom pipeline.processes import software\n"
        "os.utime('pipeline/people/boxes.py', (time.time(),) * 2)\n"
        "print(software.version('code'))\n"
    )
    assert f"of {socket.gethostname()} ran" in answer(code, asked)


def test_a_file_whose_time_is_ahead_of_the_clock_has_the_id_of_its_content(tmp_path):
    code = copy_code(tmp_path / "code")
    before = answer(code)
    tomorrow = time.time() + 24 * 3600
    os.utime(code / "pipeline/people/boxes.py", (tomorrow, tomorrow))
    assert answer(code) == before


def test_staged_shards_of_other_weights_are_computed_again(
    other, tmp_path, into, made_up, monkeypatch, capsys
):
    """Random weights differ between kinds of processors."""
    root = convert_noise(tmp_path, 8, cut_short=False)
    calm = Path(shutil.copytree(root, tmp_path / "calm"))

    def extract(at, part, sha256):
        provenance = {"stand_in": True, "sha256": sha256, "device": "cpu"}
        monkeypatch.setattr(made_up.Mean, "provenance", provenance)
        return into.extract(at, name="colour", stream=made_up.Colour(), workers=1, part=part)

    extract(calm, None, "aa")
    extract(root, Part(1, 2), "aa")
    extract(root, Part(2, 2), "bb")
    done = extract(root, None, "aa")
    assert done.computed > 0
    shown = " ".join(capsys.readouterr().err.split())
    assert (
        "10 finished shards computed again, first: penn_action/train: stream colour, shard" in shown
    )
    assert "expected weights aa, as of other shards, found bb" in shown
    assert into.tree(root) == into.tree(calm)


@pytest.mark.parametrize("package", ["opencv-python-headless", ""])
def test_opencv_of_any_package_has_its_version(package, monkeypatch):
    def version(name):
        if name == package:
            return "4.12.0.88"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    software.version.cache_clear()
    expected = "4.12.0.88" if package else cv2.__version__
    assert software.version("opencv-python") == expected
    monkeypatch.undo()
    software.version.cache_clear()
