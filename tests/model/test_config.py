import json

import jaxtyping
import pytest
from transformers import AutoConfig

from fdjax.errors import ConfigError
from fdjax.model import (
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    YarnScaling,
    config_from_hf,
    config_to_hf,
    weights_dtype,
    with_weights_dtype,
)

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

# Qwen2.5-Math-7B, on which many provers are built; heads of 3584 / 28 = 128.
_QWEN2_5_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 4096,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 152064,
}

# A Llama of DeepSeek's 7B shape, stretched by YaRN as its provers are.
_LLAMA_YARN = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 65536,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 30,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 16,
        "mscale": 1,
        "mscale_all_dim": 0.5,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "vocab_size": 102400,
}


def test_qwen3_is_read():
    assert config_from_hf(_QWEN3_0_6B) == ModelConfig(
        **_SIZES,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        qk_norm=True,
        max_position_embeddings=40_960,
    )


def test_qwen2_is_read():
    config = config_from_hf(_QWEN2_5_7B)
    assert (config.qk_norm, config.attention_bias, config.output_bias) == (
        False,
        True,
        False,
    )
    assert (config.head_dim, config.num_kv_heads) == (128, 4)
    assert (config.rope_theta, config.rope_scaling) == (10_000.0, None)


def test_llama_with_yarn_is_read():
    config = config_from_hf(_LLAMA_YARN)
    assert (config.qk_norm, config.attention_bias, config.head_dim) == (
        False,
        False,
        128,
    )
    assert isinstance(config.rope_scaling, YarnScaling)
    assert (config.rope_scaling.factor, config.rope_scaling.beta_slow) == (16, 1)
    # (0.1 · 1 · ln 16 + 1) / (0.1 · 0.5 · ln 16 + 1) = 1.277259 / 1.138629
    assert config.rope_scaling.attention_factor == pytest.approx(1.121752, abs=1e-6)


_WINDOWS = {
    "all layers begin after the window's": (28, None, None),
    "more layers than there are": (40, None, None),
    "layer_types says so": (2, ["full_attention"] * 28, None),
    "one layer slides": (27, None, "full attention in all layers"),
    "layer_types has one": (
        28,
        ["full_attention"] * 27 + ["sliding_attention"],
        "full attention in all layers",
    ),
}


@pytest.mark.parametrize("case", _WINDOWS)
def test_layer_types_alone_say_whether_attention_slides(case):
    full_from, kinds, message = _WINDOWS[case]
    content = _QWEN2_5_7B | {
        "use_sliding_window": True,
        "max_window_layers": full_from,
        "layer_types": kinds,
    }
    if message is None:
        assert config_from_hf(content) == config_from_hf(_QWEN2_5_7B)
        return
    with pytest.raises(ConfigError, match=message):
        config_from_hf(content)


def test_swish_is_another_name_of_silu():
    assert config_from_hf(_QWEN3_0_6B | {"hidden_act": "swish"}) == config_from_hf(
        _QWEN3_0_6B
    )


# As transformers 5.23 loads such folders, tried with PyTorch.
_DTYPES = {
    "neither": ({}, None),
    "old": ({"torch_dtype": "bfloat16"}, "bfloat16"),
    "new": ({"dtype": "float16"}, "float16"),
    "new before old": ({"torch_dtype": "float32", "dtype": "bfloat16"}, "bfloat16"),
    "null is absent": ({"torch_dtype": "bfloat16", "dtype": None}, "bfloat16"),
    "both null": ({"torch_dtype": None, "dtype": None}, None),
    "the old one unread": (
        {"torch_dtype": "auto", "dtype": "half"},
        "float16",
    ),
    "by part": ({"dtype": {"": "bfloat16", "vision": "float32"}}, "bfloat16"),
    "by part, none for all": ({"dtype": {"text": "bfloat16"}}, "float32"),
}


