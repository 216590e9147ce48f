"""Strict reading of bodies and queries, cursors, the document: pure, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from service.api import problems
from service.api.v1 import OPERATIONS, reading
from service.api.v1.document import MEANINGS, document
from service.api.v1.lists import PageQuery, cursor, page
from service.api.v1.page import page as docs_page
from service.api.v1.payments import NewPayment, PaymentsQuery
from service.errors import NotFound, Refusal
from tests.support import corpora

ROOT = Path(__file__).parents[2]
GOOD = {"amount": 5_000, "currency": "XOF", "method": "card"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def said(read: Callable[[], Any], *codes: str) -> Any:
    """What was read; None when it was refused, with one of these words and a sentence."""
    try:
        return read()
    except Refusal as refused:
        told = refused
    assert told.sentence.endswith(".") and told.code in codes, told
    return None


@given(body=JSON, field=st.sampled_from([*NewPayment.__struct_fields__, "other"]))
def test_any_value_in_any_field_is_read_or_refused_in_words(body: object, field: str) -> None:
    """Nothing but a Refusal comes out of it, with a sentence; what is read has the types that it should."""
    for whole in (body, GOOD | {field: body}):
        read = said(lambda whole=whole: reading.decode(json.dumps(whole).encode(), NewPayment), "bad_json", "bad_field")
        if read is not None:
            assert type(read.amount) is int and 0 < read.amount <= 10**15


@pytest.mark.parametrize("name", sorted(corpora.json_texts()))
def test_texts_that_parsers_differ_about(name: str) -> None:
    """No text of the suite is read as a payment, and none breaks the reader."""
    with pytest.raises(Refusal):
        reading.decode(corpora.json_texts()[name], NewPayment)


@given(raw=st.binary(max_size=200) | st.text().map(lambda text: f"limit={text}&after={text}".encode()))
def test_any_query_is_read_or_refused_in_words(raw: bytes) -> None:
    """The same for what stands behind the question mark."""
    read = said(lambda: reading.query(raw, PaymentsQuery), "bad_query")
    if read is not None:
        assert 1 <= read.limit <= 100


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        ({"amount": 5.0}, "amount", "amount must be an integer of minor units."),
        ({"amount": 10**400}, "amount", "amount: expected int <= 1000000000000000."),
        ({"customer": {"name": 1}}, "customer.name", "customer.name: expected str, got int."),
        ({"customer": {"age": 1}}, "customer.age", "customer.age: there is no such field."),
        ({"providers": ["a", 1]}, "providers[1]", "providers[1]: expected str, got int."),
        ({"reference": "a\n"}, "reference", "reference: control characters"),
        ({"metadata": {"a": "b\x07"}}, "metadata.a", "metadata.a: control characters"),
    ],
)
def test_the_field_is_named(body: dict[str, Any], field: str, sentence: str) -> None:
    """A path that a program can use and a sentence that a person can read."""
    with pytest.raises(Refusal) as refused:
        reading.decode(json.dumps(GOOD | body).encode(), NewPayment)
    assert problems.field_of(refused.value) == field and sentence in refused.value.sentence


def test_line_breaks_inside_are_text() -> None:
    """A description may have two lines."""
    assert reading.decode(json.dumps(GOOD | {"description": "a\nb"}).encode(), NewPayment).description == "a\nb"


@given(identifier=st.text("abcXYZ019_:.-", min_size=1, max_size=150))
def test_a_cursor_leads_back_to_its_row(identifier: str) -> None:
    """And an id does as well, unless it looks like a cursor."""
    assert PageQuery(after=cursor(identifier)).before == identifier
    assert identifier.startswith("cur_") or PageQuery(after=identifier).before == identifier


@given(after=st.text(max_size=40).map(lambda text: "cur_" + text))
def test_a_cursor_that_was_never_given_is_refused(after: str) -> None:
    """Each row has one cursor: what decodes and does not encode to itself was made up."""
    before = said(lambda: PageQuery(after=after).before, "bad_cursor")
    assert not before or cursor(before) == after


@given(count=st.integers(0, 12), limit=st.integers(1, 5))
def test_pages_have_every_row_once(count: int, limit: int) -> None:
    """Whatever the limit: all rows, in order, and `more` says the truth."""
    ids = [f"x_{number:03}" for number in range(count, 0, -1)]

    def fetch(before: str, most: int) -> list[dict[str, str]]:
        return [{"id": id_} for id_ in ids if not before or id_ < before][:most]

    seen: list[str] = []
    after = ""
    for _ in range(20):
        said = page(PageQuery(limit=limit, after=after), fetch)
        seen += [row["id"] for row in said["data"]]
        after = said["next"]
        assert said["more"] == (len(seen) < count)
        if not said["more"]:
            break
    assert seen == ids


def test_every_status_that_a_refusal_can_have_is_described() -> None:
    """A new code with a new status needs a sentence in the document."""
    assert set(problems.STATUS.values()) <= set(MEANINGS)
    assert problems.detail(NotFound("payment", "pay_1", "caisse payments list")) == "There is no payment 'pay_1'."


def test_the_document_is_whole_and_the_same_each_time() -> None:
    """Every reference leads somewhere, every shape is used, and no clock or luck is in it."""
    made = document(OPERATIONS)
    text = json.dumps(made)
    assert made == document(OPERATIONS)
    for name in made["components"]["schemas"]:
        assert text.count(f'"#/components/schemas/{name}"') >= 1, name
    for op in OPERATIONS:
        assert op.body is None or (issubclass(op.body, Struct) and op.body.__struct_config__.forbid_unknown_fields), (
            op.id
        )
        assert op.query is None or op.query.__struct_config__.forbid_unknown_fields, op.id
        assert op.words[0] and not op.words[0].endswith("."), op.id
    assert len(docs_page(made)) <= 100_000


def test_the_guide_names_every_operation() -> None:
    """docs/api.md has a line for each, and none for one that is gone."""
    text = (ROOT / "docs/api.md").read_text("utf-8")
    listed = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `") and " /" in line}
    assert listed == {f"{op.method} {op.path}" for op in OPERATIONS}
    for op in OPERATIONS:
        if op.scope:
            assert f"| `{op.method} {op.path}` | {op.scope} |" in text, op.id
