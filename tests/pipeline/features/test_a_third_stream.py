"""Streams of every kind in a package of their own, as docs/adding-a-stream.md has them: installed and extracted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import resnet18

import cache
from pipeline import crops, plug_ins
from pipeline.pixels import sources
from tasks import settings

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "docs" / "adding-a-stream"
PAGE = ROOT / "docs" / "adding-a-stream.md"
PENN = "penn_action/train"
READING = "Windows take it by its name"  # what stands before the one piece that is no part of the package


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def without_indentation(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


class Site:
    """The package, installed into a folder of its own."""

    def __init__(self, folder: Path) -> None:
        source, self.packages = folder / "source", folder / "site"
        shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))  # building writes beside it
        pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
        self.python(*pip, "--no-build-isolation", "--target", str(self.packages), str(source))

    def python(self, *words: str) -> str:
        """What a command printed that uses the package."""
        found = os.pathsep.join([str(self.packages), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": found, "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        ran = subprocess.run([sys.executable, *words], env=environment, check=False, timeout=300, **output)
        assert ran.returncode == 0, ran.stdout
        return str(ran.stdout)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("third"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as pip installs it, for this process alone."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    about = tmp_path / f"site/{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = ((group, entry) for group, entries in project["entry-points"].items() for entry in entries.items())
    (about / "entry_points.txt").write_text("\n".join(f"[{group}]\n{name} = {of}" for group, (name, of) in groups))
    for folder in (tmp_path / "site", PACKAGE):
        monkeypatch.syspath_prepend(folder)
    plug_ins.entry_points.cache_clear()
    yield
    plug_ins.entry_points.cache_clear()


def command(root: Path, raw: Path, *more: str, stream: str = "small") -> list[str]:
    """The command of the page, on the test's folders."""
    (told,) = re.findall(r"^ +\.venv/bin/python (-m pipeline extract .*?[^\\]$)", PAGE.read_text(), re.M | re.DOTALL)
    words = told.replace("\\\n", " ").replace("data/cache", str(root)).split()
    words[words.index("--stream") + 1] = stream
    return [*words, "--raw", str(raw), "--device", "cpu", *more]


def pairs_of(root: Path, raw: Path) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """(track, (n, 224, 224, 3) crops, the same of each row's frame before in the row's box) from the pictures."""
    split = cache.open(root)[PENN]
    for track in split.tracks:
        source = sources.parse(raw, next(video.source for video in split.videos if video.name == track.video))
        numbers = split.rows("frame_index", track.start, track.stop).tolist()
        images = [frame.image for frame in source.read(numbers)]
        boxes = split.rows("bbox", track.start, track.stop)
        of_row, before = (
            np.stack([crops.crop_person(image, box, track.crop_scale) for image, box in zip(of, boxes, strict=True)])
            for of in (images, images[:1] + images[:-1])
        )
        yield track, of_row, before


def resnet18_by_hand(pixels: np.ndarray) -> np.ndarray:
    torch.manual_seed(0)
    network = torch.nn.Sequential(*list(resnet18(weights=None).eval().children())[:-1])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        found: np.ndarray = network((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).flatten(1)
    return np.asarray(found)


def test_every_piece_of_code_on_the_page_is_in_the_package() -> None:
    files = {".py": "", ".toml": ""}
    for file in PACKAGE.iterdir():
        if file.is_file():
            files[file.suffix] += without_indentation(file.read_text())
    page, _, reading = PAGE.read_text().partition(READING)
    shown = [(".py", block) for block in blocks("python not run", page)]
    shown += [(".toml", block) for block in blocks("toml", page)]
    assert len(shown) > 8
    for suffix, block in shown:
        for part in block.split("\n\n\n"):
            assert without_indentation(part).strip() in files[suffix], part
    assert len(blocks("python not run", reading)) == 1


@pytest.mark.slow
def test_its_own_tests_pass(site: Site, tmp_path: Path) -> None:
    tests = [str(shutil.copy(file, tmp_path)) for file in PACKAGE.glob("test_*.py")]
    site.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *tests)


@pytest.mark.slow
def test_it_is_extracted_beside_others_and_read_back(site: Site, root: Path, penn: Any) -> None:
    raw = penn.raw
    told = site.python(*command(root, raw, "--batch-size", "5"))
    assert "DEMO DATA" in told
    assert "without features" not in told, told
    split = cache.open(root)[PENN]
    manifest = split.stream_manifest("small")
    assert manifest["identity"] == {"kind": "resnet18", "version": 1, "weights": "untrained"}
    assert manifest["stand_in"]
    assert "torchvision ResNet-18" in json.dumps(manifest)

    column = split.column("features/small")
    for track, pixels, _ in pairs_of(root, raw):
        expected = resnet18_by_hand(pixels)
        stored = np.asarray(column[track.start : track.stop], np.float64)
        assert stored.shape == expected.shape == (len(expected), 512)
        np.testing.assert_allclose(stored, expected, rtol=2**-10, atol=1e-3 * np.abs(expected).max())

    windows = split.windows(seqlen=4, stride=4, stream="small")
    assert split.read(windows, stream="small")["features"].shape == (len(windows), 4, 512)
    assert cache.verify(root).ok
    assert "is up to date" in site.python(*command(root, raw))
    site.python(*command(root, raw, stream="other"))
    assert {"small", "other"} <= set(cache.open(root)[PENN].streams)


