"""What is stored comes back as it was, and its form is one that later releases can read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusewire.idempotency._records import (
    LONGEST_KEY,
    Answer,
    Trailers,
    decode_trailers,
    encode_trailers,
    stored_key,
)

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
trailers = st.lists(st.tuples(texts, texts | st.binary(max_size=40)), max_size=6).map(tuple)


@given(trailers)
def test_trailers_come_back_in_order_and_with_their_kinds(given_trailers: Trailers) -> None:
    assert decode_trailers(encode_trailers(given_trailers)) == given_trailers


def test_the_stored_form_of_trailers_does_not_change() -> None:
    assert encode_trailers(()) == b""
    both: Trailers = (("a", "b"), ("c-bin", b"\x00\xff"), ("a", "c"))
    assert encode_trailers(both) == b'[["a","b"],["c-bin",["AP8="]],["a","c"]]'


def test_a_key_is_stored_as_it_is_unless_it_is_long() -> None:
    assert stored_key("k" * LONGEST_KEY) == "k" * LONGEST_KEY
    long = stored_key("k" * LONGEST_KEY + "1")
    assert long.startswith("*")
    assert len(long) == 65
    assert long != stored_key("k" * LONGEST_KEY + "2")


def test_the_size_of_an_answer_is_that_of_all_its_parts() -> None:
    assert Answer(0).size == 0
    assert Answer(0, reply=b"123").size == 3
    assert Answer(5, b"12", (("a", "b"),)).size == 2 + len('[["a","b"]]')
