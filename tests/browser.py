"""A Chromium for tests of pages: an installed one is used, not a downloaded one."""

import shutil

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
NEEDED = pytest.mark.skipif(
    CHROMIUM is None,
    reason="a browser is needed: install Chromium (apt install chromium) or Google Chrome",
)
LIMIT = 180_000  # ms


@pytest.fixture(scope="session")
def browser():
    """A Chromium of this machine."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is needed: pip install --group dev"
    )
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
            timeout=LIMIT,
        )
        yield started
        started.close()


@pytest.fixture
def tab_of(browser):
    """Opens an address with a browser's options: a tab, with what its console says, `said`, and the
    addresses that it asks for, `asked`.
    """
    contexts = []

    def open_tab(address, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(LIMIT)
        tab = context.new_page()
        tab.said, tab.asked = [], []
        tab.on("console", lambda message: tab.said.append(message.text))
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.goto(address)
        return tab

    yield open_tab
    for context in contexts:
        context.close()