@pytest.mark.parametrize("case", _DTYPES)
def test_the_type_of_the_weights_is_what_transformers_takes(case):
    keys, want = _DTYPES[case]
    assert weights_dtype(keys) == want
    plain = {key: _QWEN3_0_6B[key] for key in _QWEN3_0_6B if key != "torch_dtype"}
    assert config_from_hf(plain | keys) == config_from_hf(plain)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(
    "value",
    ["auto", "torch.bfloat16", "BF16", "float64", "", 16, ["bfloat16"], {"": 3}],
)
def test_what_is_no_type_of_weights_is_refused(key, value):
    plain = {key: _QWEN3_0_6B[key] for key in _QWEN3_0_6B if key != "torch_dtype"}
    with pytest.raises(ConfigError, match=f"expected {key} among float32, bfloat16"):
        config_from_hf(plain | {key: value})


@pytest.mark.parametrize(
    ("keys", "want"),
    [
        ({}, {"dtype": "float16"}),
        ({"torch_dtype": "bfloat16"}, {"torch_dtype": "float16"}),
        ({"dtype": None}, {"dtype": "float16"}),
        ({"dtype": "half"}, {"dtype": "half"}),
        (
            {"torch_dtype": "float32", "dtype": "float16"},
            {"torch_dtype": "float16", "dtype": "float16"},
        ),
    ],
)
def test_a_new_type_is_written_under_every_key_that_is_there(keys, want):
    assert with_weights_dtype(keys, "float16") == want


def test_llama_3_2_names_its_scaling_twice_and_in_integers():
    scaling = {
        "factor": 32,
        "low_freq_factor": 1,
        "high_freq_factor": 4,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
        "type": "llama3",
    }
    content = _LLAMA_YARN | {
        "head_dim": 64,
        "hidden_size": 2048,
        "num_key_value_heads": 8,
        "rope_scaling": scaling,
        "tie_word_embeddings": True,
        "some_key_of_a_tool": {"a": 1},
    }
    config = config_from_hf(content)
    assert config.rope_scaling == Llama3Scaling(
        factor=32.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    assert (config.head_dim, config.tie_word_embeddings) == (64, True)


def test_what_decides_twice_is_read_as_transformers_does():
    content = _QWEN2_5_7B | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "head_dim": None,
        "num_key_value_heads": None,
    }
    config = config_from_hf(content)
    assert (config.rope_theta, config.head_dim, config.num_kv_heads) == (1e6, 128, 28)
    # Without the key each family has its own default; all of ours untie.
    untold = {k: v for k, v in _QWEN3_0_6B.items() if k != "tie_word_embeddings"}
    assert not config_from_hf(untold).tie_word_embeddings


def test_the_first_llama_says_little():
    config = config_from_hf(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        }
    )
    assert (config.num_kv_heads, config.head_dim, config.rope_theta) == (32, 128, 1e4)
    assert not config.tie_word_embeddings


