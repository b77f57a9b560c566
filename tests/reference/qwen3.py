"""Qwen3 in NumPy float64, written from its published equations; no JAX, no fdjax code.

One row at a time, without padding: what padding must be equivalent to.
"""

import numpy as np


def rms_norm(x, scale, eps):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale


def rope(x, positions, theta):
    """Complex form: (x_i, x_{i+H/2}) as one complex number, turned by an angle."""
    half = x.shape[-1] // 2
    numbers = x[..., :half] + 1j * x[..., half:]
    wavelengths = theta ** (-2.0 * np.arange(half) / x.shape[-1])
    turned = numbers * np.exp(1j * positions[:, None] * wavelengths)[:, None, :]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def attention(x, weights, *, heads, kv_heads, theta, eps):
    length = len(x)
    project = lambda name: (  # noqa: E731
        np.tensordot(x, weights[name], axes=1) + weights.get(f"{name}_bias", 0.0)
    )
    query, key, value = project("query"), project("key"), project("value")
    if "query_norm" in weights:
        query = rms_norm(query, weights["query_norm"]["scale"], eps)
        key = rms_norm(key, weights["key_norm"]["scale"], eps)
    positions = np.arange(length)
    query, key = rope(query, positions, theta), rope(key, positions, theta)
    out = np.zeros_like(query)
    for head in range(heads):
        source = head // (heads // kv_heads)
        for t in range(length):
            scores = key[: t + 1, source] @ query[t, head] / np.sqrt(query.shape[-1])
            exponentials = np.exp(scores - scores.max())
            out[t, head] = exponentials @ value[: t + 1, source] / exponentials.sum()
    mixed = out.reshape(length, -1) @ weights["output"].reshape(-1, x.shape[-1])
    return mixed + weights.get("output_bias", 0.0)


def feed_forward(x, weights):
    gate = x @ weights["gate"]
    return (gate / (1 + np.exp(-gate)) * (x @ weights["up"])) @ weights["down"]


def select(tree, index):
    if isinstance(tree, dict):
        return {name: select(leaf, index) for name, leaf in tree.items()}
    return tree[index]


def widen(tree):
    if isinstance(tree, dict):
        return {name: widen(leaf) for name, leaf in tree.items()}
    return np.asarray(tree, np.float64)


def logits(params, tokens, *, layers, heads, kv_heads, theta, eps):
    """Logits [T, V] of one unpadded row of token ids [T]."""
    params = widen(params)
    x = params["embedding"][np.asarray(tokens)]
    for index in range(layers):
        block = select(params["layers"], index)
        normed = rms_norm(x, block["attention_norm"]["scale"], eps)
        x = x + attention(
            normed,
            block["attention"],
            heads=heads,
            kv_heads=kv_heads,
            theta=theta,
            eps=eps,
        )
        normed = rms_norm(x, block["mlp_norm"]["scale"], eps)
        x = x + feed_forward(normed, block["mlp"])
    x = rms_norm(x, params["norm"]["scale"], eps)
    return x @ params.get("head", params["embedding"]).T
