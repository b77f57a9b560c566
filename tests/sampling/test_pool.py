"""The pool of pages and the schedule, without a device."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdjax.sampling.pool import Pool
from fdjax.sampling.request import Request
from fdjax.sampling.schedule import Schedule

_SIZE = 2


def _tokens(*ids):
    return np.array(ids, np.int32)


def _row(pool, tokens):
    """Pages for the tokens, found or new, as a row that has written all of them."""
    found = pool.find(tokens)
    pool.hold(found)
    new = pool.take(-(-len(tokens) // pool.size) - len(found))
    if new is None:
        pool.let_go(found)
        return None
    pages = found + new
    for index in range(len(found), len(tokens) // pool.size):
        before = pages[index - 1] if index else None
        pool.enter(before, pages[index], tokens[index * pool.size :][: pool.size])
    return pages


def _numbers(pages):
    return [page.number for page in pages]


def test_a_prefix_is_found_but_never_the_last_token():
    pool = Pool(9, _SIZE)
    pages = _row(pool, _tokens(1, 2, 3, 4, 5))
    assert _numbers(pages) == [1, 2, 3]
    for tokens, found in (
        ((1, 2, 3, 4, 5, 6), [1, 2]),
        ((1, 2, 3, 4), [1]),
        ((1, 2, 9, 9, 9), [1]),
        ((9, 2, 3, 4, 5), []),
        ((1, 2), []),
        ((1,), []),
        # The third page is not full, and known to its row alone.
        ((1, 2, 3, 4, 5, 6, 7), [1, 2]),
    ):
        assert _numbers(pool.find(_tokens(*tokens))) == found


def test_pages_are_kept_until_room_is_needed():
    pool = Pool(5, _SIZE)
    first = _row(pool, _tokens(1, 1, 2, 2, 9))
    pool.let_go(first)
    assert pool.room == 4
    second = _row(pool, _tokens(3, 3, 4))
    # The first's pages that are known were kept, and its last one came back.
    assert _numbers(pool.find(_tokens(1, 1, 2, 2, 9))) == [1, 2]
    assert pool.take(3) is None
    # Whatever follows a page goes before it.
    assert len(pool.take(1)) == 1
    assert _numbers(pool.find(_tokens(1, 1, 2, 2, 9))) == [1]
    assert len(pool.take(1)) == 1
    assert pool.find(_tokens(1, 1, 2, 2, 9)) == []
    assert pool.room == 0
    assert _numbers(pool.find(_tokens(3, 3, 4))) == [second[0].number]


def test_what_was_used_last_goes_last():
    pool = Pool(4, _SIZE)
    for token in (1, 2, 3):
        pool.let_go(_row(pool, _tokens(token, token)))
    pool.hold(again := pool.find(_tokens(1, 1, 5)))
    pool.let_go(again)
    pool.take(1)
    kept = [bool(pool.find(_tokens(token, token, 5))) for token in (1, 2, 3)]
    assert kept == [True, False, True]


def test_a_page_that_is_known_already_is_its_rows_alone():
    """Two rows that write the same tokens at the same time."""
    pool = Pool(9, _SIZE)
    first, second = pool.take(2), pool.take(2)
    for pages in (first, second):
        pool.enter(None, pages[0], _tokens(1, 2))
        pool.enter(pages[0], pages[1], _tokens(3, 4))
    assert pool.find(_tokens(1, 2, 3, 4, 5)) == first
    pool.let_go(second)
    assert pool.room == 6
    assert pool.find(_tokens(1, 2, 3, 4, 5)) == first


@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 1), min_size=1, max_size=9),
            st.integers(0, 5),
        ),
        max_size=40,
    )
)
def test_every_page_is_somewhere(actions):
    """Rows come with tokens, and leave by their number."""
    pool, rows = Pool(8, _SIZE), []
    for action in actions:
        if isinstance(action, int):
            if action < len(rows):
                pool.let_go(rows.pop(action)[1])
        else:
            tokens = _tokens(*action)
            before = pool.room
            pages = _row(pool, tokens)
            if pages is None:
                assert pool.room == before
            else:
                assert len(pages) * _SIZE >= len(tokens)
                rows.append((tokens, pages))
        used = {page.number for _, pages in rows for page in pages}
        assert pool.room == 7 - len(used)
        # What rows share, they have written alike, up to the shorter one's end.
        for tokens, pages in rows:
            for other, theirs in rows:
                for index, page in enumerate(pages):
                    if page in theirs and page.parent is not None:
                        end = (index + 1) * _SIZE
                        assert theirs.index(page) == index
                        assert (tokens[:end] == other[:end]).all()
    for _, pages in rows:
        pool.let_go(pages)
    assert pool.room == 7
    assert len(pool.take(7)) == 7


def _request(number, prompt, budget=4):
    tokens = np.append(prompt, np.zeros(budget)).astype(np.int32)
    return Request(
        number=number,
        prompt=len(prompt),
        budget=budget,
        temperature=1.0,
        key=np.zeros((2,), np.uint32),
        tokens=tokens,
        known=np.zeros((3, budget), np.float32),
    )


def test_a_request_goes_where_its_prompt_is():
    schedule = Schedule([Pool(9, _SIZE), Pool(9, _SIZE)], slots=3)
    prompts = ([1, 1, 1], [2, 2, 2], [1, 1, 3], [2, 2, 3], [2, 2, 4])
    schedule.queue.extend(map(_request, range(5), prompts))
    schedule.admit()
    parts = {row.request.number: row.part for row in schedule.rows()}
    assert parts == {0: 0, 1: 1, 2: 0, 3: 1, 4: 1}
    assert schedule.reused == 3 * _SIZE


def test_blocks_come_after_those_that_they_read():
    schedule = Schedule([Pool(20, _SIZE)], slots=3)
    for number in range(2):
        schedule.queue.append(_request(number, [1, 2, 3, 4, 5, 6 + number]))
    schedule.admit()
    (taken,) = schedule.next_blocks(8)
    found = [(block.row.request.number, block.start, block.last) for block in taken]
    assert found == [(0, 0, False), (0, 2, False), (0, 4, True), (1, 4, True)]
    assert [row.request.number for row in schedule.ready()] == [0, 1]
    assert schedule.next_blocks(8) == [[]]


@pytest.mark.parametrize("slots", [1, 4])
def test_the_first_in_the_queue_is_served_first(slots):
    """A long request at its head is not overtaken by short ones that would fit."""
    schedule = Schedule([Pool(7, _SIZE)], slots=slots)
    schedule.queue.append(_request(0, [1] * 5))
    schedule.queue.append(_request(1, [2] * 9))
    schedule.queue.append(_request(2, [3]))
    schedule.admit()
    assert [row.request.number for row in schedule.rows()] == [0]
    assert [request.number for request in schedule.queue] == [1, 2]
