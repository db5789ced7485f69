"""What small windows show of the page, and its address while it is paused."""

import pytest

from bench.chromium import OPEN, Page
from particle_grid.browser import page
from particle_grid.runs.load import shipped_tasks
from tests.browser.test_page import GROUP, change, press, visit
from tests.cases import needs_browser

pytestmark = needs_browser


@pytest.fixture
def browser(tmp_path):
    path = tmp_path / "page.html"
    page.write(path, shipped_tasks(), [])
    with Page(path.as_uri(), tmp_path / "profile") as opened:
        yield opened
        assert not opened.errors


def resize(browser, width, height):
    browser("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)


def test_the_address_follows_a_choice_while_the_page_is_paused(browser):
    visit(browser, f"{GROUP}&t=1")
    change(browser, "seed", "17")
    assert "seed=17" in browser.run("location.hash")
    press(browser, "#tasks button[value=scatter]")
    browser.until(f"page.state.task.name === 'scatter' && {OPEN}")
    assert "task=scatter" in browser.run("location.hash")


def test_a_low_window_introduces_the_gallery(browser):
    resize(browser, 1200, 713)
    assert browser.run("document.querySelector('header p').getBoundingClientRect().height") > 0


def test_a_phone_shows_the_task_in_its_row(browser):
    resize(browser, 390, 844)
    visit(browser, "task=scatter")
    left, right = browser.run(
        """(() => { const { left, right } = document.querySelector("[value=scatter]").getBoundingClientRect();
        return [left, right]; })()"""
    )
    assert left >= 0
    assert right <= 390
