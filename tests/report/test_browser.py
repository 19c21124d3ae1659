"""The page in a real browser, where there is one."""

import pytest

from flopbench.report.result import Result
from tests.support import browser
from tests.support.runs import CPU, make_run

pytestmark = pytest.mark.skipif(browser.BINARY is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    runs = [
        make_run(folder / "vit-h200", batch_sizes=(1, 64), pairs=("vit_s16.flop", "vit_b16.flop")),
        make_run(
            folder / "a-run-with-a-rather-long-name-that-must-not-widen-the-page-of-a-phone",
            device=CPU,
            pairs=("vit_s16.flop",),
            batch_sizes=(1, 4),
            statuses={"*/b4/backward/*": "oom"},
            reason="out_of_memory_in_one_word_" * 8,
        ),
    ]
    files = Result(runs).report(folder / "reports")
    with browser.page() as tab:
        tab.open(files.html)
        yield tab


def test_it_opens_without_errors_or_requests(page):
    assert page.run("document.title") == "Vision transformers · flopbench"
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("data:")] == page.requests[:1]
    assert page.requests[0].startswith("file:")


@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_does_not_overflow(page, width, dark):
    page.resize(width)
    page.dark(dark)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    inside = (
        "[...document.querySelectorAll('main > section, main > p, header, nav, .scroll, .panel')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert page.run(inside) == 0


def test_dark_and_light_differ_and_are_legible(page):
    colours = []
    for dark in (False, True):
        page.dark(dark)
        paper, ink = page.run(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        assert contrast(paper, ink) > 7
        words = page.run("getComputedStyle(document.querySelector('.panel svg text')).fill")
        behind = page.run("getComputedStyle(document.querySelector('.panel svg path')).fill")
        assert contrast(behind, words) > 7
        assert behind == paper
        colours.append(paper)
    assert colours[0] != colours[1]


def test_tables_sort_by_click_and_say_so(page):
    tables = "[...document.querySelectorAll('table.sortable')]"
    table = f"{tables}.find(t => t.tHead.innerText.includes('speed-up'))"
    header = f"[...{table}.tHead.rows[0].cells].find(c => c.innerText.includes('speed-up'))"
    column = f"{header}.cellIndex"
    values = f"[...{table}.tBodies[0].rows].map(r => r.cells[{column}].dataset.sort).map(Number)"
    before = page.run(values)
    assert page.run(f"{header}.getAttribute('aria-sort')") is None
    page.run(f"{header}.querySelector('button').click()")
    assert page.run(f"{header}.getAttribute('aria-sort')") == "ascending"
    assert page.run(values) == sorted(before)
    page.run(f"{header}.querySelector('button').click()")
    assert page.run(f"{header}.getAttribute('aria-sort')") == "descending"
    assert page.run(values) == sorted(before, reverse=True)
    first = f"{table}.tHead.rows[0].cells[1]"
    page.run(f"{first}.querySelector('button').click()")
    assert page.run(f"{header}.getAttribute('aria-sort')") is None
    names = page.run(f"[...{table}.tBodies[0].rows].map(r => r.cells[1].innerText)")
    assert names == sorted(names)


def test_missing_figures_sort_last(page):
    # The first is the environment's.
    table = "document.querySelectorAll('table.sortable')[1]"
    button = f"{table}.tHead.rows[0].querySelectorAll('button')[3]"
    for _ in range(2):
        page.run(f"{button}.click()")
        shown = page.run(f"[...{table}.tBodies[0].rows].map(r => r.cells[3].dataset.sort)")
        filled = [value for value in shown if value]
        assert shown[: len(filled)] == filled


def test_pictures_have_names_and_what_scrolls_can_be_reached_by_keyboard(page):
    every = "[...document.querySelectorAll('{}')].every({})"
    assert page.run(every.format(".panel", "p => p.getAttribute('aria-label') && p.tabIndex === 0"))
    assert page.run(every.format(".scroll", "s => s.tabIndex === 0"))
    assert page.run(every.format(".sortable thead th", "h => h.querySelector('button')"))


def test_rows_have_headers_that_stay_in_sight(page):
    page.resize(390)
    scroll = "[...document.querySelectorAll('.scroll')].find(s => s.ariaLabel.startsWith('Speed-ups'))"
    header = f"{scroll}.querySelector('tbody th[scope=row]')"
    before = page.run(f"{header}.getBoundingClientRect().left")
    page.run(f"{scroll}.scrollLeft = 200")
    assert page.run(f"{scroll}.scrollLeft") == 200
    assert page.run(f"{header}.getBoundingClientRect().left") == before
    rows = "[...document.querySelectorAll('tbody tr')]"
    assert page.run(f"{rows}.every(r => r.querySelectorAll('th[scope=row]').length === 1)")


def test_pictures_are_legible_on_a_phone_without_scrolling(page):
    page.resize(390)
    shown = "[...document.querySelectorAll('.panel svg')].filter(s => s.getBoundingClientRect().width)"
    assert page.run(f"{shown}.length") == page.run("document.querySelectorAll('.panel').length")
    assert page.run(f"{shown}.every(s => s.parentElement.scrollWidth <= s.parentElement.clientWidth)")
    # Pixels of the smallest letters: the size that they were drawn in, times what the picture is scaled by.
    smallest = (
        f"Math.min(...{shown}.flatMap(s => [...s.querySelectorAll('text')]"
        ".map(t => [parseFloat(getComputedStyle(t).fontSize), t.getScreenCTM()])"
        ".map(([size, matrix]) => size * Math.hypot(matrix.a, matrix.b))))"
    )
    assert page.run(smallest) > 8
    page.resize(1280)
    assert page.run(f"{shown}.length") == page.run("document.querySelectorAll('.panel').length")


def test_print_cuts_nothing(page):
    # A4 less its margins, in CSS pixels.
    page.resize(688)
    page.media("print")
    try:
        parts = (
            "[...document.querySelectorAll('table, .panel svg, pre')].filter(e => e.getClientRects().length)"
        )
        assert page.run(f"{parts}.length") > 5
        assert page.run(f"{parts}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).length") == 0
    finally:
        page.media("")


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two `rgb(…)` colours."""
    lights = sorted(map(luminance, (one, other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
