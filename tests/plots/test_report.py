import base64
import hashlib
import json
import string

import pytest

from fdjax.errors import DataError
from fdjax.plots import write_report
from pages import Page
from sample_rows import HOSTILE, sample

BASE64 = set(string.ascii_letters + string.digits + "+/=")


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
    assert [kind for kind, _ in page.scripts] == ["text/plain", "text/plain", None]
    for kind, text in page.scripts:
        if kind:  # nothing that is a run's can end or change the element around it
            assert set(text) <= BASE64
    hostile = [each for each in page.attempts if each["proof"] == HOSTILE]
    assert [each["tokens"] for each in hostile] == [[HOSTILE]]
    assert hostile[0]["problem"] == HOSTILE
    # The configuration holds it too, as visible text.
    assert HOSTILE in page.text


def test_only_its_own_script_may_run(page):
    digest = hashlib.sha256(page.scripts[-1][1].encode()).digest()
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
        assert call not in page.scripts[-1][1]


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
    assert figures == [
        *("figure-pass_at_k wide", "figure-entropy", "figure-reward"),
        "figure-gap wide",
    ]
    names = [a["id"] for _, a in page.elements if "id" in a]
    assert len(names) == len(set(names))


def test_figures_follow_the_theme(run_dir):
    text = write_report(run_dir).read_text(encoding="utf-8")
    figure = text[text.index("<figure") : text.index("</figure>")]
    assert "currentColor" in figure
    assert "var(--arm-0)" in figure
    assert "#1f2328" not in figure
    assert "#ffffff" not in figure


def test_the_browser_knows_every_line(page):
    assert page.index["lines"] == [
        {"label": "GRPO", "arm": "GRPO", "place": 0},
        {"label": "FD", "arm": "FD", "place": 1},
    ]
    scored = [each for each in page.attempts if each["line"] == 1]
    assert scored[0]["kl"] == [0.25, None, 0.5, 2.0, None]
    assert scored[0]["messages"][0]["line"] == 2
    assert page.index["statuses"] == [
        *("verified", "rejected", "unsafe", "timeout", "crashed")
    ]


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
    with pytest.raises(DataError, match="got none"):
        write_report(tmp_path)


def test_text_that_is_no_unicode(run_dir):
    with (run_dir / "samples.jsonl").open("a") as file:
        file.write(json.dumps(sample(proof="\ud800", problem="\udfff")) + "\n")
    (run_dir / "config.json").write_text('{"config": {"a": "\\ud800"}}')
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert "\ud800" in [each["proof"] for each in page.attempts]


def test_a_run_that_has_just_begun_has_a_report(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {"rate": 0.5}}')
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "No rows yet" in page.text
    assert "rate 0.5" in page.text


def test_thousands_of_samples_make_one_page(run_dir):
    path = run_dir / "samples.jsonl"
    path.write_text(path.read_text() * 1500)
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert "4,500 training attempts" in page.text
    assert len(page.attempts) == 4500


def test_the_gap_of_each_token_is_there(page):
    """Of the fixture's two attempts; the hostile one's only token has 1 nat."""
    cells = [
        (attributes["title"], attributes["style"])
        for tag, attributes in page.elements
        if tag == "td" and "title" in attributes
    ]
    assert [title for title, _ in cells] == [
        *("2 nats, 1×", "1 nats, 1×"),
        *("0.5 nats, 1×", "0.25 nats, 1×"),
    ]
    heat = [float(style.removeprefix("--heat:")) for _, style in cells]
    assert heat == sorted(heat, reverse=True)
    assert "␣h.1" in page.text


def test_guards_are_listed_where_they_saw_something(run_dir, page):
    assert "guards" not in [a.get("id") for _, a in page.elements]
    event = {"arm": "fd", "step": 3, "guard": "spike <b>", "metric": "train/loss"}
    seen = {"value": 9.0, "bound": 1.5, "action": "dump", "file": "dumps/3.npz"}
    rows = [{**event, **seen}, {**event, "arm": "new"}]
    lines = [json.dumps(row) + "\n" for row in rows]
    (run_dir / "events.jsonl").write_text("".join(lines) + '{"arm": "fd", "st')
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert "Guards 2 events" in page.text
    assert "FD spike <b> dump 1 3 3" in page.text
    assert "FD 3 spike <b> train/loss 9 1.5 dump dumps/3.npz" in page.text
    # A phase may stop before it has written anything else.
    assert "new 3 spike <b> train/loss – – – –" in page.text
