"""The page in headless Chromium: plots drawn, a quiet console, not one request to the outside."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .samples import make_conversion, make_training
from .test_page import page_of

# No name resolves, so that not even Chromium's own errands (updates, sign-in) leave the machine.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-sync"),
    *("--disable-extensions", "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)

MEASURE = """
<script>
const rounded = box => [Math.round(box.width), Math.round(box.height)];
document.body.dataset.measured = JSON.stringify({
  drawings: [...document.querySelectorAll('figure svg')].map(svg => rounded(svg.getBoundingClientRect())),
  marks: [...document.querySelectorAll('figure svg')].map(svg => svg.querySelectorAll('path').length),
  ink: getComputedStyle(document.querySelector('figure svg text')).fill,
  paper: getComputedStyle(document.documentElement).backgroundColor,
  overflow: document.documentElement.scrollWidth - window.innerWidth,
});
</script>
"""


def open_page(browser: str, page: Path, folder: Path, *flags: str) -> tuple[str, str]:
    """The page's final markup and what the browser logged."""
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "page.html"
    path.write_text(page_of(make_conversion(), make_conversion({}, model="vgg16"), make_training()))
    return path


def measure(browser: str, page: Path, folder: Path, *flags: str) -> dict[str, Any]:
    """Sizes and colours as drawn, by a script in a copy of the page, whose own policy forbids scripts."""
    text = page.read_text(encoding="utf-8")
    probe = page.with_name("probe.html")
    probe.write_text(re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", f"{MEASURE}</body>"))
    markup, _ = open_page(browser, probe, folder, *flags)
    found = re.search(r'data-measured="([^"]*)"', markup)
    assert found, "the probe did not run"
    measured: dict[str, Any] = json.loads(found[1].replace("&quot;", '"'))
    return measured


@pytest.mark.browser
def test_plots_are_drawn_on_wide_and_narrow_windows_light_and_dark(browser: str, page: Path, tmp_path: Path) -> None:
    wide = measure(browser, page, tmp_path, "--window-size=1200,900", "--blink-settings=preferredColorScheme=1")
    assert len(wide["drawings"]) == 4 + 6 + 6 + 2
    assert all(width > 400 and height > 150 for width, height in wide["drawings"])
    assert all(marks > 5 for marks in wide["marks"])
    assert wide["overflow"] <= 0
    assert (wide["ink"], wide["paper"]) == ("rgb(101, 102, 107)", "rgb(253, 252, 249)")

    narrow = measure(browser, page, tmp_path, "--window-size=500,900", "--blink-settings=preferredColorScheme=0")
    assert narrow["overflow"] <= 0, "the page itself never scrolls sideways"
    assert all(width > 300 and height > 100 for width, height in narrow["drawings"])
    assert (narrow["ink"], narrow["paper"]) == ("rgb(163, 162, 158)", "rgb(23, 24, 27)")


def requests(log: Path) -> set[str]:
    """The addresses that the page asked for; Chromium's own requests have no origin as initiator."""
    asked = r'"initiator":"(?!not an origin)[^\n]*?"url":"((?:https?|wss?|ftp):[^"]*)"'
    return set(re.findall(asked, log.read_text(encoding="utf-8")))


@pytest.mark.browser
def test_the_console_is_quiet_and_nothing_is_fetched(browser: str, page: Path, tmp_path: Path) -> None:
    log = tmp_path / "network.json"
    markup, told = open_page(browser, page, tmp_path, f"--log-net-log={log}")
    assert "What the terms mean" in markup
    assert "CONSOLE" not in told
    assert not requests(log)


@pytest.mark.browser
def test_a_leak_or_an_error_would_be_seen(browser: str, page: Path, tmp_path: Path) -> None:
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    leaking = tmp_path / "leaking.html"
    leaking.write_text(
        text.replace("</body>", '<img src="http://outside.invalid/a.png"><script>oops()</script></body>')
    )
    log = tmp_path / "network.json"
    _, told = open_page(browser, leaking, tmp_path, f"--log-net-log={log}")
    assert "CONSOLE" in told and "oops is not defined" in told
    assert requests(log) == {"http://outside.invalid/a.png"}
