"""The page in a real browser: it moves by keys, mouse and finger, compares, and asks only its own server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, browsing, find_browser
from test_film_and_page import files, film  # noqa: F401

from vidcodec.player import server
from vidcodec.player.film import Film

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no chromium on the path (Debian: apt-get install chromium)"
)

UNTIL = """(async () => {
    for (let n = 0; n < 400 && !(CONDITION); n++) await new Promise(r => setTimeout(r, 25));
    return VALUE;
})()"""


def once(page: Page, condition: str, value: str) -> Any:
    """A value on the page, when a condition holds or has had its time."""
    return page.run(UNTIL.replace("CONDITION", condition).replace("VALUE", value))


def shown(page: Page, wanted: int) -> int:
    """The frame on the page, once it is the one wanted or has had its time."""
    return int(once(page, f"now === {wanted}", "now"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with browsing() as page:
        yield page


@pytest.fixture
def page(browser: Page, film: Film) -> Iterator[Page]:  # noqa: F811
    with server.serve(film) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        browser.complaints.clear()
        browser.requests.clear()
        browser.open("http://{}:{}/".format(*served.server_address[:2]), 900)
        assert shown(browser, 0) == 0
        yield browser
        assert browser.complaints == []
        own = "http://{}:{}/".format(*served.server_address[:2])
        assert all(address.startswith((own, "data:")) for address in browser.requests), browser.requests
        served.shutdown()


def test_keys_step_jump_and_go_to_the_ends(page: Page) -> None:
    page.press("ArrowRight", 2)
    assert shown(page, 2) == 2
    assert "frame 2" in page.run("at('told').textContent")
    assert "latents" in page.run("at('told').textContent")
    page.press("End")
    assert shown(page, 3) == 3
    page.press("Home")
    assert shown(page, 0) == 0
    page.press("PageDown")  # there is one key frame
    assert shown(page, 3) == 3


def test_playing_ends_at_the_last_frame(page: Page) -> None:
    page.run("at('play').click()")
    assert shown(page, 3) == 3
    assert page.run("playing === null") is True


def test_the_source_lies_under_a_slider(page: Page) -> None:
    page.press("c")
    assert once(page, "!at('source').hidden", "at('source').naturalWidth") == 64
    x, y, width = page.run(
        "(() => { const r = at('stage').getBoundingClientRect(); return [r.x, r.y + 20, r.width]; })()"
    )
    page.mouse("mousePressed", x + 0.25 * width, y, "left")
    page.mouse("mouseReleased", x + 0.25 * width, y, "left")
    assert page.run("split") == pytest.approx(0.25, abs=0.01)
    assert "25" in page.run("at('source').style.clipPath")


def test_a_click_on_the_sizes_goes_to_the_frame(page: Page) -> None:
    x, y, width = page.run("(() => { const r = sizes.getBoundingClientRect(); return [r.x, r.y + 40, r.width]; })()")
    page.mouse("mousePressed", x + 0.9 * width, y, "left")
    page.mouse("mouseReleased", x + 0.9 * width, y, "left")
    assert shown(page, 3) == 3


@pytest.mark.parametrize("width", [360, 1400])
def test_an_exported_page_needs_no_server_and_fits(
    browser: Page,
    film: Film,  # noqa: F811
    tmp_path: Path,
    width: int,
) -> None:
    path = tmp_path / "page.html"
    path.write_text(server.export(film, lambda done, total: None))
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path, width, touch=width < 500)
    assert shown(browser, 0) == 0
    browser.press("ArrowRight")
    assert shown(browser, 1) == 1
    assert browser.run("at('ours').naturalWidth") == 64
    assert browser.run("document.documentElement.scrollWidth <= innerWidth") is True
    assert browser.complaints == []
    assert [a for a in browser.requests if not a.startswith(("file:", "data:"))] == []
