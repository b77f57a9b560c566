import jax
import pytest

from fdjax.lean import install


@pytest.fixture(autouse=True, scope="session")
def as_users_run_it():
    """optax needs standard promotion, and the embedded Lean must be there."""
    install()
    with jax.numpy_dtype_promotion("standard"):
        yield
