import json

import pytest
from transformers import Qwen3Config

from fdjax.errors import ConfigError
from fdjax.model import ModelConfig

_SIZES = {
    "vocab_size": 151_936,
    "hidden_size": 1_024,
    "intermediate_size": 3_072,
    "num_layers": 28,
    "num_heads": 16,
    "num_kv_heads": 8,
    "head_dim": 128,
}

# The published config.json of Qwen3-0.6B, the keys that decide its arithmetic.
_QWEN3_0_6B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def test_from_hf_reads_qwen3():
    assert ModelConfig.from_hf(_QWEN3_0_6B) == ModelConfig(
        **_SIZES,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        qk_norm=True,
        attention_bias=False,
        max_position_embeddings=40_960,
    )


def test_round_trip_through_json():
    config = ModelConfig(
        **_SIZES, rope_theta=5e5, tie_word_embeddings=False, attention_bias=True
    )
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config


def test_round_trip_through_transformers():
    config = ModelConfig(
        **_SIZES, rope_theta=5e5, rms_norm_eps=1e-5, max_position_embeddings=999
    )
    theirs = Qwen3Config(**config.to_hf())
    assert theirs.num_hidden_layers == 28
    assert theirs.num_key_value_heads == 8
    assert theirs.head_dim == 128
    assert ModelConfig.from_hf(theirs.to_dict()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mixtral"}, "model_type = 'qwen3'"),
        ({"hidden_act": "gelu"}, "hidden_act = 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window = False"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling = None"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}},
            "rope_type 'default'",
        ),
    ],
)
def test_from_hf_refuses_what_the_decoder_does_not_do(change, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hf(_QWEN3_0_6B | change)


@pytest.mark.parametrize("key", ["head_dim", "rope_theta", "tie_word_embeddings"])
def test_from_hf_names_a_missing_key(key):
    config = {name: value for name, value in _QWEN3_0_6B.items() if name != key}
    with pytest.raises(ConfigError, match=key):
        ModelConfig.from_hf(config)


def test_only_a_qwen3_is_written_as_one():
    with pytest.raises(ConfigError, match="qk_norm"):
        ModelConfig(**_SIZES, qk_norm=False).to_hf()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, "num_layers to be at least 1, got 0"),
        ({"num_kv_heads": 3}, "num_kv_heads to divide num_heads = 16, got 3"),
        ({"head_dim": 5}, "even head_dim"),
        ({"rope_theta": 0.0}, "rope_theta to be positive"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps to be positive"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**(_SIZES | change))
