"""The page in headless Chromium, as people use it."""

import math
import re
import shutil
import threading
import time
from contextlib import contextmanager

import pytest

from eventful.live.page import serve
from tests.live.page.boards import FakeBoard
from tests.live.page.conftest import TOKEN, wait

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow
expect = sync_api.expect
expect.set_options(timeout=15_000)
NAMES = ("chromium", "chromium-browser", "google-chrome")
PATH = next((path for name in NAMES if (path := shutil.which(name))), None)
if PATH is None:
    pytest.skip("no Chromium is installed (apt-get install chromium)", allow_module_level=True)

HOSTILE = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 360, "height": 640}


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        # The sandbox does not start for root, and the page is our own.
        browser = playwright.chromium.launch(executable_path=PATH, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def board():
    made = FakeBoard("front", "back", "hall", "yard", "gate")
    for back in range(50, 0, -1):
        made.tick(time.time() - back / 10)
    return made


@pytest.fixture
def running(board):
    """The board gets ten frames a second."""
    ended = threading.Event()

    def run():
        while not ended.wait(0.1):
            board.tick()

    thread = threading.Thread(target=run)
    thread.start()
    yield board
    ended.set()
    thread.join()


@pytest.fixture
def page(board):
    with serve(board, port=0) as page:
        yield page


@contextmanager
def tab(chromium, page, size=WIDE, path="", complain=True, **options):
    """A page in the browser; it must not complain, and asks nobody else for anything."""
    context = chromium.new_context(viewport=size, **options)
    opened = context.new_page()
    complaints, requests = [], []
    opened.on("console", lambda line: complaints.append(line.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(page.url + path)
    try:
        yield opened
    finally:
        context.close()
    assert not (complain and complaints)
    assert not [url for url in requests if not url.startswith((page.url, f"blob:{page.url}"))]


@pytest.fixture
def opened(chromium, page):
    with tab(chromium, page) as opened:
        yield opened


def tile(opened, name):
    return opened.locator(".tile", has=opened.get_by_role("link", name=name, exact=True))


def fact(place, name):
    return place.locator(f'[data-fact="{name}"] dd')


def test_tiles_show_every_camera_and_follow_it(opened, board):
    expect(opened.locator(".tile h2")).to_have_text(["front", "back", "hall", "yard", "gate"])
    front = tile(opened, "front")
    for _ in range(3):
        board.change(
            "front",
            processed=57,
            estimate=0.123,
            rate=14.6,
            kind="partial",
            dropped=1234,
            reconnects=2,
        )
        expect(front.locator(".kind")).to_have_text("partial")
        expect(fact(front, "error")).to_have_text("0.12")
        expect(fact(front, "rate")).to_have_text("15/s")
        expect(fact(front, "dropped")).to_have_text("1,234")
        expect(fact(front, "reconnects")).to_have_text("2")
        expect(front.locator(".state")).to_have_text("● live")
        known = board.cameras["front"]
        saved = known.dense_operations / known.operations
        expect(fact(front, "saved")).to_have_text(f"{saved:.1f}\u00d7")
        board.tick()
        expect(front.locator(".kind")).to_have_text(board.cameras["front"].kind)
    expect(opened.locator("#totals dd").first).to_have_text("5 of 5 live")


def test_pictures_are_shown_and_renewed(opened, running):
    image = tile(opened, "front").locator("img")
    expect(image).to_be_visible()
    first = image.get_attribute("src")
    assert first.startswith("blob:")
    size = image.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert size == [640, 360]
    expect(image).not_to_have_attribute("src", first)


def test_pictures_come_at_a_modest_rate_and_only_while_seen(opened, running, page):
    expect(tile(opened, "gate").locator("img")).to_be_visible()
    before = running.pictures
    time.sleep(3)
    assert 5 <= running.pictures - before <= 5 * 4  # of five cameras, about one a second
    opened.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", {value: true, configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    expect(opened.locator("#link")).to_have_text("paused")
    time.sleep(0.5)
    before = running.pictures
    time.sleep(2)
    assert running.pictures == before
    opened.evaluate(
        "() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')); }"
    )
    expect(opened.locator("#link")).to_have_text("● connected")
    wait(lambda: running.pictures > before)


def test_pictures_of_still_cameras_are_not_fetched_again(opened, board):
    expect(tile(opened, "gate").locator("img")).to_be_visible()
    time.sleep(1)
    before = board.pictures
    time.sleep(2)
    assert board.pictures == before


def test_tiles_out_of_sight_fetch_no_pictures(chromium, page, running):
    with tab(chromium, page, {"width": 360, "height": 300}) as opened:
        expect(opened.locator(".tile")).to_have_count(5)
        time.sleep(2.5)
        assert opened.locator(".tile img:not([hidden])").count() <= 1
        tile(opened, "gate").scroll_into_view_if_needed()
        expect(tile(opened, "gate").locator("img")).to_be_visible()


def test_a_camera_that_is_away_says_so_in_words(opened, board):
    board.change("back", state="waiting", reason="no answer", retry_in=6.6, reconnects=3)
    board.change("hall", state="ended", reason="the file ended")
    back = tile(opened, "back")
    expect(back.locator(".state")).to_have_text("▲ waiting, next try in 7 s")
    expect(back.locator(".reason")).to_have_text("no answer")
    expect(tile(opened, "hall").locator(".state")).to_have_text("■ ended")
    expect(opened.locator("#totals dd").first).to_have_text("3 of 5 live")
    expect(opened).to_have_title("(1 away) Live cameras")
    styles = {
        name: tile(opened, name).evaluate("e => getComputedStyle(e).borderStyle")
        for name in ("front", "back")
    }
    assert styles == {"front": "solid", "back": "dashed"}  # not by colour alone
    board.change("back", state="live", reason="", retry_in=None)
    expect(back.locator(".reason")).to_be_hidden()


def test_the_budget_acts_at_once(opened, board):
    slider = opened.get_by_role("slider", name="Budget")
    expect(slider).to_have_attribute("aria-valuetext", "20 %")
    slider.focus()
    opened.keyboard.press("ArrowRight")
    wait(lambda: board.policies, 3)
    assert board.policies == ["auto:0.21"]
    opened.keyboard.press("Home")
    wait(lambda: board.policies[-1] == "auto:0.02")
    opened.keyboard.press("End")
    wait(lambda: board.policies[-1] == "auto:1")
    expect(slider).to_have_attribute("aria-valuetext", "100 %")
    expect(opened.locator("#budget-control")).to_have_class(re.compile("holds"))


def test_dragging_sends_no_flood_and_ends_where_the_hand_does(opened, board):
    box = opened.locator("#error").bounding_box()
    middle = box["y"] + box["height"] / 2
    opened.mouse.move(box["x"] + box["width"] / 2, middle)
    opened.mouse.down()
    opened.mouse.move(box["x"] + box["width"] - 2, middle, steps=60)
    opened.mouse.up()
    expect(opened.locator("#error-value")).to_have_text("0.50")
    wait(lambda: board.policy == "error:0.5")
    expect(opened.locator("#error-control")).to_have_class(re.compile("holds"))
    expect(opened.locator("#budget-control")).not_to_have_class(re.compile("holds"))
    expect(opened.locator("#policy")).to_have_text("holds an error of 0.50")


def test_a_policy_that_others_set_is_shown(opened, board):
    board.policy = "error:0.1"
    expect(opened.locator("#error-value")).to_have_text("0.10")
    expect(opened.locator("#error-control")).to_have_class(re.compile("holds"))
    board.policy = "latency:40"
    expect(opened.locator("#policy")).to_have_text("holds latency:40; move a slider to change it")
    expect(opened.locator("#policy")).not_to_have_class("unseen")


def test_a_worst_share_is_kept(opened, board):
    board.policy = "auto:0.2/0.5"
    expect(opened.locator("#policy")).to_have_text("holds a budget of 20 %")
    slider = opened.get_by_role("slider", name="Budget")
    time.sleep(1.2)  # until the page knows
    slider.focus()
    opened.keyboard.press("ArrowLeft")
    wait(lambda: board.policies == ["auto:0.19/0.5"])
    opened.keyboard.press("End")
    wait(lambda: board.policies[-1] == "auto:1")


def test_a_policy_that_is_refused_is_said(chromium, page, board, monkeypatch):
    def refuse(text):
        raise ValueError("the heads alone cost 30 %")

    monkeypatch.setattr(board, "set_policy", refuse)
    with tab(chromium, page, complain=False) as opened:
        expect(opened.locator("#budget-value")).to_have_text("20 %")
        opened.get_by_role("slider", name="Budget").press("Home")
        expect(opened.locator("#policy")).to_have_text("the heads alone cost 30 %")
        expect(opened.locator("#policy")).to_be_visible()


def test_a_click_shows_a_camera_large_with_its_history(opened, running):
    box = tile(opened, "hall").locator(".shot").bounding_box()
    opened.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    dialog = opened.get_by_role("dialog", name="hall")
    expect(dialog).to_be_visible()
    image = dialog.locator(".shot img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.naturalWidth") == 1280
    expect(fact(dialog, "size")).to_have_text("640 \u00d7 360")
    expect(dialog.locator(".title")).to_have_text(
        ["estimated error", "computed, share of dense", "latency"]
    )
    for lane in ("estimate", "share", "latency_ms"):
        path = dialog.locator(f"path.{lane}")
        points = path.get_attribute("d").count("L")
        assert points > 40
        wait(
            lambda path=path, points=points: path.get_attribute("d").count("L") > points
        )  # goes on
    marks = dialog.locator("path.dense").get_attribute("d").count("M")
    with running.lock:
        kinds = [point.kind for point in running.points["hall"]]
    assert abs(marks - kinds.count("dense")) <= 2
    assert re.match(
        r"latest: \w+, error 0\.\d+, computed \d", dialog.locator(".readout").inner_text()
    )


def test_the_plot_reads_single_frames(opened, board):
    tile(opened, "front").locator("h2 a").click()
    lanes = opened.locator(".lanes")
    expect(lanes).to_have_attribute(
        "aria-label", re.compile(r"History of 50 frames over 5 seconds, \d of them dense")
    )
    lanes.focus()
    for _ in range(3):
        opened.keyboard.press("ArrowLeft")
    point = board.points["front"][-4]
    readout = opened.locator(".readout")
    expect(readout).to_contain_text(f"0.3 s before: {point.kind}, error {point.estimate:.3f}")
    opened.keyboard.press("Home")
    expect(readout).to_contain_text("4.9 s before")
    opened.keyboard.press("End")
    expect(readout).to_contain_text("latest")
    box = lanes.bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    expect(readout).to_contain_text(re.compile(r"2\.\d s before"))
    expect(opened.get_by_role("dialog", name="front")).to_be_visible()  # arrows did not leave it


def test_all_works_from_the_keyboard(opened):
    expect(opened.locator(".tile")).to_have_count(5)
    opened.keyboard.press("Tab")
    expect(opened.get_by_role("link", name="Skip to the cameras")).to_be_focused()
    opened.keyboard.press("Enter")
    opened.keyboard.press("Tab")
    expect(opened.get_by_role("link", name="front")).to_be_focused()
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")
    expect(opened.get_by_role("link", name="hall")).to_be_focused()
    opened.keyboard.press("Enter")
    expect(opened.get_by_role("dialog", name="hall")).to_be_visible()
    expect(opened.get_by_role("button", name="Close")).to_be_focused()
    opened.keyboard.press("ArrowRight")
    expect(opened.get_by_role("dialog", name="yard")).to_be_visible()
    for _ in range(2):
        opened.keyboard.press("ArrowLeft")
    expect(opened.get_by_role("dialog", name="back")).to_be_visible()
    opened.keyboard.press("Escape")
    expect(opened.locator("dialog")).to_be_hidden()
    expect(opened.get_by_role("link", name="back")).to_be_focused()
    assert "camera=" not in opened.url
    opened.keyboard.press("End")
    expect(opened.get_by_role("link", name="gate")).to_be_focused()
    outline = opened.locator(".tile:focus-within").evaluate("e => getComputedStyle(e).boxShadow")
    assert outline != "none"


def test_a_camera_can_be_linked_to_and_left_by_going_back(chromium, page):
    with tab(chromium, page, path="#camera=yard") as opened:
        expect(opened.get_by_role("dialog", name="yard")).to_be_visible()
        opened.keyboard.press("Escape")
        tile(opened, "gate").locator("h2 a").click()
        expect(opened.get_by_role("dialog", name="gate")).to_be_visible()
        opened.go_back()
        expect(opened.locator("dialog")).to_be_hidden()


@pytest.mark.parametrize("width", [320, 360, 700, 1100])
def test_nothing_is_wider_than_the_screen(chromium, page, board, width):
    board.add("a-name-without-any-place-to-break-it-that-is-very-long-indeed-x", "rtsp://10.0.0.1/")
    board.change("front", state="waiting", reason="x" * 200, retry_in=7.0)
    with tab(chromium, page, {"width": width, "height": 640}) as opened:
        expect(opened.locator(".tile")).to_have_count(6)
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        opened.get_by_text("Add a camera").click()
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        tile(opened, "front").locator("h2 a").click()
        dialog = opened.locator("dialog")
        expect(dialog.locator("path.share")).to_be_attached()
        assert (
            dialog.evaluate(
                "e => [e.scrollWidth - e.clientWidth, e.getBoundingClientRect().right]"
            )[0]
            <= 0
        )
        expect(opened.get_by_role("button", name="Close")).to_be_in_viewport(ratio=1)


def test_names_and_reasons_are_text_whatever_they_hold(chromium, page, board):
    board.add(HOSTILE, "rtsp://10.0.0.1/")
    board.tick()
    board.change(HOSTILE, state="waiting", reason=HOSTILE)
    board.change("front", kind=HOSTILE, source=HOSTILE)
    with tab(chromium, page) as opened:
        expect(opened.locator(".tile h2").last).to_have_text(HOSTILE)
        expect(opened.locator(".tile .reason").last).to_have_text(HOSTILE)
        expect(opened.locator(".tile .kind").first).to_have_text(HOSTILE)
        opened.locator(".tile h2 a").last.click()
        expect(opened.locator("#large-name")).to_have_text(HOSTILE)
        expect(opened.locator("#large-reason")).to_have_text(HOSTILE)
        expect(opened.locator("path.share")).to_have_attribute("d", re.compile("M"))
        expect(opened.locator("#large-shot img")).to_be_visible()
        assert opened.evaluate("window.hacked") is None
        assert opened.locator("img[src=x], .tile script").count() == 0


def test_the_browser_itself_refuses_what_is_injected(chromium, page):
    """Should a part of the page ever forget that names are text."""
    with tab(chromium, page, complain=False) as opened:
        refused = opened.evaluate(
            """async () => {
                const tries = {
                    html: () => { document.body.innerHTML = "<b>x</b>"; },
                    script: async () => {
                        const made = document.createElement("script");
                        made.textContent = "window.hacked = 1";
                        document.body.append(made);
                        if (window.hacked === undefined) throw new Error("blocked");
                    },
                    elsewhere: () => fetch("http://127.0.0.1:1/"),
                };
                const refused = [];
                for (const [name, attempt] of Object.entries(tries)) {
                    try { await attempt(); } catch { refused.push(name); }
                }
                return refused;
            }"""
        )
        assert refused == ["html", "script", "elsewhere"]


def test_cameras_are_added_and_removed(chromium, page, board):
    with tab(chromium, page, complain=False) as opened:  # the browser notes the 403
        opened.get_by_text("Add a camera").click()
        opened.get_by_label("Name").fill("porch")
        opened.get_by_label("Source").fill("file:///etc/passwd")
        opened.get_by_role("button", name="Add").click()
        expect(opened.locator("#add-note")).to_have_text(
            "a source is a URL that begins with rtsp:// or rtsps://"
        )
        opened.get_by_label("Source").fill("rtsp://10.0.0.8/live")
        opened.keyboard.press("Enter")
        expect(tile(opened, "porch").locator(".state")).to_have_text("◌ connecting")
        expect(tile(opened, "porch").locator(".nothing")).to_be_visible()
        assert board.cameras["porch"].source == "rtsp://10.0.0.8/live"
        tile(opened, "porch").locator("h2 a").click()
        opened.get_by_role("button", name="Remove this camera").click()
        assert "porch" in board.cameras
        opened.get_by_role("button", name="Press again to remove it").click()
        expect(opened.locator("dialog")).to_be_hidden()
        expect(opened.locator(".tile")).to_have_count(5)
        assert "porch" not in board.cameras


def test_a_token_is_asked_for_and_kept_from_scripts_and_urls(chromium, board):
    with (
        serve(board, port=0, token=TOKEN) as page,
        tab(chromium, page, path="#camera=yard", complain=False) as opened,
    ):
        expect(opened.get_by_role("heading", name="Live cameras")).to_be_visible()
        assert opened.url.startswith(page.url + "login")
        expect(opened.get_by_label("Token")).to_be_focused()
        opened.keyboard.type("not-the-token-at-all")
        opened.keyboard.press("Enter")
        expect(opened.get_by_role("alert")).to_have_text("This is not the token.")
        opened.get_by_label("Token").fill(TOKEN)
        opened.get_by_role("button", name="Log in").click()
        expect(opened.get_by_role("dialog", name="yard")).to_be_visible()  # where the link led
        assert opened.url == page.url + "#camera=yard"
        assert opened.evaluate("document.cookie") == ""
        (cookie,) = opened.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in str(
            opened.evaluate("[location.href, {...localStorage}, {...sessionStorage}]")
        )
        opened.keyboard.press("Escape")
        opened.get_by_role("button", name="Log out").click()
        expect(opened.get_by_label("Token")).to_be_visible()
        opened.goto(page.url)
        expect(opened.get_by_label("Token")).to_be_visible()


def test_without_a_token_nobody_logs_out(opened):
    expect(opened.locator(".tile")).to_have_count(5)
    expect(opened.get_by_role("button", name="Log out")).to_be_hidden()


def test_a_server_that_is_away_is_said_and_found_again(chromium, board):
    page = serve(board, port=0)
    with tab(chromium, page, complain=False) as opened:
        expect(opened.locator("#link")).to_have_text("● connected")
        page.close()
        expect(opened.locator("#link")).to_have_text("▲ no connection; figures are old")
        with serve(board, port=page.port):
            expect(opened.locator("#link")).to_have_text("● connected", timeout=15_000)
            board.change("front", dropped=77)
            expect(fact(tile(opened, "front"), "dropped")).to_have_text("77")


def test_cameras_that_are_not_computed_any_more_are_said(opened, board):
    expect(opened.locator("#link")).to_have_text("● connected")
    for silent, text in (
        (31.0, "▲ nothing computed for 31 s"),
        (math.inf, "▲ the watch has ended"),
        (29.0, "● connected"),
    ):
        board.silent = silent
        expect(opened.locator("#link")).to_have_text(text)
        away = opened.evaluate("document.body.classList.contains('away')")
        assert away == (silent > 30)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(chromium, page, board, scheme):
    """WCAG 2's 4.5 to 1, of every text that is seen, against what is behind it."""
    board.change("back", state="waiting", reason="no answer", retry_in=6.6)
    with tab(chromium, page, color_scheme=scheme) as opened:
        expect(opened.locator(".tile .reason:visible")).to_have_count(1)
        for where in ("body > header, main", "dialog"):
            if where == "dialog":
                tile(opened, "back").locator("h2 a").click()
                expect(opened.locator(".readout")).not_to_be_empty()
            low = opened.evaluate(CONTRAST, where)
            assert low == [], scheme


CONTRAST = """(where) => {
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const found = numbers(getComputedStyle(at).backgroundColor);
            if (found[3] !== 0) return found;
        }
        return [255, 255, 255];
    };
    const low = [];
    for (const root of document.querySelectorAll(where))
        for (const node of root.querySelectorAll("*")) {
            const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
            if (!own || !node.checkVisibility()) continue;
            const style = getComputedStyle(node);
            const ink = node instanceof SVGElement ? style.fill : style.color;
            const [a, b] = [light(numbers(ink)), light(behind(node))].sort((x, y) => y - x);
            const ratio = (a + 0.05) / (b + 0.05);
            if (ratio < 4.5) low.push([node.textContent.slice(0, 30), ratio]);
        }
    return low;
}"""
