"""The checker for Lake projects: the real Lean program, run by the embedded Lean."""

import pytest

from fdjax.errors import BackendError, InstallError
from fdjax.lean import NativeBackend, Status, Verifier
from lean.corpus import FAILURES, FALSE, GIVING_UP, THEOREMS


@pytest.fixture(scope="module")
def native_verifier(native):
    with Verifier(lambda: native, workers=1) as verifier:
        yield verifier


def test_theorems_failures_and_giving_up(native_verifier):
    items = [*THEOREMS, *FAILURES, *((FALSE, proof) for proof in GIVING_UP)]
    verdicts = native_verifier.verify(items)
    statuses = [verdict.status for verdict in verdicts]
    assert statuses[: len(THEOREMS)] == [Status.VERIFIED] * len(THEOREMS)
    assert set(statuses[len(THEOREMS) :]) == {Status.REJECTED}
