"""The benchmarks at a size where they take seconds."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import nucleus


def test_losses_prints_a_table_and_writes_all_figures(tmp_path):
    out = tmp_path / "losses.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.losses", "--peers", "none"),
            *("--tokens", "64", "--shapes", "1000x16", "--memory", "1000x16"),
            *("--workloads", "reverse_kl,grpo", "--repeats", "1", "--json", str(out)),
        ],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=True,
        text=True,
    )
    found = json.loads(out.read_text())
    assert [(row["workload"], row["variant"]) for row in found["rows"]] == [
        ("reverse_kl", "chunked"),
        ("reverse_kl", "chunked, no metrics"),
        ("reverse_kl", "full logits"),
        ("grpo", "chunked"),
        ("grpo", "chunked, no metrics"),
        ("grpo", "full logits"),
    ]
    assert {row["same"] for row in found["rows"]} == {"yes"}
    assert "| FD, reverse KL |" in done.stdout
    growth = {
        row["variant"]: row["temp_bytes"]
        for row in found["memory versus N"]
        if (row["workload"], row["tokens"]) == ("reverse_kl", 16_384)
    }
    assert growth["chunked"] < growth["full logits"] / 2


def test_nucleus_measures_every_way(tmp_path, monkeypatch, capsys):
    out = tmp_path / "nucleus.json"
    argv = ["nucleus", "--shape", "2x64", "--k", "3", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", [*argv, "--json", str(out)])
    nucleus.main()
    ways = ["plain", "top-k 3", "top-p 0.95", "both"]
    ways += ["top-k 3, lax.top_k", "top-p 0.95, sorted"]
    assert list(json.loads(out.read_text())["ms"]) == ways
    assert "| plain |" in capsys.readouterr().out


def test_report_measures_a_page(tmp_path):
    out = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.report", "--cases", "40x70"),
            *("--rows", "20", "--json", str(out)),
        ],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=True,
        text=True,
    )
    assert "| 40 | 70 | 20 |" in done.stdout
    (case,) = json.loads(out.read_text())["cases"]
    assert 0 < case["page_mb"] < 1
    assert case["make_s"] > 0