@pytest.mark.slow
def test_the_other_kinds_are_extracted_and_read_back(site: Site, root: Path, penn: Any) -> None:
    raw = penn.raw
    for kind in ("thumbnail", "change", "in_box"):
        words = ["--cache", str(root), "--kind", kind, "--stream", kind, "--raw", str(raw), "--device", "cpu"]
        site.python("-m", "pipeline", "extract", *PENN.split("/"), *words)
    split = cache.open(root)[PENN]
    for track, pixels, before in pairs_of(root, raw):
        rows = range(track.start, track.stop)
        for data, crop in zip(split.blobs("thumbnail", list(rows)), pixels, strict=True):
            found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)
            np.testing.assert_allclose(found, crop.reshape(32, 7, 32, 7, 3).mean(axis=(1, 3)), atol=1)
        changed = (
            np.abs(pixels.astype(float) - before).reshape(-1, 4, 56, 4, 56, 3).mean(axis=(2, 4, 5)).reshape(-1, 16)
        )
        np.testing.assert_allclose(split.column("features/change")[track.start : track.stop], changed, atol=1e-3)
        flags = split.rows("features/change_ok", track.start, track.stop).tolist()
        assert flags == [cache.UNDEFINED] + [1] * (len(pixels) - 1)
        kp_2d, bbox = (split.rows(name, track.start, track.stop) for name in ("kp_2d", "bbox"))
        placed = 2 * (kp_2d[..., :2] - bbox[:, None, :2]) / bbox[:, None, 2:] * (kp_2d[..., 2:] > 0)
        stored = np.asarray(split.column("features/in_box")[track.start : track.stop])
        np.testing.assert_allclose(stored.reshape(-1, 49, 2), placed, atol=1e-5)


def test_luigi_cfg_names_it_as_the_page_does(installed: None, tmp_path: Path) -> None:
    (block,) = blocks("ini", PAGE.read_text())
    paths = "[paths]\nraw = r\nbody = b\ncache = c\nruns = runs\n[data]\ndatasets = amass\n[train]\npreset = embedded\n"
    (tmp_path / "luigi.cfg").write_text(paths + block)
    found = settings.load(tmp_path / "luigi.cfg").stream
    assert (found.name, str(found.stream)) == ("small", "ResNet18(weights='untrained')")


def test_what_fails_in_it_is_called_by_its_name_and_its_package(
    installed: None,
    penn: Any,
    root: Path,
    run: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import small_streams

    words = ["extract", *PENN.split("/"), "--cache", str(root), "--kind", "in_box", "--stream", "odd"]
    numbers, flags = np.zeros((1, 98), np.float32), np.ones(1, bool)
    for made, expected in (
        (lambda n: 1 / 0, "failed in the function that load returned: ZeroDivisionError"),
        (lambda n: numbers.repeat(n, 0), "failed in the function that load returned: ValueError"),
        (lambda n: (numbers.repeat(n, 0).tolist(), flags.repeat(n)), "98) numbers of a batch, found a list"),
        (lambda n: (numbers.repeat(n, 0), flags), "flags of a batch, found (1,)"),
    ):
        monkeypatch.setattr(small_streams.Placement, "__call__", lambda _, labels, made=made: made(len(labels["bbox"])))
        assert run(*words) == 2
        printed = " ".join(capsys.readouterr().err.split())
        assert "stream 'in_box' of package example-streams" in printed
        assert expected in printed
        assert "defect of" not in printed
    monkeypatch.setattr(small_streams.InBox, "load", lambda *_: Path("/none").read_bytes())
    assert run(*words) == 2
    assert "failed in load: FileNotFoundError" in capsys.readouterr().err


def test_what_its_options_do_not_know_is_refused(
    installed: None, penn: Any, root: Path, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(root, penn.raw)[2:]
    for wrong, expected in (
        (
            ["weights=best" if word == "weights=untrained" else word for word in words],
            "weights 'best': expected one of",
        ),
        ([*words, "--set", "depth=18"], "depth"),
    ):
        assert run(*wrong) == 2
        printed = capsys.readouterr().err
        assert expected in printed
        assert "weights" in printed