_MODELS = {
    "qwen3": ModelConfig(
        **_SIZES, rope_theta=5e5, attention_bias=True, output_bias=True
    ),
    "qwen2": ModelConfig(
        **_SIZES, qk_norm=False, attention_bias=True, tie_word_embeddings=False
    ),
    "llama": ModelConfig(
        **_SIZES,
        qk_norm=False,
        mlp_bias=True,
        rope_scaling=Llama3Scaling(
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    ),
    "linear": ModelConfig(
        **_SIZES, qk_norm=False, rope_scaling=LinearScaling(factor=4.0)
    ),
    "yarn": ModelConfig(
        **_SIZES,
        rms_norm_eps=1e-5,
        max_position_embeddings=4096,
        rope_scaling=YarnScaling(factor=4.0, original_max_position_embeddings=1024),
    ),
}


def test_a_model_of_qwen2s_shape_is_written_as_one_that_keeps_its_tokenizer():
    written = config_to_hf(_MODELS["qwen2"])
    assert written["model_type"] == "seed_oss"
    # Its defaults would drop a tenth in others' training.
    assert (written["attention_dropout"], written["residual_dropout"]) == (0, 0)


@pytest.mark.parametrize("name", _MODELS)
def test_round_trip_through_transformers(name):
    config = _MODELS[name]
    written = json.loads(json.dumps(config_to_hf(config)))
    assert config_from_hf(written) == config
    theirs = AutoConfig.for_model(**written)
    assert theirs.num_hidden_layers == 28
    assert config_from_hf(theirs.to_dict()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "mixtral"},
            "model_type among qwen3, llama, seed_oss, qwen2 .*'mixtral'",
        ),
        ({"architectures": ["Qwen3ForTokenClassification"]}, "Qwen3ForCausalLM"),
        ({"hidden_act": "gelu"}, "'silu' in config.json, got hidden_act = 'gelu'"),
        (
            {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2},
            "full attention in all layers",
        ),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rope_type in default, linear, llama3, yarn",
        ),
        ({"partial_rotary_factor": 0.5}, "RoPE on whole heads"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised by 'awq'"),
        ({"quantization_config": "awq"}, "quantised by 'awq'"),
        ({"hidden_size": "wide"}, "transformers cannot read"),
        ({"architectures": 3}, "architectures in config.json to be a list, got 3"),
        ({"rope_theta": "1e6"}, "rope_theta as a number"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": [2.0]}},
            "rope_parameters of 'linear'",
        ),
        ({"num_key_value_heads": 3}, "num_kv_heads to divide num_heads = 16, got 3"),
    ],
)
def test_what_the_decoder_does_not_do_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        config_from_hf(_QWEN3_0_6B | change)


def test_weights_quantised_by_nothing_are_read():
    config = _QWEN3_0_6B | {"quantization_config": None}
    assert config_from_hf(config) == config_from_hf(_QWEN3_0_6B)


def test_a_llama_without_heads_is_refused():
    with pytest.raises(ConfigError, match="transformers cannot read"):
        config_from_hf(_LLAMA_YARN | {"num_attention_heads": 0, "head_dim": None})


def test_a_scaling_that_lacks_a_key_is_refused():
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    with pytest.raises(ConfigError, match="high_freq_factor"):
        config_from_hf(_LLAMA_YARN | {"rope_scaling": scaling})


def test_only_a_known_family_is_written():
    with pytest.raises(ConfigError, match=r"qk_norm = True.*mlp_bias = True"):
        config_to_hf(ModelConfig(**_SIZES, mlp_bias=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, "num_layers to be an integer from 1 .*, got 0"),
        ({"num_kv_heads": 3}, "num_kv_heads to divide num_heads = 16, got 3"),
        ({"head_dim": 5}, "head_dim to be even"),
        ({"hidden_size": 2**31}, "hidden_size to be an integer from 1"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings to be one of True"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling to be a LinearScaling"),
        ({"remat_names": ["heads"]}, "remat_names to be a tuple"),
        ({"rope_theta": 0.0}, "rope_theta to be a finite number above 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps to be a finite number above 0"),
        ({"remat_names": ("heads", "knees")}, "remat_names to be .*, got .*knees"),
    ],
)
def test_impossible_settings_are_refused(change, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**(_SIZES | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float16"}, "dtype to be one of float32, bfloat16, got 'float16'"),
        ({"remat": "some"}, "remat to be one of none, dots, named, full, got 'some'"),
        ({"attention": "flash"}, "attention to be one of auto, .* got 'flash'"),
    ],
)
def test_unknown_choices_are_refused_without_type_checks(change, message):
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ConfigError, match=message):
            ModelConfig(**(_SIZES | change))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("scaling", "values", "message"),
    [
        (
            LinearScaling,
            {"factor": 0.0},
            r"LinearScaling\.factor .* above 0, got 0\.0",
        ),
        (
            Llama3Scaling,
            {
                "factor": 8.0,
                "low_freq_factor": 4.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            "high_freq_factor above low_freq_factor",
        ),
        (
            YarnScaling,
            {"factor": 4.0, "original_max_position_embeddings": -1},
            "original_max_position_embeddings to be",
        ),
    ],
)
def test_impossible_scalings_are_refused(scaling, values, message):
    with pytest.raises(ConfigError, match=message):
        scaling(**values)
