"""The page of a network in a real browser: fold, search, hover, keys; no outside request."""

import pytest

from mponet.draw import save
from mponet.models import build


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "densenet.html"
    save(build("densenet40-12-conv"), path)
    return path


@pytest.fixture(params=[(1400, "light"), (400, "dark")], ids=["wide-light", "narrow-dark"])
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
    yield opened
    context.close()
    assert noted == []


def layer(page, name):
    return page.locator(f"details.layer[data-name='{name}']")


def is_open(page, name):
    return layer(page, name).evaluate("layer => layer.open")


def focused(page):
    return page.evaluate("document.activeElement.parentElement.dataset.name")


def test_the_page_fits_the_screen_and_its_ground_follows_it(page):
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if width == 1400 else "rgb(20, 23, 28)")
    shown = page.locator("details.operator svg:visible")
    assert shown.count() == 2  # one of the two widths of each operator
    assert all(shown.nth(k).bounding_box()["width"] <= width for k in range(2))


def test_blocks_that_stand_for_several_begin_folded(page):
    assert not is_open(page, "block1_layer1..12")
    assert is_open(page, "block3_layer12")
    assert is_open(page, "fc")
    assert not page.locator("details[data-name='block1_layer1..12'] .inside").first.is_visible()


def test_fold_and_unfold(page):
    summary = layer(page, "block1_layer1..12").locator("> summary")
    summary.click()
    assert is_open(page, "block1_layer1..12")
    assert layer(page, "block1_layer1..12").get_by_text("one behind the other").is_visible()
    summary.click()
    assert not is_open(page, "block1_layer1..12")
    page.get_by_role("button", name="Unfold all").click()
    assert page.locator("details.layer:not([open])").count() == 0
    page.get_by_role("button", name="Fold all", exact=True).click()
    assert page.locator("details.layer[open]").count() == 0


def test_search_unfolds_to_what_it_finds_and_gives_back_what_was(page):
    page.keyboard.press("/")
    page.keyboard.type("block2_layer7_conv")
    hit = page.locator("details.layer.hit")
    assert hit.count() == 1
    assert hit.is_visible()
    assert is_open(page, "block2_layer1..12")
    assert page.locator("#found").inner_text().startswith("1 of ")
    page.keyboard.press("Enter")
    assert page.locator("#found").inner_text() == "1 of 1: conv"
    assert not is_open(page, "block1_layer1..12")  # the first letters alone had unfolded it
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.parentElement.classList.contains('hit')")
    page.keyboard.press("Escape")
    assert page.locator("details.layer.hit, details.layer.miss").count() == 0
    assert not is_open(page, "block2_layer1..12")


def test_search_goes_from_hit_to_hit(page):
    page.locator("#search").fill("mpo")
    assert page.locator("details.layer.hit").count() == 2
    found = []
    for key in ("Enter", "Enter", "Enter", "Shift+Enter"):
        page.locator("#search").press(key)
        found.append(page.locator("#found").inner_text())
    assert found == ["1 of 2: conv", "2 of 2: fc", "1 of 2: conv", "2 of 2: fc"]
    page.locator("#search").fill("nothing like it")
    assert page.locator("#found").inner_text().startswith("0 of ")


def test_hovering_shows_shapes(page):
    tip = page.locator("#tip")
    assert not tip.is_visible()
    layer(page, "fc").locator("> summary").hover()
    assert tip.inner_text().startswith("fc: 448 → 10; fc/core1 1x4x1x4")
    layer(page, "fc").locator("svg:visible .node").nth(1).hover()
    assert tip.inner_text() == "core2: bond1 4, in2 4, out2 5, bond2 4; 320 numbers"
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= page.viewport_size["width"]
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_everything_can_be_done_by_keyboard(page):
    layer(page, "conv").first.locator("> summary").focus()
    page.keyboard.press("ArrowDown")
    assert focused(page) == "block1_layer1..12"
    assert page.locator("#tip").is_visible()
    page.keyboard.press("ArrowRight")
    assert is_open(page, "block1_layer1..12")
    page.keyboard.press("ArrowDown")
    assert focused(page) == "bn"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert not is_open(page, "block1_layer1..12")
    page.keyboard.press("Enter")
    assert is_open(page, "block1_layer1..12")
    page.keyboard.press("End")
    assert focused(page) == "fc"
    page.keyboard.press("Home")
    assert focused(page) == "conv"


def test_a_name_that_is_a_program_does_nothing(browser, tmp_path):
    from mponet.models.spec import Dense, Flatten, Model

    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    path = tmp_path / "evil.html"
    save(Model(evil, "dense", None, (1, 1, 4), (Flatten(), Dense(evil, 2)), evil), path)
    opened = browser.new_page()
    said = []
    opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
    opened.goto(path.as_uri())
    opened.locator("details.layer > summary").nth(1).hover()
    assert evil in opened.locator("#tip").inner_text()
    assert said == []
    opened.close()


def test_a_network_in_a_notebook_folds_within_its_frame(browser):
    opened = browser.new_page()
    said = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.set_content(f"<!DOCTYPE html><p id='cell'>Out[1]:</p>{build('lenet5')._repr_html_()}")
    frame = opened.frame_locator("iframe")
    frame.locator("#search").fill("mpo")
    assert frame.locator("details.layer.hit").count() == 3
    frame.get_by_role("button", name="Fold all", exact=True).click()
    assert frame.locator("details.layer[open]").count() == 0
    assert opened.evaluate("getComputedStyle(document.getElementById('cell')).color") == "rgb(0, 0, 0)"
    assert said == []
    opened.close()
