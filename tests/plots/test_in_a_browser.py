"""The page in Chromium, where it is installed: its script runs under its own policy."""

import json

import pytest

from browsing import BROWSER, browser
from fdjax.plots import write_report
from sample_rows import sample

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")


@pytest.fixture(scope="module")
def tab():
    with browser() as found:
        yield found


@pytest.fixture
def page(run_dir, tab):
    """Open, with the 3 attempts of the run and 396 more."""
    rows = [sample(problem=f"p{place}", step=place) for place in range(4, 400)]
    rows[100] = sample(proof="  exact needle ∧", problem="other", status="verified")
    with (run_dir / "samples.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    tab.open(write_report(run_dir))
    tab.wait("document.querySelector('.sample')")
    return tab


def shown(page):
    return page.value("document.querySelector('#pages span').textContent")


def attempts(page):
    return page.value("document.querySelectorAll('.sample').length")


def press(page, text):
    page.value(
        "[...document.querySelectorAll('button')]"
        f".find((one) => one.textContent.includes({json.dumps(text)})).click()"
    )


def until_shown(page, text):
    page.wait(f"document.querySelector('#pages').textContent.includes('{text}')")


def test_attempts_are_shown_and_nothing_of_a_run_runs(page):
    assert (attempts(page), shown(page)) == (10, "1–10 of 399")
    kl = page.value("document.querySelector('.token').dataset.nats")
    assert kl == "0.25"
    colours = page.value(
        "[...document.querySelector('.token').closest('.sample')"
        ".querySelectorAll('.token')]"
        ".map((token) => [token.dataset.ratio, token.style.backgroundColor])"
    )
    # At 3 nats all of blue, at −1.5 half of orange; −4 is clipped at −3.
    assert ["3", "rgba(38, 124, 222, 0.62)"] in colours
    assert ["-1.5", "rgba(226, 106, 16, 0.31)"] in colours
    assert ["-4", "rgba(226, 106, 16, 0.62)"] in colours
    assert {colour for ratio, colour in colours if ratio == ""} == {""}
    # The hostile proof is text: its image would be an element.
    assert page.value("document.images.length") == 0


def test_search_finds_text_in_packed_attempts(page):
    page.value("""(() => {
      const input = document.querySelector("input[type=search]");
      input.value = " Exact NEEDLE ∧";
      input.dispatchEvent(new Event("input"));
    })()""")
    until_shown(page, "1–1 of 1")
    assert attempts(page) == 1
    assert "exact needle ∧" in page.value("document.querySelector('.proof').innerText")


def test_a_problem_leads_to_its_attempts(page):
    press(page, "swap")
    until_shown(page, "1–2 of 2")  # a statement that says "swap" is not enough
    assert page.value("document.querySelector('input[type=search]').value") == "swap"


def test_filters_and_pages(page):
    press(page, "Last")
    until_shown(page, "391–399 of 399")
    assert attempts(page) == 9
    press(page, "rejected")
    # The fixture's one that was verified, and the needle, from the first page on.
    until_shown(page, "1–2 of 2")
    assert attempts(page) == 2


def test_nothing_is_wider_than_a_narrow_window(page):
    page.ask(
        "Emulation.setDeviceMetricsOverride",
        width=400,
        height=800,
        deviceScaleFactor=1,
        mobile=False,
    )
    assert page.value("document.documentElement.scrollWidth") <= 400
