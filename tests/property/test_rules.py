"""What a payment is depends on the set of facts alone: never on their order, their repetition, or who was first."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from service.payments.facts import Fact, Kind, Reason, Source, join
from service.payments.rules import (
    NOT_TO_BE_FULFILLED,
    Decision,
    Payment,
    Problem,
    announce,
    decide_attempt,
    decide_payment,
)
from service.payments.states import State, Step

AMOUNTS = st.one_of(st.none(), st.sampled_from([0, 1, 499, 500, 501, 1000]))
FACTS = st.builds(
    Fact,
    kind=st.sampled_from(list(Kind)),
    movement=st.sampled_from(["m1", "m2"]),
    at_ms=st.integers(0, 5),
    amount_minor=AMOUNTS,
    asked_minor=st.sampled_from([None, 500, 600]),
    currency=st.sampled_from([None, "XOF", "EUR"]),
    fee_minor=st.sampled_from([None, 1, 2]),
    method=st.sampled_from([None, "card", "mobile_money"]),
    reason=st.sampled_from([None, Reason.TIMED_OUT, Reason.WRONG_PIN]),
    source=st.sampled_from(list(Source)),
)


def joined(facts: list[Fact]) -> list[Fact]:
    """The set of facts as the book keeps it: one per kind and movement, in the order of their arrival."""
    kept: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        key = (fact.kind, fact.movement)
        kept[key] = join(kept[key], fact) if key in kept else fact
    return list(kept.values())


def payment(*facts: Fact) -> Payment:
    """An adopted payment, told these facts."""
    return decide_payment([decide_attempt(joined(list(facts)))])


def said(kind: Kind, at_ms: int = 1, amount: int | None = None, **more: object) -> Fact:
    """A fact about a payment of 500 XOF."""
    return Fact(kind, more.pop("movement", "m1"), at_ms, amount, 500, "XOF", **more)  # type: ignore[arg-type]


@given(FACTS, FACTS, FACTS)
def test_joining_is_a_join(a: Fact, b: Fact, c: Fact) -> None:
    """Commutative, associative and idempotent for one kind and movement: the order of repeats cannot matter."""
    b, c = (Fact(a.kind, a.movement, *[getattr(x, n) for n in Fact.__slots__[2:]]) for x in (b, c))
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == a


@given(st.lists(FACTS, min_size=1, max_size=8), st.randoms())
def test_any_order_and_any_repetition_of_facts_end_the_same(facts: list[Fact], luck: object) -> None:
    """Shuffled and tripled, the same facts make the same attempt."""
    shuffled = [*facts, *facts, *facts]
    luck.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decide_attempt(joined(facts)) == decide_attempt(joined(shuffled))


@given(st.lists(FACTS, max_size=6), FACTS)
def test_money_wins_over_everything(facts: list[Fact], last: Fact) -> None:
    """Once captured, no other fact in any order makes it anything else."""
    capture = said(Kind.CAPTURED, amount=500, movement="m1")
    assert decide_attempt(joined([*facts, capture, last])).state is State.SUCCEEDED


def test_every_order_of_a_small_story_ends_the_same() -> None:
    """All 720 orders of decline, retry, action, success and its refund: one end."""
    story = [
        said(Kind.CREATED, 1),
        said(Kind.TRY_FAILED, 2, reason=Reason.INSUFFICIENT_FUNDS),
        said(Kind.REQUIRES_ACTION, 3),
        said(Kind.CAPTURED, 4, 500),
        Fact(Kind.REFUND_SUCCEEDED, "r1", 5, 200, None, "XOF"),
        Fact(Kind.DISPUTE_OPENED, "d1", 6, 500, None, "XOF"),
    ]
    ends = {payment(*order) for order in permutations(story)}
    assert len(ends) == 1
    end = ends.pop()
    assert (end.status, end.refunded_minor, end.problems) == ("partially_refunded", 200, {Problem.DISPUTED})


def test_r11_a_try_that_failed_is_not_a_failed_payment() -> None:
    """R11: `requires_payment_method` after a decline leaves the payment open, and a success is never overwritten."""
    assert payment(said(Kind.TRY_FAILED, 2)).status == "requires_action"
    assert payment(said(Kind.CAPTURED, 1, 500), said(Kind.TRY_FAILED, 9)).status == "succeeded"
    assert payment(said(Kind.CAPTURED, 1, 500), said(Kind.FAILED, 9)).status == "succeeded"


def test_r3_failed_then_success_of_one_payment_is_success() -> None:
    """R3: the second callback about one payment counts, whichever comes first."""
    orders = permutations([said(Kind.FAILED, 1), said(Kind.CAPTURED, 2, 500)])
    assert {payment(*order).status for order in orders} == {"succeeded"}


def test_r4_amount_and_currency_are_compared_with_what_was_asked() -> None:
    """R4: too little, too much and another currency are successes that nobody delivers on."""
    assert payment(said(Kind.CAPTURED, 1, 499)).problems == {Problem.UNDER}
    assert payment(said(Kind.CAPTURED, 1, 501)).problems == {Problem.OVER}
    other = decide_attempt([Fact(Kind.CAPTURED, "m1", 1, 500, None, "XAF")], asked=(500, "XOF"))
    assert other.problems == {Problem.MISMATCH}
    for wrong in (payment(said(Kind.CAPTURED, 1, 499)), decide_payment([other])):
        assert announce(None, wrong) == ("payment.attention",)


def test_r16_a_partial_refund_is_told_as_one_and_ends_nothing() -> None:
    """R16: some of the money back is `partially_refunded`; only all of it is `refunded`."""
    captured = said(Kind.CAPTURED, 1, 500)
    part = Fact(Kind.REFUNDED_TOTAL, "m1", 2, 100, None, "XOF")
    assert payment(captured, part).status == "partially_refunded"
    assert payment(captured, part, Fact(Kind.REFUNDED_TOTAL, "m1", 3, 500, None, "XOF")).status == "refunded"


def test_totals_and_single_refunds_are_not_added() -> None:
    """A provider that tells both the refund and the total so far has sent the money back once."""
    facts = (
        said(Kind.CAPTURED, 1, 500),
        Fact(Kind.REFUNDED_TOTAL, "m1", 2, 200, None, "XOF"),
        Fact(Kind.REFUND_SUCCEEDED, "r1", 2, 200, None, "XOF"),
    )
    assert payment(*facts).refunded_minor == 200


def test_a_refund_that_the_bank_rejects_later_is_no_refund() -> None:
    """Succeeded, then failed, in either order, also when a total had counted it."""
    facts = (
        said(Kind.CAPTURED, 1, 500),
        Fact(Kind.REFUNDED_TOTAL, "m1", 2, 500, None, "XOF"),
        Fact(Kind.REFUND_SUCCEEDED, "r1", 2, 500, None, "XOF"),
        Fact(Kind.REFUND_FAILED, "r1", 3, 500, None, "XOF"),
    )
    assert {(payment(*order).status, payment(*order).refunded_minor) for order in permutations(facts)} == {
        ("succeeded", 0)
    }


def test_a_refund_before_the_success_is_kept_and_counts_once_the_capture_is_known() -> None:
    """Alone it changes nothing; with the capture it is a refund."""
    refund = Fact(Kind.REFUND_SUCCEEDED, "r1", 1, 500, None, "XOF")
    assert payment(said(Kind.PENDING, 1), refund).status == "pending"
    assert payment(said(Kind.PENDING, 1), refund, said(Kind.CAPTURED, 2, 500)).status == "refunded"


def test_two_captured_attempts_are_a_duplicate() -> None:
    """Charged twice: told as attention; refunding one of them leaves a paid payment."""
    once = decide_attempt([said(Kind.CAPTURED, 1, 500)])
    again = decide_attempt([said(Kind.CAPTURED, 2, 500, movement="m2")])
    twice = decide_payment([once, again])
    assert twice.problems == {Problem.DUPLICATE} and twice.captured_minor == 1000
    assert announce(decide_payment([once]), twice) == ("payment.attention",)
    repaired = decide_attempt([said(Kind.CAPTURED, 2, 500, movement="m2"),
                               Fact(Kind.REFUND_SUCCEEDED, "r1", 3, 500, None, "XOF")])  # fmt: skip
    assert decide_payment([once, repaired]).status == "succeeded"


def test_late_is_after_our_own_end_never_merely_after_a_decline() -> None:
    """A FedaPay transaction approved after it was declined is ordinary; one after the order ended is late."""
    facts = [said(Kind.FAILED, 5), said(Kind.CAPTURED, 9, 500)]
    assert decide_attempt(facts).problems == set()
    assert decide_attempt(facts, ended_at_ms=8).problems == {Problem.LATE}
    assert decide_attempt(facts, ended_at_ms=9).problems == set()


def test_part_of_the_money_and_then_death_is_under() -> None:
    """What eBilling received in part does not vanish with the bill."""
    part = said(Kind.RECEIVED_PART, 1, 200)
    assert decide_attempt([part]).problems == set()
    assert decide_attempt([part, said(Kind.EXPIRED, 2)]).problems == {Problem.UNDER}


def test_a_reversal_and_an_open_dispute_are_exceptions_that_only_a_win_takes_away() -> None:
    """A clawback is no refund: the status stays, the exception is told, and so is its end."""
    captured = said(Kind.CAPTURED, 1, 500)
    opened = Fact(Kind.DISPUTE_OPENED, "d1", 2, 500, None, "XOF")
    before, during = payment(captured), payment(captured, opened)
    won = payment(captured, opened, Fact(Kind.DISPUTE_WON, "d1", 3, 500, None, "XOF"))
    lost = payment(captured, opened, Fact(Kind.DISPUTE_LOST, "d1", 3, 500, None, "XOF"))
    assert during.status == "succeeded" and during.problems == {Problem.DISPUTED}
    assert announce(before, during) == ("payment.disputed",)
    assert announce(during, won) == ("payment.disputed",)
    assert won.problems == set() and lost.problems == {Problem.DISPUTED}
    assert payment(captured, said(Kind.REVERSED, 4, 500)).problems == {Problem.DISPUTED}


def test_unknown_is_left_by_evidence_and_by_a_person_only() -> None:
    """A lost answer stays unknown whatever its age; the provider's word, or an operator's, ends it."""
    sent = [Decision(Step.SENDING, 1), Decision(Step.LOST, 2)]

    def state(*facts: Fact, more: tuple[Decision, ...] = ()) -> State:
        return decide_attempt(facts, asked=(500, "XOF"), decisions=[*sent, *more], start=State.CREATED).state

    assert state() is State.UNKNOWN
    assert state(said(Kind.PENDING, 3)) is State.PENDING
    assert state(said(Kind.CAPTURED, 0, 500)) is State.SUCCEEDED
    assert state(more=(Decision(Step.NOT_KNOWN, 9),)) is State.NOT_SENT
    assert state(said(Kind.PENDING, 3), more=(Decision(Step.NOT_KNOWN, 9),)) is State.PENDING
    assert state(more=(Decision(Step.OPERATOR_SUCCEEDED, 9),)) is State.SUCCEEDED


@given(st.lists(FACTS, max_size=5), FACTS)
def test_a_merchant_is_never_told_to_deliver_on_wrong_money(facts: list[Fact], last: Fact) -> None:
    """`payment.succeeded` is only ever said of a success without a blocking exception."""
    facts = [said(Kind.PENDING), *facts]
    before, after = payment(*facts), payment(*facts, last)
    if "payment.succeeded" in announce(before, after):
        assert after.status == "succeeded" and not after.problems & NOT_TO_BE_FULFILLED
        assert after.captured_minor == after.amount_minor


@given(st.lists(FACTS, max_size=6))
def test_nothing_is_told_when_nothing_changed(facts: list[Fact]) -> None:
    """The same payment again is no news."""
    same = payment(said(Kind.PENDING), *facts)
    assert announce(same, same) == ()
