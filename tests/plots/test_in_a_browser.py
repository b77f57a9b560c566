"""The page in Chromium, where it is installed: its script runs under its own policy."""

import json
import re
import shutil
import subprocess

import pytest

from fdjax.plots import write_report
from sample_rows import sample

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")


def seen(page, tmp_path):
    """What the page has become once its script has run, as markup."""
    command = [
        *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu"),
        *(f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=20000"),
        *("--dump-dom", f"file://{page}"),
    ]
    process = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120
    )
    return process.stdout


def played(page, tmp_path, script):
    """The same after a script of the test's, which the page's policy would forbid."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    copy = tmp_path / "copy.html"
    copy.write_text(f"{text}<script>{script}</script>", encoding="utf-8")
    return seen(copy, tmp_path)


@pytest.fixture
def page(run_dir):
    rows = [sample(problem=f"p{place}", step=place) for place in range(4, 400)]
    rows[100] = sample(proof="  exact needle ∧", problem="other", status="verified")
    with (run_dir / "samples.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return write_report(run_dir)


def test_attempts_are_shown_and_nothing_else_runs(page, tmp_path):
    markup = seen(page, tmp_path)
    assert markup.count('<article class="sample">') == 10
    assert "1–10 of 399" in markup
    assert 'data-nats="0.25"' in markup
    # The hostile proof is text: its image would be an element.
    assert "<img" not in markup.split("<main>")[1].split("<script")[0]


def test_search_finds_text_in_packed_attempts(page, tmp_path):
    script = """
      const once = setInterval(() => {
        const input = document.querySelector("input[type=search]");
        if (!input) return;
        clearInterval(once);
        input.value = "Exact NEEDLE ∧";
        input.dispatchEvent(new Event("input"));
      }, 10);
    """
    markup = played(page, tmp_path, script)
    assert markup.count('<article class="sample">') == 1
    assert "1–1 of 1" in markup
    assert ">other<" in markup


def test_filters_and_pages(page, tmp_path):
    script = """
      const press = (text) => [...document.querySelectorAll("button")]
        .find((button) => button.textContent.includes(text)).click();
      const once = setInterval(() => {
        if (!document.querySelector("article")) return;
        clearInterval(once);
        press("Last");
        setTimeout(() => press("rejected"), 500);
      }, 10);
    """
    markup = played(page, tmp_path, script)
    # The fixture's one that was verified, and the needle, from the first page again.
    assert "1–2 of 2" in markup
    assert markup.count('<article class="sample">') == 2
