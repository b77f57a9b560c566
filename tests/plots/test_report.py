import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from fdjax.errors import DataError
from fdjax.plots import write_report
from sample_rows import HOSTILE


class Page(HTMLParser):
    """What a browser would see: elements, scripts and the text outside them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.policy, self.words = [], [], "", []
        self.inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes).get("type"), ""))
        if dict(attributes).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attributes)["content"]

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)
        elif self.inside != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def page(run_dir):
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_hostile_text_stays_text(page):
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "iframe", "object", "embed", "link", "base", "form"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
    assert [kind for kind, _ in page.scripts] == ["application/json", None]
    data = json.loads(page.scripts[0][1])
    assert data["samples"][1]["proof"] == HOSTILE
    assert data["samples"][1]["tokens"] == [HOSTILE]
    # The configuration holds it too, as visible text.
    assert HOSTILE in page.text


def test_only_its_own_script_may_run(page):
    digest = hashlib.sha256(page.scripts[1][1].encode()).digest()
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in page.policy
    assert page.policy.startswith("default-src 'none'")


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data"):
            target = attributes.get(name, "#")
            assert target.startswith("#"), (tag, name, target)


def test_script_never_parses_markup(page):
    for call in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ):
        assert call not in page.scripts[1][1]


def test_summary_holds_the_numbers(page):
    assert "12 theorems × 4 samples" in page.text
    assert "GRPO 25.0" in page.text  # pass@1 of 1 in 4
    assert "51.4" in page.text  # (2/3 + 11/2) / 12
    assert "of 11 theorems" in page.text
    assert "10.0 % 5.0 – 20.0 without" in page.text
    assert "30.0 % 20.0 – 40.0 with feedback" in page.text
    assert "does not help" not in page.text


def test_claims_carry_verdict_and_interval(page):
    # Entropy differs by 0.1 on every theorem, so the interval is a point.
    assert "✓ shown Policy entropy (nats per token): FD > GRPO" in page.text
    assert "+0.100 [+0.100, +0.100]" in page.text
    assert "– not shown pass@4, the largest k measured: FD ≥ GRPO" in page.text
    classes = [attributes.get("class") for tag, attributes in page.elements]
    assert "claim shown" in classes
    assert "claim not-shown" in classes


def test_run_facts_and_figures_are_there(page):
    assert "embedded Lean & friends" in page.text
    assert "git 0123456789ab jax 0.10.2" in page.text
    assert "last row 2023-11-14 22:13 UTC" in page.text  # Unix time 1.7e9
    assert "10.0 s" in page.text  # five rows of two seconds of verification
    assert "train/loss" in page.text
    figures = [a["class"] for tag, a in page.elements if tag == "figure"]
    assert figures == ["figure-pass_at_k", "figure-entropy", "figure-reward"]
    names = [a["id"] for _, a in page.elements if "id" in a]
    assert len(names) == len(set(names))


def test_figures_follow_the_theme(run_dir):
    text = write_report(run_dir).read_text(encoding="utf-8")
    figure = text[text.index("<figure") : text.index("</figure>")]
    assert "currentColor" in figure
    assert "var(--arm-0)" in figure
    assert "#1f2328" not in figure
    assert "#ffffff" not in figure


def test_browser_data_names_every_arm(page):
    data = json.loads(page.scripts[0][1])
    assert data["arms"] == {
        "grpo": {"label": "GRPO", "place": 0},
        "fd": {"label": "FD", "place": 1},
    }
    assert data["samples"][0]["kl"] == [0.25, None, 0.5, 2.0, None]
    assert data["statuses"] == [
        *("verified", "rejected", "unsafe", "timeout", "crashed")
    ]
    assert data["samples"][0]["messages"][0]["line"] == 2


def test_a_teacher_without_gain_is_called_out(run_dir):
    path = run_dir / "eval.json"
    content = json.loads(path.read_text())
    content["teacher"]["with_feedback"]["value"] = 0.1
    path.write_text(json.dumps(content))
    assert "does not help" in write_report(run_dir).read_text(encoding="utf-8")


def test_hostile_names_of_arms_and_folder(run_dir):
    for name in ("metrics.jsonl", "samples.jsonl", "eval.json"):
        path = run_dir / name
        path.write_text(path.read_text().replace('"grpo"', '"<img src=1 onerror=a>"'))
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert "img" not in {tag for tag, _ in page.elements}
    assert "<img src=1 onerror=a>" in page.text
    assert "tiny <b>run" in page.text


@pytest.mark.parametrize("kept", ["metrics.jsonl", "eval.json"])
def test_unfinished_runs_have_a_report(run_dir, kept):
    for name in ("config.json", "metrics.jsonl", "eval.json", "samples.jsonl"):
        if name != kept:
            (run_dir / name).unlink()
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    sections = [a["id"] for tag, a in page.elements if tag == "section"]
    assert sections == (
        ["figures", "run"]
        if kept == "metrics.jsonl"
        else ["results", "claims", "figures", "run"]
    )


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither"):
        write_report(tmp_path)


def test_thousands_of_samples_make_one_page(run_dir):
    path = run_dir / "samples.jsonl"
    path.write_text(path.read_text() * 1500)
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert "4,500 training attempts" in page.text
    assert len(json.loads(page.scripts[0][1])["samples"]) == 4500
