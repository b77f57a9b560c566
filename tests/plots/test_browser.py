from collections import Counter

from fdjax.plots import RunFiles, lines_of
from fdjax.plots.browser import browse
from pages import attempts, unpack
from sample_rows import sample


def browser_of(rows, **limits):
    files = RunFiles(name="run", config={}, metrics=[], evaluation={}, samples=rows)
    return browse(lines_of([files]), **limits)


def shown(browser):
    return attempts(unpack(browser.index), map(unpack, browser.blocks))


def test_attempts_are_counted_and_theorems_of_one_name_told_apart():
    rows = [
        sample(),
        sample(status="verified"),
        sample(step=2),
        sample(statement="theorem swap : True"),
    ]
    found = shown(browser_of(rows))
    assert [row["attempt"] for row in found] == [1, 2, 1, 1]
    assert [row["statement"] for row in found] == [row["statement"] for row in rows]
    assert [row["status"] for row in found] == [row["status"] for row in rows]


def test_the_calls_of_an_attempt_are_there():
    call = {"tool": "run_lean", "arguments": {}, "answer": "ok", "ended": "done"}
    found = shown(browser_of([sample(calls=[call]), sample()]))
    assert [row.get("calls") for row in found] == [[call], None]


def test_an_attempt_knows_its_mean_and_its_highest_kl():
    tokens = ["a"] * 101
    values = [place / 100 for place in range(101)]
    rows = [sample(tokens=tokens, kl=values), sample(tokens=["b"], kl=[None])]
    found = shown(browser_of(rows))
    assert [row["mean"] for row in found] == [0.5, None]
    assert [row["top"] for row in found] == [1.0, None]


def test_tokens_that_were_compared_keep_both_values():
    first, old, plain = shown(
        browser_of([sample(), sample(log_ratio=None), sample(tokens=None, kl=None)])
    )
    assert first["kl"] == [0.25, None, 0.5, 2.0, None]
    assert first["log_ratio"] == [3.0, None, -1.5, -4.0, None]
    assert "log_ratio" not in old
    assert not {"tokens", "kl", "log_ratio"} & plain.keys()


def long(place, **changes):
    """An attempt with text that hardly compresses."""
    proof = "".join(
        chr(0x4E00 + (place * 7919 + k * k * 31) % 20000) for k in range(500)
    )
    return sample(proof=proof, problem=f"p{place}", **{"tokens": None} | changes)


def test_more_than_fits_is_cut_evenly():
    rows = [long(place, arm=("fd", "grpo")[place % 2]) for place in range(200)]
    rows += [long(place, status="unsafe") for place in range(200, 204)]
    rows += [long(204, tokens=["a"], kl=[1.0])]
    limit = 60_000
    browser = browser_of(rows, limit=limit)
    assert browser.total == 205
    assert 0.7 * limit < browser.size <= limit
    found = shown(browser)
    assert len(found) == browser.shown < 205
    # Scored attempts first, then of each arm and status as many.
    assert "p204" in [row["problem"] for row in found]
    counts = Counter(
        (row["line"], row["status"]) for row in found if row["top"] is None
    )
    assert counts.pop((0, "unsafe")) == 4
    few, many = sorted(counts.values())
    assert many - few <= 1
    # Those that are shown stand in the order of the file.
    for line in (0, 1):
        order = [int(row["problem"][1:]) for row in found if row["line"] == line]
        assert order == sorted(order)
    assert browser_of(rows, limit=limit).blocks == browser.blocks


def test_an_attempt_that_is_larger_than_the_page_is_left_out():
    assert browser_of([long(0)], limit=100).shown == 0
