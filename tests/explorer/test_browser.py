"""The page in a browser, opened from disk: what a reader sees, by mouse and by keyboard."""

import shutil

import pytest

from experiments.explorer import explorer
from tests.fakes import spoken
from tests.report.test_figures import contrast

pytestmark = [pytest.mark.slow, pytest.mark.browser]
CALM = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
# A token of id 9 (" w1"), which no expert of the learned run served.
DROPPED = int((spoken.ids() == 9).argmax())


class Reader:
    """Someone before the page: looks by CSS selector, clicks, types."""

    def __init__(self, driver, address):
        self.driver, self.address = driver, address

    def open(self, fragment="", width=1280, dark=False):
        """The page anew, with nothing said in the console since."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(self.address + fragment)
        return self

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.all(selector)[0]

    def text(self, selector):
        return self.one(selector).text

    def run(self, script, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def token(self, n, pane="a"):
        return self.one(f"#pane-{pane} [data-n='{n}']")

    def type(self, keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def address_now(self):
        return self.driver.current_url


@pytest.fixture(scope="module")
def driver():
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: make test")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    service = shutil.which("chromedriver")
    if browser is None or service is None:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "routing.html"
    explorer.write(path, [spoken.learned(), spoken.learned(1), spoken.hashed()])
    assert path.stat().st_size <= 2_000_000
    return path.as_uri()


@pytest.fixture
def reader(driver, address):
    """A reader, whose console stays empty."""
    someone = Reader(driver, address)
    yield someone
    assert driver.get_log("browser") == []


def test_it_opens_on_the_example_of_its_finding(reader):
    reader.open()
    assert reader.text("h1").startswith("In layer 1, learned seed 0 and hashed seed 0 send 75")
    assert [reader.run(f"document.getElementById('run-{p}').value") for p in "ab"] == ["0", "2"]
    assert reader.text("#depth") == "1" and len(reader.all("#pane-a .token")) == 32
    assert reader.one("#disagree").get_attribute("aria-pressed") == "true"
    assert reader.text("#selected h2").startswith("Token")
    assert reader.text(".kind").endswith("192 of 192 traced tokens")


def test_a_token_tells_its_way_through_the_layers(reader):
    reader.open("#a=0&b=2&layer=1&passage=0")
    reader.token(11).click()
    # Id 11: experts 3 and 0 in the lower layer, 0 and 1 in the upper; a quarter of hashed: 1.
    rows = [row.text.split() for row in reader.all("#selected table:first-of-type tbody tr")]
    assert rows[0] == "1 3 0.75 0 0.25 margin 1.00 1 1.00 no margin".split()
    assert rows[1] == "3 0 0.75 1 0.25 margin 1.00 1 1.00 no margin".split()
    assert reader.token(11).get_attribute("aria-pressed") == "true"
    assert reader.token(11, "b").get_attribute("aria-pressed") == "true"
    losses = [cell.text for cell in reader.all("#selected table:last-of-type td:last-child")]
    assert losses == ["2.38", "3.38", "2.38"]  # 1 + 11/8, with seed 1 one more
    assert "token=11" in reader.address_now()


def test_a_dropped_token_is_struck_through(reader):
    reader.open("#a=0&b=2&layer=1&passage=0")
    style = "getComputedStyle(arguments[0]).textDecorationLine"
    assert reader.run(style, reader.token(DROPPED)) == "line-through"
    assert reader.run(style, reader.token(DROPPED, "b")) == "none"


def test_an_expert_shows_what_it_was_given(reader):
    reader.open("#a=0&b=2&layer=1&passage=0")
    reader.one("#pane-b .chip[data-expert='0']").click()
    told = reader.text("#selected")
    assert "Expert 0, layer 1" in told and "B, hashed seed 0; Hash" in told
    assert "25 % of all choices; an even load is 25 %." in told.replace("\u00a0", " ")
    desks = [row.text.split("\n")[0] for row in reader.all("#selected table tbody th")]
    assert desks[:3] == list(spoken.DESKS)
    # It had each of the first quarter of the ids 6 times, where its share is 6 / 4 = 1.5.
    rows = [row.text for row in reader.all("#selected table:nth-of-type(2) tbody tr")]
    assert len(rows) == 8 and all(row.endswith("6 of 6 1.5") for row in rows)
    lit = reader.all("#pane-b .token:not(.faded)")
    assert len(lit) == 8
    reader.all(".context")[0].click()
    assert "Expert 0" in reader.text("#selected h2") and "token=" in reader.address_now()


def test_disagreement_is_after_matching(reader):
    reader.open("#a=0&b=1&layer=1&passage=0")
    assert not reader.all(".token.faded")
    reader.one("#disagree").click()
    # The seeds differ in the names of their experts alone.
    assert len(reader.all("#pane-a .token.faded")) == 32
    assert "for 100 % of all tokens" in reader.text("#note")
    colour = "arguments[0].style.getPropertyValue('--c')"
    colours = [[reader.run(colour, reader.token(n, pane)) for n in range(4)] for pane in "ab"]
    assert colours[0] == colours[1] and len(set(colours[0])) == 4
    reader.open("#a=0&b=2&layer=1&passage=0&disagree=1")
    assert len(reader.all("#pane-a .token.faded")) == 8  # a quarter agrees
    assert "Marked: the 24 of 32 tokens" in reader.text("#note")


def test_everything_can_be_reached_by_keyboard(reader):
    from selenium.webdriver.common.keys import Keys

    reader.open("#a=0&b=2&layer=1&passage=0")
    assert len(reader.all("#pane-a .token[tabindex='0']")) == 1
    reader.run("arguments[0].focus()", reader.token(0))
    reader.type(Keys.ARROW_RIGHT + Keys.ARROW_RIGHT + Keys.ARROW_LEFT)
    focused = "document.activeElement.dataset.n"
    assert reader.run(focused) == "1"
    outline = reader.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    reader.type(Keys.ARROW_DOWN)
    assert int(reader.run(focused)) > 2
    reader.type(Keys.HOME + Keys.ENTER)
    assert "token=0" in reader.address_now() and reader.run(focused) == "0"
    reader.type("]")
    assert reader.text("#depth") == "3"
    reader.type("]")  # there is no layer above
    assert reader.text("#depth") == "3"
    reader.type("[ndx")
    assert "a=2&b=0&layer=1&passage=1" in reader.address_now()
    assert "disagree=1" in reader.address_now()
    reader.type(Keys.ESCAPE)
    assert "token=" not in reader.address_now()


def test_the_address_brings_the_same_view_and_a_wrong_one_the_example(reader):
    reader.open("#a=1&b=2&layer=3&passage=2&colour=loss&expert=b3")
    assert "Expert 3, layer 3" in reader.text("#selected")
    assert reader.run("document.getElementById('colour').value") == "loss"
    reader.open("#a=99&layer=2&passage=-1&token=1e9&expert=z9&colour=none")
    assert reader.text("#depth") == "1" and "a=0" in reader.address_now()


def test_every_colour_of_the_text_is_drawn_by_loss_and_margin(reader):
    for colour in ("loss", "margin"):
        reader.open(f"#a=0&b=2&layer=1&passage=0&colour={colour}")
        assert "Stronger tint" in reader.text("#note")
        tints = reader.run(
            "[...document.querySelectorAll('#pane-a .token')]"
            ".map((token) => token.style.getPropertyValue('--tint'))"
        )
        assert len(set(tints)) == (32 if colour == "loss" else 1)  # margins are all 1


@pytest.mark.parametrize("width", [420, 1280])
def test_no_width_scrolls_sideways(reader, width):
    reader.open("#a=0&b=2&layer=1&passage=0", width=width)
    assert reader.run(CALM)
    reader.token(20).click()
    assert reader.one("#inspector").is_displayed() and reader.run(CALM)
    stacked = reader.one("#pane-b").rect["y"] > reader.one("#pane-a").rect["y"]
    assert stacked == (width == 420)
    reader.one("#close").click()
    assert reader.one("#inspector").is_displayed() == (width != 420)


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_both_themes(reader, dark):
    reader.open(dark=dark)
    shown = [
        reader.run(f"getComputedStyle(arguments[0]).{name}", reader.one(".tokens"))
        for name in ("color", "backgroundColor")
    ]
    ink, card = ("#" + "".join(f"{int(p):02x}" for p in s[4:-1].split(",")) for s in shown)
    assert contrast(ink, card) >= 7
    assert (card < "#80") == dark


def test_hostile_text_stays_text(reader):
    reader.open("#a=0&b=2&layer=1&passage=0")
    assert reader.run("window.bad") is None
    assert not reader.all("img") and len(reader.all("script")) == 2
    said = "".join(token.text for token in reader.all("#pane-a .token"))
    for token in (*spoken.HOSTILE[:3], "⟨U+2028⟩", "⟨U+202E⟩abc⟨U+200F⟩", "⟨U+0000⟩"):
        assert token in said
    assert "</select>: " in reader.run("document.getElementById('passage').options[3].text")
    reader.token(0).click()
    assert "</script>" in reader.text("#selected h2")
