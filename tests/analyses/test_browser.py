"""Reports in a real browser: nothing is fetched, nothing fails, and what can be pressed does what it says."""

import os
import shutil

import evals_logs as logs
import numpy as np
import pytest
from small_runs import SMALL

pytestmark = [pytest.mark.browser]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as running:
        # As root, as in containers, Chromium starts without its sandbox alone.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        try:
            opened = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        except playwright.Error as error:
            pytest.skip(f"Chromium does not start here: {error.message.splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def opened(browser):
    """Return a function that opens a report, and check at the end that nothing was fetched or failed."""
    said, fetched, pages = [], [], []

    def open_page(path, **options):
        page = browser.new_page(viewport={"width": 1200, "height": 900}, **options)
        page.on("console", lambda message: said.append((message.type, message.text)))
        page.on("pageerror", lambda error: said.append(("error", str(error))))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(f"file://{path}")
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [text for kind, text in said if kind in ("error", "warning")] == []
    assert [url for url in fetched if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in fetched if url.startswith("file:")]) == len(pages)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    from typer.testing import CliRunner

    from analyses.cli import app

    folder = tmp_path_factory.mktemp("report")
    done = CliRunner().invoke(app, ["compare", "sft", "reverse_kl", *SMALL, "--out", str(folder / "out")])
    assert done.exit_code == 0
    return folder / "out" / "report.html"


def visible(page, name):
    """Return how many traces of a name are drawn in all figures."""
    return page.evaluate(
        """name => [...document.querySelectorAll('.plot')].flatMap(plot => plot.data || [])
        .filter(trace => trace.legendgroup === name && trace.visible !== false).length""",
        name,
    )


def test_an_objective_is_switched_off_in_all_figures_at_once(opened, compared):
    page = opened(compared)
    assert visible(page, "sft") > 2
    assert page.locator("figure img:visible").count() == 0
    page.get_by_label("sft", exact=True).uncheck()
    page.wait_for_function("document.querySelectorAll('.plot')[0].data.some(t => t.visible === false)")
    assert visible(page, "sft") == 0
    assert visible(page, "reverse_kl") > 2
    # By the keyboard, too.
    page.get_by_label("sft", exact=True).press("Space")
    page.wait_for_function("!document.querySelectorAll('.plot')[0].data.some(t => t.visible === false)")
    assert visible(page, "sft") > 2


def test_the_slider_reads_figures_off_at_a_step(opened, compared):
    page = opened(compared)
    slider = page.locator("#step")
    assert page.locator("#step-value").inner_text() == "12"
    slider.press("ArrowLeft")
    assert page.locator("#step-value").inner_text() == "8"
    rows = page.locator(".readout").first.locator("tr")
    told = dict(zip(*(rows.locator(f"td:nth-child({i})").all_inner_texts() for i in (1, 3)), strict=True))
    assert set(told) == {"sft", "reverse_kl"}
    assert "[" in told["sft"]
    slider.press("Home")
    assert page.locator("#step-value").inner_text() == "0"
    assert rows.first.locator("td:nth-child(3)").inner_text().startswith("0.9")


def test_a_table_is_sorted_by_a_heading_and_downloads(opened, compared):
    page = opened(compared)
    heading = page.locator("th", has=page.get_by_role("button", name="old weight, β"))
    place = page.evaluate("cell => [...cell.parentElement.children].indexOf(cell)", heading.element_handle())
    for order in ("ascending", "descending"):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == order
        values = page.evaluate(
            """place => [...document.querySelectorAll('table.sortable tbody tr')]
            .map(row => Number(row.children[place].dataset.value))""",
            place,
        )
        assert values == sorted(values, reverse=order == "descending")
    with page.expect_download() as download:
        page.get_by_text("Download as CSV").click()
    assert download.value.path().read_text() == (compared.parent / "summary.csv").read_text()


def test_it_is_dark_where_the_reader_is_and_prints_its_drawings(opened, compared, tmp_path):
    page = opened(compared, color_scheme="dark")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in paper[4:-1].split(",")) < 60
    assert page.evaluate("document.querySelector('.plot').layout.paper_bgcolor") == "#0d1117"
    page.screenshot(path=tmp_path / "dark.png", full_page=True)
    page.emulate_media(media="print", color_scheme="light")
    assert page.locator("figure img:visible").count() == 4
    assert page.locator(".plot:visible").count() == 0
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000


def test_without_scripts_the_drawings_stand(browser, compared):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"file://{compared}")
    assert page.locator("figure img:visible").count() == 4
    assert page.locator("#controls:visible").count() == 0
    page.close()


@pytest.mark.slow
def test_reports_of_other_commands_work_too(opened, massdrift, tmp_path):
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(300, 2)), rng.normal([4.0, 0.0], size=(300, 2))
    run = np.stack(
        [
            np.concatenate([rng.normal(size=(n, 2)), rng.normal([4.0, 0.0], size=(200 - n, 2))])
            for n in (150, 50)
        ]
    )
    for name, samples in (("old", old), ("new", new), ("run", run)):
        np.save(tmp_path / f"{name}.npy", samples)
    references = ["--old-reference", tmp_path / "old.npy", "--new-reference", tmp_path / "new.npy"]
    for name in ("one", "two"):
        done = massdrift("measure", tmp_path / "run.npy", *references, "--out", tmp_path / name, "--quiet")
        assert done[0] == 0
    assert massdrift("compare-runs", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both")[0] == 0
    assert massdrift("plan", "--out", tmp_path / "plan", "--quiet")[0] == 0
    assert massdrift("report", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "side.html")[0] == 0
    for name, figures in (("one", 3), ("both", 1), ("plan", 1)):
        page = opened(tmp_path / name / "report.html")
        assert page.locator(".plot:visible").count() == figures
    page = opened(tmp_path / "side.html")
    assert page.locator(".plot:visible").count() == 6


@pytest.mark.slow
def test_the_report_of_evaluations_works_too(opened, massdrift, tmp_path):
    for arm, answers in zip(("base", "sft"), logs.two_runs(40), strict=True):
        logs.lm_eval(tmp_path / arm, answers)
    run = ["evals", tmp_path / "base", "--run", f"sft={tmp_path / 'sft'}", "--quiet"]
    assert massdrift(*run, "--out", tmp_path / "out")[0] == 0
    page = opened(tmp_path / "out" / "report.html")
    assert page.locator(".plot:visible").count() == 2
    assert "accuracy changes by" in page.locator("#answer").inner_text()


@pytest.mark.slow
def test_the_report_of_a_sequence_works_too(opened, massdrift, tmp_path):
    small = ["--num-steps=20", "--num-replicates=4", "--batch-size=16", "--quiet"]
    assert massdrift("sequence", "sft", "reverse_kl", *small, "--out", tmp_path / "out")[0] == 0
    page = opened(tmp_path / "out" / "report.html")
    assert page.locator(".plot:visible").count() == 4
    page.locator("#step").press("Home")
    assert page.locator("#step-value").inner_text() == "0"
