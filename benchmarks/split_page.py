"""What does the page of a split of 10,000 tracks weigh, how soon is it seen, and what is on it?

    .venv/bin/python benchmarks/split_page.py --out benchmarks/split_page.md

Made up: 100 videos with the same images of blurred noise, and 100 people in each, who wave for 15
rows. Their joints shake, the image cuts some, and 20 people are planted, whose joints jump, are not
seen, or shake; a twentieth are doubtful. `prepare`'s page of them is opened in Chromium from disk:
bytes that are loaded until the first cards are seen, elements, and the slowest of all filters, the
layout after it included. Another split, of 1,000 people, has five each who shake, who
jump, whose sides are exchanged, whose joints are named one too late, and whose legs are at the
arms: how many are within the first 48 by badness, or unlike the others?
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, sync_playwright

import cache
from pipeline.files.outputs import OutputRule
from pipeline.files.pixels.pictures import Pictures
from pipeline.people.skeletons import KEYPOINTS_13
from pipeline.show.drawing import NAMES
from pipeline.show.split.page import CARDS, INDEX, SplitPage
from pipeline.show.split.tracks import SplitTracks
from pipeline.show.tracks import from_cache
from pipeline.steps.grading import store_grades

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table, write_split

CHROMIUM: Final = shutil.which("chromium") or shutil.which("google-chrome")
NAME: Final = "made/train"
COLUMNS: Final = ("frame_index", "bbox", "kp_2d")
ROWS: Final = 15  # a track
PEOPLE: Final = 100  # a video
SIZE: Final = (1920, 1080)  # px of the images
PLANTED: Final = ("jump", "unseen", "shake", "shake")
SPOILT: Final = ("shake", "jump", "sides", "names", "legs")
PLACES: Final = [NAMES.index(name) for name in KEYPOINTS_13]
# a person who faces the camera, in heights of the body: KEYPOINTS_13, left before right
STANDING: Final = np.array(
    [
        (0, -0.45), (0.12, -0.3), (-0.12, -0.3), (0.18, -0.12), (-0.18, -0.12), (0.2, 0.04),
        (-0.2, 0.04), (0.08, 0.02), (-0.08, 0.02), (0.09, 0.26), (-0.09, 0.26), (0.1, 0.5),
        (-0.1, 0.5),
    ]
)  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--tracks", type=int, default=10_000)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        planted = make(folder, args.tracks, 20, PLANTED)
        start = time.process_time()
        page = write_page(folder)
        cpu = time.process_time() - start
        with sync_playwright() as playwright:
            chromium = playwright.chromium
            seen = look(page, chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]))
        on_page = sum(name in planted for name in seen.pop("names"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spoilt = make(folder, 1000, 25, SPOILT)
        tracks = SplitTracks.read(cache.open(folder / "cache")[NAME], None)
    report(
        "A page of `prepare`.",
        "What does the page of a split weigh, and what is on it?",
        _lines(seen, cpu, on_page, spoilt, tracks),
        args,
    )


def _lines(
    seen: dict[str, float], cpu: float, on_page: int, spoilt: dict[str, str], tracks: SplitTracks
) -> Iterator[str]:
    rows: list[tuple[object, ...]] = [
        ("CPU to write it, s", f"{cpu:.1f}"),
        ("of 20 planted, on the first page", on_page),
    ]
    rows += [(what, f"{value:,.0f}") for what, value in seen.items()]
    yield from table(("10,000 tracks", ""), rows)
    yield ""
    first = {track.name for track in tracks.listed[:CARDS]}
    unlike = {tracks.listed[place].name for place, _ in tracks.unlike[:CARDS]}
    rows = []
    for kind in SPOILT:
        names = {name for name, of_name in spoilt.items() if of_name == kind}
        rows.append((kind, len(names & first), len(names & unlike), len(names & (first | unlike))))
    yield from table((f"first {CARDS} of 1,000, of five each", "worst", "unlike", "either"), rows)


def make(folder: Path, n_tracks: int, n_spoilt: int, kinds: tuple[str, ...]) -> dict[str, str]:
    """Write raw images and a cache, and store its grades. Returns names of spoilt tracks with their
    kinds.
    """
    rng = np.random.default_rng(3)
    _write_images(folder / "raw/images", rng)
    chosen = rng.choice(n_tracks, n_spoilt, replace=False).tolist()
    spoilt = {track: kinds[number % len(kinds)] for number, track in enumerate(chosen)}
    videos = [
        [_person(rng, person, spoilt.get(PEOPLE * video + person, "")) for person in range(PEOPLE)]
        for video in range(n_tracks // PEOPLE)
    ]
    source = Pictures(folder / "raw", "images/{:06d}.jpg").spec
    width, height = SIZE
    write_split(folder / "cache", NAME, COLUMNS, videos, source=source, width=width, height=height)
    store_grades(folder / "cache", NAME)
    return {f"{track // PEOPLE:06d}/{track % PEOPLE}": kind for track, kind in spoilt.items()}


def _write_images(folder: Path, rng: np.random.Generator) -> None:
    """Images that are as large as JPEGs as photos are."""
    folder.mkdir(parents=True)
    width, height = SIZE
    for number in range(ROWS):
        noise = rng.uniform(0, 255, (height // 4, width // 4, 3)).astype(np.float32)
        smooth = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 2), SIZE)
        image = np.clip(128 + 4 * (smooth - 128), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), image)


def _person(rng: np.random.Generator, person: int, kind: str) -> dict[str, NDArray[Any]]:
    """The rows of a person who waves, spoilt in this way. Each has a place; some meet others."""
    side = rng.uniform(70, 120)
    place = np.array([person % 10 + 0.5, person // 10 + 0.5]) / 10
    centre = place * SIZE + rng.normal(0, 20, 2)
    body = np.tile(STANDING, (ROWS, 1, 1))
    swing = 0.08 * np.sin(np.arange(ROWS) / 4 + rng.uniform(0, 6))
    body[:, [5, 9, 11], 0] += swing[:, None]
    body[:, [6, 10, 12], 0] -= swing[:, None]
    body = _spoil(body, kind, rng)
    noise = rng.normal(0, side * abs(rng.normal(0, 0.005)), body.shape)
    kp_2d = np.zeros((ROWS, 49, 3), np.float32)
    kp_2d[:, PLACES, :2] = centre + side / 1.1 * body + noise
    n_seen = 3 if kind == "unseen" else 13
    kp_2d[:, PLACES[:n_seen], 2] = 1
    bbox = np.tile(np.array([*centre, side, side], np.float32), (ROWS, 1))
    return {"frame_index": np.arange(ROWS), "bbox": bbox, "kp_2d": kp_2d}


def _spoil(body: NDArray[np.float64], kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    spoilt = body.copy()
    if kind == "shake":
        spoilt += rng.normal(0, 0.08, body.shape)
    elif kind == "jump":
        spoilt[::3, [5, 6, 11]] += rng.normal(0, 0.5, (len(body[::3]), 3, 2))
    elif kind == "sides":
        spoilt[:, 1:] = body[:, [2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11]]
    elif kind == "names":
        spoilt = np.roll(body, 1, axis=1)
    elif kind == "legs":
        spoilt[:, 9:] = body[:, [1, 2, 3, 4]]
    return spoilt


def write_page(folder: Path) -> Path:
    """The page of the split, as `prepare` writes it."""
    root = folder / "cache"
    shown = from_cache(root, NAME, n_tracks=0, raw=folder / "raw")
    out = folder / "page"
    SplitPage(shown, cache.open(root)[NAME]).write(out, OutputRule("prepare"))
    return out / INDEX


def look(page: Path, browser: Browser) -> dict[str, Any]:
    """What Chromium finds on a page: figures, and the names on the first cards."""
    files = set()
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.on("requestfinished", lambda request: files.add(request.url))
    tab.goto(page.as_uri(), wait_until="load")
    tab.wait_for_timeout(500)
    n_bytes = sum(
        Path(url.removeprefix("file://")).stat().st_size for url in files if url.startswith("file:")
    )
    found: dict[str, Any] = tab.evaluate(LOOK)
    tab.close()
    return {"bytes of the first page": n_bytes} | found


# each filter six times, of which the median counts, so that other processes hardly do
LOOK: Final = """() => {
  const names = [...document.querySelectorAll(".card h2")].map((name) => name.textContent);
  const elements = document.querySelectorAll("*").length;
  const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  const middle = (act) => {
    const times = [];
    for (let turn = 0; turn < 6; turn += 1) {
      const start = performance.now();
      act();
      document.body.getBoundingClientRect();
      times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[3];
  };
  const bars = [...document.querySelectorAll("#histograms rect")].map((bar) =>
    middle(() => bar.dispatchEvent(new MouseEvent("click", { bubbles: true }))));
  const sort = document.getElementById("sort");
  const order = middle(() => {
    sort.value = sort.value === "worst" ? "unlike" : "worst";
    sort.dispatchEvent(new Event("change", { bubbles: true }));
  });
  return {
    names,
    elements,
    "first paint, ms": paint,
    "slowest filter, ms": Math.max(...bars),
    "another order, ms": order,
  };
}"""

if __name__ == "__main__":
    main()
