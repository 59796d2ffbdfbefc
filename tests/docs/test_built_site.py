"""The documentation as it is built: every page can be reached, every name is there."""

import inspect
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import cache
import pipeline.datasets
import pipeline.features.streams
import tasks
import vibe_model

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
    *(ROOT / "benchmarks").glob("*.md"),
]
pytestmark = pytest.mark.slow  # the build takes as long as a hundred tests; `make docs` fails on warnings besides


class Page(HTMLParser):
    """The ids and links of one page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        loaded = given.get("src") or (given.get("href") if tag == "link" else None)
        if loaded:
            self.loads.append(loaded)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", "docs"]
    subprocess.run([*build, "--doctree-dir", str(out / "trees"), ".", str(out / "html")], cwd=ROOT, check=True)
    shutil.rmtree(out / "trees")
    return out / "html"


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html") if "_static" not in file.parts}


def reached(site: Path, built: dict[Path, Page]) -> set[Path]:
    """Every page that links lead to from the first one."""
    found: set[Path] = set()
    waiting = [site / "docs/index.html"]
    while waiting:
        page = waiting.pop()
        if page not in found:
            found.add(page)
            for link in built[page].links:
                target = (page.parent / urlsplit(link).path).resolve()
                if not urlsplit(link).scheme and target in built:
                    waiting.append(target)
    return found


def test_every_page_can_be_reached_from_the_first(site: Path, built: dict[Path, Page]) -> None:
    pages = {site / page.relative_to(ROOT).with_suffix(".html") for page in PAGES}
    assert pages - reached(site, built) == set()


def test_the_site_loads_nothing_from_elsewhere(built: dict[Path, Page]) -> None:
    elsewhere = {load for page in built.values() for load in page.loads if urlsplit(load).netloc}
    assert elsewhere == set()


def test_every_public_name_is_in_the_api_reference(built: dict[Path, Page]) -> None:
    documented = {entry for page in built.values() for entry in page.ids}
    last = {entry.rpartition(".")[2] for entry in documented}
    for module in (cache, pipeline.datasets, pipeline.features.streams, tasks, vibe_model):
        for public in module.__all__:
            if not inspect.ismodule(getattr(module, public)) and not public.isupper():
                assert f"{module.__name__}.{public}" in documented or public in last, f"{module.__name__}.{public}"


INTERFACE = """
cache.open cache.FeatureCache.splits cache.Split.tracks cache.Split.windows cache.Split.column cache.Split.read
cache.verify cache.mixture.Mixture pipeline.datasets.names pipeline.datasets.get pipeline.datasets.base.Dataset.tracks
pipeline.track.Track pipeline.skeletons.convert pipeline.crops.crop_person pipeline.crops.normalise_keypoints
pipeline.boxes.smooth_boxes pipeline.body.Body.load vibe_model.VIBE vibe_model.MotionDiscriminator
vibe_model.load_published vibe_model.losses.generator_losses vibe_model.losses.adversarial_generator
vibe_model.losses.adversarial_discriminator vibe_model.vibe.training.step_losses vibe_model.training.run
vibe_model.metrics.mpjpe vibe_model.metrics.pa_mpjpe vibe_model.metrics.pve vibe_model.metrics.accel
vibe_model.metrics.accel_error vibe_model.metrics.pck vibe_model.metrics.auc
tasks.Data tasks.TrainVIBE tasks.EvaluateVIBE tasks.Report
"""  # from the design, by hand: what other people's code may rely on


def test_the_public_interface_of_the_design_is_documented(built: dict[Path, Page]) -> None:
    assert set(INTERFACE.split()) - {entry for page in built.values() for entry in page.ids} == set()
