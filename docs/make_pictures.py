"""Make the pictures of the pages: from the clip of `make try`, and from demo data.

    make try report
    .venv/bin/python docs/make_pictures.py data/try demo

Headless Chromium takes the pictures of pages that the commands write. Nothing else is drawn.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np
import rerun_cli  # type: ignore[import-untyped]
from playwright.sync_api import Page, sync_playwright

from pipeline import datasets
from pipeline.__main__ import main as main_of_pipeline
from pipeline.datasets import RELEASES

PICTURES: Final = Path(__file__).parent / "pictures"
DEMO: Final = PICTURES / "demo.html"
WIDTH: Final = 900  # px of the browser's window
QUALITY: Final = 80  # of JPEG
FRAME: Final = "#track=0&frame=100"  # of the clip: both people are seen
# of the clip, whose licence asks for it wherever the clip is
NOTICE: Final = (
    "<p>Clip: Sports2D, copyright (c) 2022, perfanalytics, "
    '<a href="sports2d-licence.txt">BSD-3-Clause</a>.</p>'
)
MOVING: Final = range(60, 150, 3)  # frames of the moving picture, which is shown 10 times a second


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a window that is WIDTH wide."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        yield chromium.new_page(viewport={"width": WIDTH, "height": 1000})
        chromium.close()


def opened(page: Page, file: Path, place: str = "") -> Page:
    """The page of a file, as soon as its video shows the frame that `place` names."""
    page.goto("about:blank")
    page.goto(file.resolve().as_uri() + place)
    page.wait_for_timeout(1500)
    return page


def take(page: Page, selector: str, name: str, last: str = "") -> None:
    """Save the part of the page from an element to the end of another one, 720 px wide."""
    box = page.locator(selector).first.bounding_box()
    end = page.locator(last or selector).last.bounding_box()
    assert box is not None and end is not None, (selector, last)
    height = end["y"] + end["height"] - box["y"]
    clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": height}
    save(decode(page.screenshot(clip=clip, full_page=True)), name)  # type: ignore[arg-type]


def decode(pixels: bytes) -> Any:
    """The image (H, W, 3) of a screenshot, in BGR."""
    return cv2.imdecode(np.frombuffer(pixels, np.uint8), cv2.IMREAD_COLOR)


def save(image: Any, name: str) -> None:
    """Save an image (H, W, 3) in BGR as JPEG, at most 720 px wide."""
    scale = min(1, 720 / image.shape[1])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(PICTURES / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def move(page: Page, name: str) -> None:
    """Save the player as an animated WebP of 3 s, 640 px wide."""
    images = []
    for frame in MOVING:
        page.evaluate(f"location.hash = 'track=0&frame={frame}'")
        page.wait_for_timeout(300)
        image = decode(page.locator("canvas").first.screenshot())
        height = round(image.shape[0] * 640 / image.shape[1] / 2) * 2
        images.append(cv2.resize(image, (640, height), interpolation=cv2.INTER_AREA))
    with av.open(str(PICTURES / f"{name}.webp"), "w", options={"loop": "0"}) as file:
        stream = file.add_stream("libwebp_anim", rate=10, options={"quality": "60"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        file.mux(stream.encode())


def write_demo(folder: Path) -> None:
    """Write the player of the clip, which the documentation has without an installation."""
    words = ["show", "videos/train", "--cache", str(folder / "cache"), "--out", str(DEMO)]
    main_of_pipeline([*words, "--overwrite"])
    page = DEMO.read_text().replace(str(folder.resolve()), "data/try")
    DEMO.write_text(with_notice(page.replace(str(folder), "data/try")))


def with_notice(page: str) -> str:
    """The HTML of a player with the notice of the clip's licence in its footer."""
    before, after = page.split("<footer>", 1)
    return f"{before}<footer>\n{NOTICE}{after}"


def of_the_clip(page: Page, folder: Path) -> None:
    """The pictures of the clip of `make try`."""
    player = opened(page, folder / "try.html", FRAME)
    take(player, "canvas", "try", "section.row .why")
    take(player, "canvas", "detecting")
    take(player, "section.row:nth-of-type(1)", "identity", "section.row:nth-of-type(2) .why")
    player.keyboard.press("o")
    player.wait_for_timeout(500)
    take(player, "canvas", "bodies")
    move(opened(page, folder / "try.html", FRAME), "player")
    write_demo(folder)
    cards = opened(page, folder / "cache-videos-train/index.html")
    take(cards, "#cards", "grades")


def of_the_report(page: Page, file: Path) -> None:
    """The pictures of the report on demo data."""
    report = opened(page, file)
    take(report, "h1", "report-top", "#portraits")
    strips = "#bodies ~ .scroll >> nth=0 >> figure"
    take(report, strips, "vibe", f"{strips} >> nth=2")


def of_datasets(page: Page, raw: Path) -> None:
    """A frame of each dataset's demo data, with what its labels say."""
    for name in RELEASES:
        if name == "bedlam2":  # of the same form as bedlam
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "page.html"
            split = f"{name}/{datasets.get(name).splits[0]}"
            main_of_pipeline(["show", split, "--raw", str(raw / name), "--out", str(file)])
            take(opened(page, file), "canvas, .views", f"dataset-{name}")


def of_rerun(page: Page, demo: Path) -> None:
    """Rerun's viewer with a track of demo data, in the browser, without its panels."""
    words = ["export", "3dpw/train", "--cache", str(demo / "cache"), "--body", str(demo / "body")]
    viewer = str(Path(rerun_cli.__file__).with_name("rerun"))
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/tracks.rrd"
        main_of_pipeline([*words, "--format", "rerun", "--out", file, "--option", "tracks=1"])
        with subprocess.Popen([viewer, file, "--web-viewer"]) as server:  # noqa: S603  rerun's own
            page.wait_for_timeout(5000)
            page.set_viewport_size({"width": 1280, "height": 800})
            page.goto("http://localhost:9090/?url=rerun%2Bhttp://localhost:9876/proxy")
            page.wait_for_timeout(40_000)  # it draws without a GPU
            clip = {"x": 200, "y": 36, "width": 780, "height": 564}
            save(decode(page.screenshot(clip=clip)), "rerun")  # type: ignore[arg-type]
            server.terminate()


def main() -> None:
    """Make all pictures. Arguments: folder of `make try`, folder of demo data."""
    clip, demo = map(Path, sys.argv[1:])
    with browser() as page:
        of_the_clip(page, clip)
        of_datasets(page, demo / "raw")
        of_the_report(page, demo / "runs/report.html")
        of_rerun(page, demo)


if __name__ == "__main__":
    main()
