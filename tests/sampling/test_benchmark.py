"""`benchmarks.sampling` at a size where it takes seconds: most of them compile."""

import json

import jax
import pytest

from benchmarks import sampling
from fdjax.checkpoint import save_pretrained, write_description
from tiny import MODEL, TOKENIZER


def test_every_part_is_measured(tmp_path, capsys):
    write_description(tmp_path / "description", MODEL.config, TOKENIZER)
    save_pretrained(
        jax.jit(MODEL.init)(jax.random.key(0)),
        MODEL.config,
        tmp_path / "policy",
        description=tmp_path / "description",
    )
    out = tmp_path / "sampling.json"
    sampling.main(
        sampling.Config(
            folder=tmp_path / "policy",
            batches=(2,),
            prompt=5,
            new_tokens=6,
            requests=12,
            slots=2,
            tail=16,
            group=3,
            group_prompt=20,
            group_tokens=2,
            page=4,
            repeats=1,
            transformers_python="none",
            tunix_python="none",
            figure=tmp_path / "slots.png",
            json=out,
        )
    )
    assert (tmp_path / "slots.png").stat().st_size > 1_000
    found = json.loads(out.read_text())
    for part, tokens in (("throughput", 12), ("group", 6)):
        (row,) = found[part]
        assert row["tokens"] == tokens
        assert row["slots, tokens/wall-s"] > 0
    (tail,) = found["long tail"]
    assert tail["busy while any wait"] > 0.9
    printed = capsys.readouterr().out
    assert all(f"### {part}" in printed for part in sampling.PARTS)


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(SystemExit):
        sampling.main(sampling.Config(folder=tmp_path / "none", parts=("speed",)))
