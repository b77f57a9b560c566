import json
import threading

import pytest

from fdjax.errors import ConfigError, StoreError
from fdjax.objects import Lease, exists, lease, read, write


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "STALE_S", 1.5)


def test_a_lease_is_one_processs_until_it_lets_go(address):
    with Lease(address / "lock") as held:
        with pytest.raises(ConfigError, match=r"alone in gs://.*process \d+ on"):
            Lease(address / "lock")
        held.check()
    assert not exists(address / "lock")
    with Lease(address / "lock"):
        assert exists(address / "lock")


def test_a_lease_without_a_sign_of_life_is_taken_over(address):
    """Its holder was killed; a holder that comes back must write nothing more."""
    killed = Lease(address / "lock")
    killed._released.set()
    killed._thread.join()
    with Lease(address / "lock") as held:
        killed._beat_once()
        with pytest.raises(StoreError, match="another process that took over"):
            killed.check()
        killed.release()
        held.check()
        token = json.loads(read(address / "lock"))["token"]
        assert token == held._token


def test_of_several_that_find_a_stale_lease_one_has_it(address):
    write(address / "lock", b'{"token": "gone", "holder": "process 1 on a"}')
    held, refused = [], []

    def take():
        try:
            held.append(Lease(address / "lock"))
        except ConfigError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 3)
    held[0].check()
    held[0].release()


def test_an_answer_that_is_lost_loses_no_lease(address):
    """The client repeats the request, and meets its own effect."""
    with Lease(address / "lock") as held:
        held._released.set()
        held._thread.join()
        latest = held._write(held._generation)
        held._beat_once()
        held.check()
        assert held._generation == latest
        held._beat_once()
        assert held._generation > latest
