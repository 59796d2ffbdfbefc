"""A lab's cache through its life: every night, and on the days when something happens."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.journeys.conftest import KIT, ROOT, changed
from tests.journeys.made_inputs import CHANGES

DATA = "luigi --module tasks Data"


def nightly(terminal):
    """The exit codes that the script of docs/nightly.md logs; its commands run as they stand
    there.
    """
    page = (ROOT / "docs/nightly.md").read_text()
    (script,) = (
        block
        for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
        if "exit codes" in block
    )
    script = re.sub(r"^cd .*$", "", script, flags=re.MULTILINE).replace("demo/cache", "cache")
    script = script.replace(".venv/bin", str(Path(sys.executable).parent))
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=terminal.folder,
        env={**os.environ, **terminal.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    (line,) = re.findall(r"exit codes: (.*)", ran.stdout)
    return {name: int(code) for name, code in re.findall(r"(\w+) (\d+)", line)}


def first_night(terminal):
    """A working folder, and a first dataset."""
    types, folder = terminal.types, terminal.folder
    terminal.install(KIT)
    terminal.get_demo_data("raw/lab", "raw/amass", "demo/body")
    move(folder / "raw/lab", folder / "held-back", "0004")

    types("pipeline init", r"settings +luigi\.cfg", r"Data")
    settings = re.sub(r"datasets = .*", "datasets = lab", (folder / "luigi.cfg").read_text())
    (folder / "luigi.cfg").write_text(changed(settings, CHANGES))
    types("pipeline plan", r"lab/train", r"convert")
    types(DATA, r"convert +lab/train", r"extract +lab/train")
    assert terminal.is_intact("cache") == {"lab/test": 10, "lab/train": 20}
    assert types(DATA).count("✓") == 0
    types("pipeline plan", r"up to date")


def second_commit(terminal):
    """Another dataset, then another video."""
    types, file = terminal.types, terminal.folder / "luigi.cfg"
    file.write_text(file.read_text().replace("datasets = lab", "datasets = lab amass"))
    types(DATA, r"convert +amass/train")
    move(terminal.folder / "held-back", terminal.folder / "raw/lab", "0004")
    types("pipeline plan", r"1 video to read")
    types(DATA, r"convert +lab/test +1 video read", r"extract +lab/test")
    kept = terminal.is_intact("cache")
    assert kept["lab/test"] == 20
    return kept


def half_mounted(terminal, kept):
    """Half of the raw folder is not there; then it is."""
    types, lab, held_back = (
        terminal.types,
        terminal.folder / "raw/lab",
        terminal.folder / "held-back",
    )
    move(lab, held_back, "0002", "0003")
    types(DATA, r"000[23]", code=30)
    assert nightly(terminal) == {"Data": 30, "status": 1, "verify": 0}
    assert terminal.frames_kept("cache", code=1) == kept
    move(held_back, lab, "0002", "0003")
    assert "✓ extract" not in types(DATA)
    assert terminal.frames_kept("cache") == kept


def raw_folder_changes(terminal, kept):
    """New file times; a better reader; a copy of the raw folder elsewhere."""
    types, folder = terminal.types, terminal.folder
    for file in (folder / "raw/lab").rglob("*"):
        os.utime(file)
    assert not re.search(r"✓ (convert|extract)", types(DATA))
    module = terminal.site / "journey_lab.py"
    module.write_text(
        module.read_text().replace("version: ClassVar[int] = 1", "version: ClassVar[int] = 2")
    )
    types("pipeline plan", r"version was 1, is 2")
    types(DATA, r"convert +lab/train")
    shutil.copytree(folder / "raw", folder / "elsewhere")
    types(f"{DATA} --set paths.raw=elsewhere")
    assert terminal.is_intact("cache") == kept


def damage(terminal, kept):
    """A damaged shard, a damaged manifest."""
    types, folder = terminal.types, terminal.folder
    shard = next(
        file for file in (folder / "cache/lab/train/features/means/c").rglob("*") if file.is_file()
    )
    flip(shard)
    types("pipeline verify --cache cache", r"lab/train.*means", code=1)
    types(
        "pipeline verify --repair --cache cache", r"extract lab/train --stream means --cache cache"
    )
    types(DATA, r"extract +lab/train")
    assert terminal.is_intact("cache") == kept


def copied_elsewhere(terminal, kept):
    """All of it in another folder, where nothing is left to do."""
    terminal.types("pipeline copy --cache cache --to backup", r"lab/train", r"amass/train")
    assert terminal.is_intact("backup") == kept
    assert terminal.types(f"{DATA} --set paths.cache=backup").count("✓") == 0


def test_a_labs_cache(terminal):
    first_night(terminal)
    kept = second_commit(terminal)
    half_mounted(terminal, kept)
    raw_folder_changes(terminal, kept)
    damage(terminal, kept)
    copied_elsewhere(terminal, kept)


def test_a_cache_whose_disk_is_not_mounted_is_not_created_again(terminal):
    types, folder = terminal.types, terminal.folder
    terminal.install(KIT)
    terminal.get_demo_data("data/raw/lab", "data/raw/amass", "demo/body")
    types("pipeline init --real")
    file, cache = folder / "luigi.cfg", folder / "data/cache"
    settings = re.sub("datasets = .*", "datasets = lab", file.read_text())
    file.write_text(settings.replace("resnet50\n", "means\n"))
    assert types(DATA, r"extract +lab/train").count("· new cache data/cache\n") == 1
    assert "new_cache = no" in file.read_text()

    cache.rename(folder / "unmounted")
    (cache / "lost+found").mkdir(parents=True)
    (cache / "MARKER").touch()
    refused = r"luigi\.cfg, line \d+ \[paths\] new_cache = no: .*data/cache has no cache"
    assert len(re.findall(refused, types(DATA, code=2))) == 1
    by_hand = "pipeline convert lab/train --raw data/raw/lab --cache"
    types(f"{by_hand} data/cache", refused, code=2)
    types("pipeline prepare lab --raw data/raw/lab --cache data/cache", refused, code=2)
    for command in ("status", "verify", "gc", "copy --to copy"):
        types(f"pipeline {command}", r"data/cache: expected a feature cache", code=2)
    assert {path.name for path in cache.rglob("*")} == {"lost+found", "MARKER"}
    shutil.rmtree(cache)
    (folder / "unmounted").rename(cache)
    assert types(DATA).count("✓") == 0
    types(f"{by_hand} mine", r"new cache mine")


def move(source, to, *names):
    """Penn Action's videos of these names."""
    for name in names:
        for path in (f"labels/{name}.mat", f"frames/{name}"):
            (to / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source / path, to / path)


def flip(file):
    """One bit in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
