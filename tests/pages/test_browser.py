"""The report and the case page in Chromium: nothing is loaded, one script runs, and without it the page is complete."""

import pytest
from page_browser import needs_chromium

from tests.pages import test_case

pytestmark = needs_chromium
CELLS = "tables => tables.map(table => [...table.rows].map(row => [...row.cells].map(cell => cell.textContent)))"
DRAWN = "images => images.every(image => image.complete && image.naturalWidth > 0)"


@pytest.fixture(scope="module")
def case_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    test_case.shown(folder, (test_case.MODEL, test_case.finding()))
    return folder / "case.html"


@pytest.fixture
def visit(browser):
    """Return a function that opens a file; at the end, nothing else was requested, and no error or dialog came up."""
    opened, requested, errors = [], [], []

    def visit(path, **options):
        page = browser.new_page(**options)
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.goto(path.as_uri())
        opened.append(page)
        return page

    yield visit
    addresses = {page.url for page in opened}
    for page in opened:
        page.close()
    assert addresses <= set(requested) and errors == []
    assert all(url in addresses or url.startswith("data:image/") for url in requested)


def rows(table, column):
    return [row.locator("td").nth(column).inner_text() for row in table.locator("tbody tr").all()]


def test_tables_are_sorted_by_keyboard_and_the_order_comes_back(report_page, visit):
    page = visit(report_page)
    table = page.locator("table", has=page.get_by_role("button", name="split")).first
    as_it_was, header = rows(table, 3), table.locator("th", has_text="files")
    for direction, expected in (("ascending", sorted(as_it_was, key=int)), ("descending", sorted(as_it_was, key=int)[::-1]),
                                (None, as_it_was)):  # fmt: skip
        header.get_by_role("button").press("Enter")
        assert header.get_attribute("aria-sort") == direction and rows(table, 3) == expected, direction
    failures = page.locator("table", has_text="reason12 ").first
    failures.locator("th", has_text="file").get_by_role("button").click()
    names = [name.partition("<")[0] for name in rows(failures, 0)]
    assert names == sorted(names, key=lambda name: int(name.removeprefix("broken"))), "10 comes after 9"
    sources = page.locator("table", has_text="mean over 2 sources")
    sources.get_by_role("button", name="source").click()
    assert sources.locator("tfoot tr").inner_text().startswith("mean over 2 sources of fakes"), "a mean is not sorted in"


def test_points_of_charts_and_bars_show_their_values(report_page, case_page, visit):
    for path, expected in ((report_page, "called fake from probability 0."), (case_page, "4 real test files, score 0 to 1")):
        page = visit(path)
        titles = page.locator("svg title").all_text_contents()
        number = next(number for number, text in enumerate(titles) if text.startswith(expected))
        page.locator("svg :has(> title)").nth(number).hover(force=True)
        shown = page.get_by_role("status")
        assert shown.inner_text() in titles and shown.inner_text().startswith(expected.split()[0])
        page.keyboard.press("Escape")
        assert not shown.is_visible()


def test_without_script_all_figures_and_tables_are_there(report_page, case_page, visit):
    for path in (report_page, case_page):
        plain, page = visit(path, java_script_enabled=False), visit(path)
        assert plain.locator("table").evaluate_all(CELLS) == page.locator("table").evaluate_all(CELLS)
        assert plain.locator("img").evaluate_all(DRAWN) and plain.locator("img").count() == page.locator("img").count() > 0
        assert plain.locator("svg title").count() > 0
        assert plain.get_by_role("button").count() == 0 < page.get_by_role("button").count()


def test_nothing_else_can_run(report_page, browser):
    """Even if a name were taken for markup: the policy stops handlers, scripts and frames that are put into the page."""
    page = browser.new_page()
    page.goto(report_page.as_uri())
    page.evaluate("""() => {
        const markup = '<img src=data:, onerror="ran = 1"><iframe srcdoc="<script>top.ran = 1</script>"></iframe>';
        document.body.insertAdjacentHTML("beforeend", markup);
        for (const text of ["ran = 1", "fetch('http://localhost:1')"])
            document.body.append(Object.assign(document.createElement("script"), { textContent: text }));
    }""")
    page.wait_for_timeout(100)
    assert page.evaluate("typeof ran") == "undefined" and page.evaluate("document.querySelectorAll('body > script').length") == 3
    assert page.evaluate("document.querySelector('th button') !== null"), "the page's own script did run"
    page.close()


@pytest.mark.parametrize("width", [1100, 400])
def test_the_page_fits_its_window_and_is_dark_at_night(report_page, case_page, visit, width):
    for path in (report_page, case_page):
        page = visit(path, viewport={"width": width, "height": 800}, color_scheme="dark")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 25, 30)"
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
