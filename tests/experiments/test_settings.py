"""Wrong settings end in one message that names the field, before anything begins."""

import pytest

from experiments import quickstart

WRONG = [
    ("name", [""], "name"),
    ("name", ["."], "name"),
    ("name", [".."], "name"),
    ("name", ["a/b"], "name"),
    ("name", ["a\\b"], "name"),
    ("name", ["a\tb"], "name"),
    ("seed", ["-1"], "seed"),
    ("seed", ["4294967296"], "seed"),
    ("minif2f", ["no.jsonl"], "minif2f"),
    ("minif2f", ["."], "minif2f"),
    ("lean-workers", ["0"], "lean_workers"),
    ("lean-timeout-s", ["0"], "lean_timeout_s"),
    ("lean-timeout-s", ["-1"], "lean_timeout_s"),
    ("lean-timeout-s", ["nan"], "lean_timeout_s"),
    ("lean-timeout-s", ["inf"], "lean_timeout_s"),
    ("data.problems", ["0"], "problems"),
    ("data.problems", ["960"], "data.problems"),
    ("data.references", ["1"], "references"),
    ("data.seed", ["-1"], "seed"),
    ("data.pool", ["0"], "pool"),
    ("data.pool", ["-1"], "pool"),
    ("data.pool", ["100000"], "data.pool"),
    ("data.validation", ["0"], "validation"),
    ("data.test", ["-1"], "test"),
    ("data.longest", ["1"], "longest"),
    ("data.longest", ["10"], "longest"),
    ("data.sft-ease", ["-1"], "sft_ease"),
    ("data.sft-ease", ["nan"], "sft_ease"),
    ("data.propositional", ["1.5"], "propositional"),
    ("data.propositional", ["nan"], "propositional"),
    ("data.mistakes", ["0"], "mistakes"),
    ("data.rewordings", ["0"], "rewordings"),
    ("data.withheld", ["rigth"], "withheld"),
    ("model.vocab-size", ["259"], "vocab_size"),
    ("model.hidden-size", ["-5"], "hidden_size"),
    ("model.intermediate-size", ["0"], "intermediate_size"),
    ("model.num-layers", ["0"], "num_layers"),
    ("model.num-heads", ["3"], "num_kv_heads"),
    ("model.num-kv-heads", ["0"], "num_kv_heads"),
    ("model.head-dim", ["23"], "head_dim"),
    ("warm-start.steps", ["0"], "steps"),
    ("warm-start.batch-size", ["0"], "batch_size"),
    ("warm-start.feedback-share", ["2"], "feedback_share"),
    ("warm-start.feedback-share", ["nan"], "feedback_share"),
    ("warm-start.optimizer.learning-rate", ["0"], "learning_rate"),
    ("warm-start.optimizer.learning-rate", ["nan"], "learning_rate"),
    ("warm-start.optimizer.warmup-steps", ["-5"], "warmup_steps"),
    ("warm-start.optimizer.decay-steps", ["50"], "decay_steps"),
    ("fd.optimizer.decay-steps", ["0"], "decay_steps"),
    ("fd.optimizer.final-fraction", ["-1"], "final_fraction"),
    ("fd.optimizer.max-gradient-norm", ["0"], "max_gradient_norm"),
    ("fd.divergence", ["kl"], "divergence"),
    ("fd.teacher-rate", ["2"], "teacher_rate"),
    ("fd.teacher-rate", ["nan"], "teacher_rate"),
    ("fd.plan", ["-1"], "plan"),
    ("grpo.optimizer.learning-rate", ["inf"], "learning_rate"),
    ("grpo.optimizer.beta1", ["2"], "beta1"),
    ("grpo.optimizer.beta2", ["1"], "beta2"),
    ("grpo.clip-low", ["3"], "clip_low"),
    ("grpo.clip-high", ["-0.1"], "clip_high"),
    ("grpo.clip-high", ["nan"], "clip_high"),
    ("control.weight-decay", ["-1"], "weight_decay"),
    ("rollout.steps", ["-3"], "steps"),
    ("rollout.steps", ["1"], "steps"),
    ("rollout.steps", ["12"], "handover"),
    ("rollout.handover", ["0"], "handover"),
    ("rollout.handover", ["36"], "handover"),
    ("rollout.problems", ["0"], "problems"),
    ("rollout.problems", ["801"], "rollout.problems"),
    ("rollout.group-size", ["1"], "group_size"),
    ("rollout.group-size", ["0"], "group_size"),
    ("rollout.group-size", ["-1"], "group_size"),
    ("rollout.updates", ["0"], "updates"),
    ("rollout.updates", ["3"], "rollout.updates"),
    ("rollout.updates", ["512"], "rollout.updates"),
    ("rollout.max-new-tokens", ["0"], "max_new_tokens"),
    ("rollout.feedback-tokens", ["0"], "feedback_tokens"),
    ("rollout.feedback-tokens", ["-1"], "feedback_tokens"),
    ("rollout.temperature", ["0"], "temperature"),
    ("rollout.temperature", ["nan"], "temperature"),
    ("evaluation.samples", ["0"], "samples"),
    ("evaluation.split", ["train"], "split"),
    ("evaluation.ks", ["1", "128"], "evaluation.ks"),
    ("evaluation.ks", ["0", "1"], "ks"),
    ("evaluation.ks", ["4", "1"], "evaluation.ks"),
    ("evaluation.ks", ["1", "1"], "evaluation.ks"),
    ("evaluation.ks", [], "evaluation.ks"),
]


@pytest.mark.parametrize(("flag", "values", "field"), WRONG)
def test_a_wrong_setting_is_refused_before_anything_begins(
    tmp_path, capsys, monkeypatch, flag, values, field
):
    monkeypatch.setattr(quickstart, "run", lambda *_: pytest.fail("something began"))
    with pytest.raises(SystemExit) as stop:
        quickstart.main(["--runs", str(tmp_path), f"--{flag}", *values])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert field in said
    assert not list(tmp_path.iterdir())
