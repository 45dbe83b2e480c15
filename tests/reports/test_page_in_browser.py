"""The page of `compare` as a person uses it: in a real Chromium, by mouse and keys, small and wide, light and dark."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import call, photo
from tests.reports.runs import blurred, rows, write_crops, write_run, write_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDE, PHONE = (1600, 900), (390, 844)
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright, from the extra 'test'")
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root has no sandbox
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ratios with two seeds each, one run that broke off, one that cannot be read."""
    folder = tmp_path_factory.mktemp("report")
    crops = [photo(96, 96, seed) for seed in (1, 2)]
    write_study(folder / "runs", crops, num_runs=5, num_rows=40, num_steps=4)
    lines = rows(20)
    killed = write_run(folder / "runs/<b>killed<br>", config={"train": {"g_per_d": 8}}, metrics=lines)
    for number, hr in enumerate(crops):
        write_crops(killed, f"photo{number}", hr, {500: blurred(hr, 0.9)})
    (folder / "runs/broken").mkdir()
    (folder / "runs/broken/config.yaml").write_text("train: [")
    done = call("compare", folder / "runs", "-o", folder / "report.html")
    assert done.code == 0, done.err
    return folder / "report.html"


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens a page; at the end, none may have asked for anything, or had anything to complain of."""
    faults: list[str] = []
    contexts = []

    def start(path: Path, size: tuple[int, int] = WIDE, *, theme: Any = "light", touch: bool = False) -> Page:
        view: Any = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=view, color_scheme=theme, has_touch=touch, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url == path.as_uri() or request.url.startswith(("data:", "blob:"))
                else faults.append(f"asked for {request.url}")
            ),
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield start
    for context in contexts:
        context.close()
    assert faults == []


def value(page: Page) -> float:
    return float(page.locator("img-comparison-slider").evaluate("slider => slider.value"))


def lines(page: Page, key: str) -> int:
    plot = page.locator(f'.plot[data-curve="{key}"]')
    plot.scroll_into_view_if_needed()
    page.wait_for_function("key => document.querySelector(`.plot[data-curve='${key}']`).dataset.lines", arg=key)
    return int(plot.get_attribute("data-lines") or -1)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_nothing_overflows(opened: Open, report: Path, size: tuple[int, int], theme: str) -> None:
    page = opened(report, size, theme=theme)
    for section in ("runs", "seeds", "images", "tradeoff", "curves", "notes"):
        page.locator(f"#{section}").scroll_into_view_if_needed()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], section
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") != theme


def test_the_table_says_what_the_runs_say(opened: Open, report: Path) -> None:
    page = opened(report)
    table = page.locator("#run-table tbody")
    assert table.locator("tr").count() == 7
    assert "<b>killed<br>" in table.inner_text(), "a name is text"
    assert table.locator(".state.broken").count() == 1
    assert table.locator(".state.crashed").count() == 1
    assert "30.00" in table.locator("td.best").first.inner_text() or table.locator("td.best").count() >= 3
    page.get_by_role("button", name="step", exact=True).click()
    assert page.locator("#run-table th[aria-sort=ascending]").inner_text() == "step"
    first = page.locator("#run-table tbody tr").nth(1)
    assert "<b>killed<br>" in first.inner_text(), "1,000 steps, after the broken one's 0"
    page.get_by_role("button", name="step", exact=True).click()
    assert "<b>killed<br>" not in page.locator("#run-table tbody tr").first.inner_text()
    assert "±" in page.locator("#seed-table").inner_text()
    assert "killed, most likely" in page.locator("#note-list").inner_text()


def test_the_divider_moves_by_mouse_and_keys(opened: Open, report: Path) -> None:
    page = opened(report)
    slider = page.locator("img-comparison-slider")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, middle, steps=5)
    page.mouse.up()
    assert value(page) == pytest.approx(20, abs=2)
    assert slider.get_attribute("aria-valuenow") == str(round(value(page)))
    slider.focus()
    before = value(page)
    page.keyboard.down("ArrowRight")
    page.wait_for_function("before => document.querySelector('img-comparison-slider').value > before + 3", arg=before)
    page.keyboard.up("ArrowRight")
    for key, end in (("End", 100), ("Home", 0)):
        page.keyboard.press(key)
        assert value(page) == end
        assert slider.get_attribute("aria-valuenow") == str(end)


def test_the_scrubber_moves_all_crops_by_mouse_and_keys(opened: Open, report: Path) -> None:
    page = opened(report)
    grid = page.locator("#grid figure")

    def steps() -> list[str]:
        return [one.inner_text() for one in page.locator("#grid figcaption .at").all()]

    assert grid.count() == 3 + 6, "HR, bicubic, LR, and the runs that have crops"
    last = steps()
    sources = [image.get_attribute("src") for image in page.locator("#grid img").all()]
    page.focus("#scrubber")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#scrubber-step").inner_text() == "1,500"
    assert steps() != last
    assert "500" in steps(), "the newest crop of a run that broke off"
    assert [image.get_attribute("src") for image in page.locator("#grid img").all()] != sources
    page.locator("#scrubber").click(position={"x": 2, "y": 8})
    assert page.locator("#scrubber-step").inner_text() == "500"
    page.select_option("#image-controls select", "1")
    assert page.locator("#scrubber-step").inner_text() == "2,000"


def test_crops_zoom_and_move_together(opened: Open, report: Path) -> None:
    page = opened(report)

    def transforms() -> set[str]:
        images = "[...document.querySelectorAll('#grid img, #stage img')]"
        return set(page.evaluate(f"{images}.map(image => image.style.transform)"))

    page.click("#zoom-in")
    assert page.locator("#zoom-value").inner_text().startswith("1.5")
    (centred,) = transforms()
    box = page.locator("#grid .frame").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 20, box["y"] + 30, steps=3)
    page.mouse.up()
    (moved,) = transforms()
    assert moved != centred
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.wait_for_function("document.querySelector('#zoom-value').textContent.startsWith('1.5') === false")
    page.click("#zoom-reset")
    assert page.locator("#zoom-value").inner_text().startswith("1.0")
    assert len(transforms()) == 1


def test_blinking_and_the_difference(opened: Open, report: Path) -> None:
    page = opened(report)
    page.keyboard.press("b")
    which = page.locator("#blink-which")
    first = which.inner_text()
    assert first.startswith("A: ")
    page.keyboard.press("b")
    assert which.inner_text().startswith("B: ")
    page.click("#blink")
    assert which.inner_text() == first
    page.get_by_role("button", name="Difference").click()
    brightness = (
        "() => { const canvas = document.getElementById('difference');"
        " return canvas?.dataset.done ? canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
        ".data.reduce((sum, value, at) => at % 4 === 3 ? sum : sum + value, 0) + 1 : 0; }"
    )
    different = page.wait_for_function(brightness).json_value()
    assert different > 1
    page.locator("#versus-controls select").nth(0).select_option("hr")
    page.locator("#versus-controls select").nth(1).select_option("hr")
    assert page.wait_for_function(brightness).json_value() == 1, "HR does not differ from itself"


def test_curves_toggle_and_change_their_axes(opened: Open, report: Path) -> None:
    page = opened(report)
    assert lines(page, "g/total") == 6
    chip = page.locator("#legend button", has_text="killed")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert lines(page, "g/total") == 5
    assert page.locator("#run-table tr.off").count() == 2, "hidden everywhere, as is the broken one"
    assert page.locator("#grid figure").count() == 3 + 5
    chip.click()
    assert lines(page, "g/total") == 6
    for name in ("images", "hours", "log"):
        page.get_by_role("button", name=name, exact=True).and_(page.locator("#curve-controls button")).click()
        assert lines(page, "g/total") == 6
    page.locator("#curve-controls").get_by_role("button", name="mean ± sd").click()
    assert lines(page, "g/total") == 3, "one for each group"
    page.focus("#smoothing")
    page.keyboard.press("End")
    assert page.locator("output[for=smoothing]").inner_text() == "0.99"
    canvas = page.locator('.plot[data-curve="g/total"] .u-over')
    canvas.hover()
    page.wait_for_function("document.querySelector('.plot[data-curve=\"g/total\"] .read').textContent.includes(':')")


def test_the_scatter_has_a_path_for_each_run(opened: Open, report: Path) -> None:
    page = opened(report)
    assert page.locator("#scatter polyline").count() == 6
    assert "PSNR-Y" in (page.locator("#scatter svg").get_attribute("aria-label") or "")


def test_tables_are_saved_as_csv(opened: Open, report: Path, tmp_path: Path) -> None:
    page = opened(report)
    found = {}
    for name in ("runs", "curves"):
        with page.expect_download() as download:
            page.click(f"#csv-{name}")
        assert download.value.suggested_filename == f"{name}.csv"
        download.value.save_as(tmp_path / name)
        with (tmp_path / name).open(newline="") as file:
            found[name] = list(csv.DictReader(file))
    assert len(found["runs"]) == 7
    by_name = {row["name"]: row for row in found["runs"]}
    assert by_name["<b>killed<br>"]["train.g_per_d"] == "8"
    assert float(by_name["n1-rate0.0001-seed0"]["val/psnr_y last"]) == pytest.approx(
        rows(40, seed=0)[-1]["val/psnr_y"], rel=1e-4
    )
    assert len(found["curves"]) == 5 * 40 + 20
    assert {"run", "step", "images", "hours", "g/total", "val/psnr_y"} <= found["curves"][0].keys()


def test_one_run_that_measured_nothing(opened: Open, tmp_path: Path) -> None:
    write_run(tmp_path / "run", metrics=[{"step": 1, "g/total": 1.0}])
    assert call("compare", tmp_path / "run", "-o", tmp_path / "report.html").code == 0
    page = opened(tmp_path / "report.html", PHONE, touch=True)
    for section in ("seeds", "images", "tradeoff"):
        assert not page.locator(f"#{section}").is_visible()
    assert lines(page, "g/total") == 1


def test_fifty_runs_load(opened: Open, tmp_path: Path) -> None:
    write_study(tmp_path / "runs", [photo(64, 64, 1)], num_runs=50, num_rows=60, num_steps=2)
    assert call("compare", tmp_path / "runs", "-o", tmp_path / "report.html").code == 0
    page = opened(tmp_path / "report.html")
    assert page.locator("#run-table tbody tr").count() == 50
    assert lines(page, "g/total") == 50
    page.click("#theme")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDE[0]


def test_a_colour_is_an_experiment_and_a_dash_a_seed(opened: Open, report: Path) -> None:
    page = opened(report)

    def look(name: str) -> tuple[str | None, str | None]:
        line = page.locator("#run-table tbody tr", has_text=name).locator(".swatch line")
        return line.get_attribute("stroke"), line.get_attribute("stroke-dasharray")

    one, two, other = map(look, ("n1-rate0.0001-seed0", "n1-rate0.0001-seed1", "n2-rate0.0001-seed0"))
    assert one[0] == two[0] != other[0]
    assert one[1] != two[1]


def test_pictures_stay_while_the_scrubber_moves(opened: Open, report: Path) -> None:
    page = opened(report)
    page.evaluate("window.before = [...document.querySelectorAll('#grid img')]")
    page.focus("#scrubber")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("window.before.every(image => image.isConnected)"), "new ones would flicker"


def test_paper_is_white_and_has_every_curve(opened: Open, report: Path) -> None:
    page = opened(report, theme="dark")
    plots = page.locator(".plot").count()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".plot[data-lines]").count() == plots
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert len(page.pdf()) > 10_000
