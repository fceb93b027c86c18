"""The page in a real browser: it asks no network for anything, nothing overflows, and what can be moved moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from browser import Page, browsing, find_browser
from report_support import OURS, X265, Pictures, nasty_results, small_results

from vidcodec.evaluation import report_pictures
from vidcodec.evaluation.report import write_report

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no chromium on the path (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with browsing() as page:
        yield page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two pages: plain/index.html, nasty/index.html."""
    folder = tmp_path_factory.mktemp("reports")
    pictures = Pictures()
    pictures.size = (96, 72)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("clip_format", "source_frames", "decoded_frames"):
            patch.setattr(report_pictures, name, getattr(pictures, name))
        write_report(small_results(), folder, folder / "plain", frames=[0, 2])
        write_report(nasty_results(), folder, folder / "nasty", frames=[0])
        yield folder


@pytest.fixture
def page(browser: Page, folder: Path) -> Page:
    """The plain page on a desk, with no complaint so far."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(folder / "plain" / "index.html", 1280)
    return browser


def middle(page: Page, selector: str) -> tuple[float, float]:
    """Scroll an element into view; its middle in the window."""
    x, y = page.run(
        """(async () => {
            const e = document.querySelector('SELECTOR');
            e.scrollIntoView({block: 'center', behavior: 'instant'});
            for (let n = 0; n < 3; n++) await new Promise(requestAnimationFrame);
            const r = e.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2];
        })()""".replace("SELECTOR", selector)
    )
    return x, y


def split(page: Page) -> float:
    return float(page.run("getComputedStyle(document.querySelector('.stage')).getPropertyValue('--split')").rstrip("%"))


@pytest.mark.parametrize("name", ["plain", "nasty"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_nothing_overflows_complains_or_asks_a_network(
    browser: Page, folder: Path, tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    path = folder / name / "index.html"
    browser.open(path, width, dark=dark, touch=width < 500)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    outside = """[...document.querySelectorAll('body *')].filter(e => {
        const r = e.getBoundingClientRect();
        return r.width && !e.closest('.scroll, .stage') && (r.right > innerWidth + 1 || r.left < -1);
    }).map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"""
    assert browser.run(outside) == []
    small = """[...document.querySelectorAll('main *')].filter(e => e.children.length === 0 && e.textContent.trim()
        && parseFloat(getComputedStyle(e).fontSize) * (e.closest('svg') ? e.closest('svg').getScreenCTM().a : 1) < 8.9
    ).map(e => e.textContent)"""
    assert browser.run(small) == [], "too small to read"
    assert browser.run("window.hacked") is None
    assert browser.complaints == []
    assert {r for r in browser.requests if not r.startswith("data:image/")} == {path.as_uri()}
    browser.screenshot(tmp_path / "page.png", whole=False)
    shown = cv2.imread(str(tmp_path / "page.png"))
    assert shown.shape[1] >= width - 20
    assert (shown.mean() < 80) == dark
    assert shown.std() > 10


def test_the_pictures_are_seen(page: Page, tmp_path: Path) -> None:
    x, y = middle(page, ".stage")
    page.screenshot(tmp_path / "page.png", whole=False)
    shown = cv2.imread(str(tmp_path / "page.png"))[int(y) - 90 : int(y) - 30, int(x) - 200 : int(x) + 200]
    for half in (shown[:, :180], shown[:, 220:]):
        assert half.std() > 20, "noise, where nothing is plain"


def test_the_slider_moves_by_key_and_by_mouse(page: Page) -> None:
    assert split(page) == 50
    page.run("document.querySelector('.stage input').focus({preventScroll: true})")
    page.press("ArrowRight", 4)
    assert split(page) == 52
    page.press("Home")
    assert split(page) == 0
    x, y = middle(page, ".stage")
    page.mouse("mousePressed", x + 50, y, "left")
    page.mouse("mouseReleased", x + 50, y, "left")
    assert split(page) > 52
    shown = page.run("getComputedStyle(document.querySelector('.stage .over')).clipPath")
    assert shown.startswith("inset(0")
    assert page.complaints == []


def test_both_sides_and_the_frame_can_be_chosen(page: Page) -> None:
    state = """(() => { const s = document.querySelector('.stage'); const of = c => { const i = s.querySelector(c);
        return [i.dataset.side, i.dataset.frame, i.complete && i.naturalWidth]; };
        return [of('.over'), of('.under'), ...[...s.querySelectorAll('.badge')].map(b => b.textContent)]; })()"""
    assert page.run(state) == [["left", "0", 96], ["right", "0", 96], OURS, X265]
    choose = "(s => { s.value = '%s'; s.dispatchEvent(new Event('change')); })(document.querySelectorAll('select')[%d])"
    page.run(choose % ("source", 1))
    assert page.run(state) == [["left", "0", 96], ["source", "0", 96], OURS, "original"]
    page.run(choose % ("source", 0))
    assert page.run(state) == [["source", "0", 96], ["left", "0", 96], "original", OURS], "they change places"
    page.run("document.querySelectorAll('.compare button')[1].click()")
    assert page.run(state)[:2] == [["source", "1", 96], ["left", "1", 96]]
    captions = "[...document.querySelectorAll('.compare figcaption [data-frame]')].slice(0, 2).map(p => p.hidden)"
    assert page.run(captions) == [True, False]


def test_the_quality_measure_changes_all_over_the_page(page: Page) -> None:
    shown = "[...new Set([...document.querySelectorAll('[data-metric]:not([hidden])')].map(e => e.dataset.metric))]"
    assert page.run(shown) == ["psnr_yuv"]
    page.run("document.querySelector('[data-choose=ms_ssim_y]').click()")
    assert page.run(shown) == ["ms_ssim_y"]
    assert page.run("document.querySelector('[data-choose=ms_ssim_y]').getAttribute('aria-pressed')") == "true"
    assert page.run("document.querySelector('[data-choose=psnr_yuv]').getAttribute('aria-pressed')") == "false"


def test_a_codec_can_be_hidden(page: Page) -> None:
    hidden = """[...document.querySelectorAll('.series')].filter(s => s.style.display === 'none')
        .map(s => s.dataset.name)"""
    assert page.run(hidden) == []
    page.run("document.querySelectorAll('[data-codec]')[1].click()")
    assert set(page.run(hidden)) == {X265}
    page.run("document.querySelectorAll('[data-codec]')[1].click()")
    assert page.run(hidden) == []


def test_pointing_at_a_mark_tells_its_figures(page: Page) -> None:
    mark = "#curves figure:nth-child(1) div:not([hidden]) [data-told]"
    x, y = middle(page, mark)
    page.mouse("mouseMoved", x + 2, y + 1)
    told = page.run("document.getElementById('tip').textContent")
    assert told == page.run(f"document.querySelector({mark!r}).dataset.told")
    assert "bpp" in told
    box = page.run("(r => [r.left, r.right, r.top, r.bottom])(document.getElementById('tip').getBoundingClientRect())")
    assert 0 <= box[0] < box[1] <= 1280
    assert 0 <= box[2] < box[3] <= 900
    page.mouse("mouseMoved", 5, 5)
    assert page.run("document.getElementById('tip').hidden")
