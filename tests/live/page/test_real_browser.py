"""The page of a real watcher in headless Chromium."""

import re

from eventful.live.page import serve
from tests.live.conftest import until
from tests.live.page.test_browser import chromium, expect, fact, tab, tile  # noqa: F401
from tests.live.page.test_real import network

# How much of a picture has the colour of boxes and masks.
ORANGE = """image => {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) count += data[at] - data[at + 2] > 60;
    return count / (data.length / 4);
}"""


def test_real_cameras_are_seen_steered_added_and_removed(chromium, running, sender):  # noqa: F811
    run = running(policy="auto:0.4")
    run.watcher._models._build = network
    one, away = sender(), sender()
    away.kill()
    run.watcher.add("front", one.url)
    run.watcher.add("away", away.url)
    run.start()
    run.more("front", 5)
    with serve(run.watcher, port=0, allow=("http",)) as page, tab(chromium, page) as opened:
        front = tile(opened, "front")
        expect(front.locator(".state")).to_have_text("● live")
        expect(tile(opened, "away").locator(".state")).to_contain_text(re.compile("waiting|conn"))
        expect(tile(opened, "away").locator(".reason")).to_have_text("Connection refused")
        image = front.locator("img")
        expect(image).to_be_visible()
        assert 0.2 < image.evaluate(ORANGE) < 0.6
        first = image.get_attribute("src")
        expect(image).not_to_have_attribute("src", first)  # it is renewed
        expect(fact(front, "share")).to_have_text(re.compile(r"\d+ %"))

        opened.get_by_role("slider", name="Budget").press("ArrowRight")
        until(lambda: run.watcher.status().policy == "auto:0.42")
        opened.get_by_role("slider", name="Error target").press("Home")
        until(lambda: run.watcher.status().policy == "error:0.01")
        run.more("front", 5)
        assert run.camera("front").failed == 0
        expect(opened.locator("#policy")).to_have_text("holds an error of 0.01")

        front.locator("h2 a").click()
        dialog = opened.get_by_role("dialog", name="front")
        expect(dialog.locator("path.latency_ms")).to_have_attribute("d", re.compile("L.*L.*L"))
        expect(fact(dialog, "size")).to_have_text("96 \u00d7 64")
        opened.keyboard.press("Escape")

        opened.get_by_text("Add a camera").click()
        opened.get_by_label("Name").fill("porch")
        opened.get_by_label("Source").fill(one.url.replace("//", "//me:s3cr3t@"))
        opened.keyboard.press("Enter")
        expect(tile(opened, "porch").locator(".state")).to_have_text("● live")
        expect(tile(opened, "porch").locator("img")).to_be_visible()
        tile(opened, "porch").locator("h2 a").click()
        expect(opened.locator("#large-source")).to_contain_text("//***@")
        assert "s3cr3t" not in opened.content()
        opened.get_by_role("button", name="Remove this camera").click()
        opened.get_by_role("button", name="Press again to remove it").click()
        expect(opened.locator(".tile")).to_have_count(2)
        assert [camera.name for camera in run.watcher.status().cameras] == ["front", "away"]

        run.end()
        expect(opened.locator("#link")).to_have_text("▲ the watch has ended")
        expect(front.locator(".state")).to_have_text("■ ended")
