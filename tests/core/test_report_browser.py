"""The report in a real browser: wide, narrow, light, dark; no error, no outside request."""

import pytest

from core.folders import checked, fill_suite
from mponet.files import write_json
from mponet.report import report


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    home = tmp_path_factory.mktemp("report")
    fill_suite(home, ["fc2:4"], seeds=1)
    write_json(home / "crosscheck.json", checked())
    write_json(home / "bench.json", {"rows": [{"backend": "torch", "model": "vgg16", "ratio": 1.02}]})
    path = home / "report.html"
    path.write_text(report(home), encoding="utf-8")
    return path


@pytest.fixture(params=[(1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")], ids=lambda look: f"{look}")
def page(request, browser, file):
    """The page opened from a file; any error or request of the page fails the test."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    noted = []
    opened.on("console", lambda message: noted.append(message.text))
    opened.on("pageerror", lambda error: noted.append(str(error)))
    opened.on("request", lambda request: noted.append(request.url) if request.url != file.as_uri() else None)
    opened.goto(file.as_uri())
    yield opened, width, scheme
    context.close()
    assert noted == []


def test_it_fits_its_screen_and_follows_its_scheme(page):
    opened, width, scheme = page
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)")
    pictures = opened.locator("svg.chart")
    assert pictures.count() >= 8
    for number in range(pictures.count()):
        box = pictures.nth(number).bounding_box()
        assert 300 < box["width"] <= width and box["height"] > 80


def test_letters_are_large_enough_to_read_and_stay_in_their_picture(page):
    opened, _, _ = page
    smallest, outside = opened.evaluate(
        """() => {
            let smallest = 99, outside = []
            for (const picture of document.querySelectorAll("svg.chart")) {
                const frame = picture.getBoundingClientRect()
                const scale = frame.width / picture.viewBox.baseVal.width
                for (const text of picture.querySelectorAll("text")) {
                    const box = text.getBoundingClientRect()
                    smallest = Math.min(smallest, scale * parseFloat(getComputedStyle(text).fontSize))
                    if (box.left < frame.left - 2 || box.right > frame.right + 8) outside.push(text.textContent)
                }
            }
            return [smallest, outside]
        }"""
    )
    assert smallest > 8
    assert outside == []


def test_every_link_leads_to_its_section(page):
    opened, _, _ = page
    links = opened.locator("nav a")
    assert links.count() == 8
    for number in range(links.count()):
        links.nth(number).click()
        target = opened.evaluate("location.hash")
        assert opened.locator(target).is_visible()
