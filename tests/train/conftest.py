import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def optax_promotes():
    """optax raises a Python float to an integer step; our own code stays strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield
