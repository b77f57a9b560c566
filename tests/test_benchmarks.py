"""The benchmark of the losses at a size where it takes seconds."""

import json
import subprocess
import sys
from pathlib import Path


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
