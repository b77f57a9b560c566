import jax
import pytest

from fdjax.checkpoint import save_pretrained, write_description
from tiny import MODEL, TOKENIZER


@pytest.fixture(autouse=True, scope="session")
def as_users_run_it():
    """optax needs standard promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """A policy in Hugging Face's format, small enough for a test."""
    folder = tmp_path_factory.mktemp("policy")
    write_description(folder / "description", MODEL.config, TOKENIZER)
    save_pretrained(
        jax.jit(MODEL.init)(jax.random.key(0)),
        MODEL.config,
        folder / "policy",
        description=folder / "description",
    )
    return folder / "policy"
