"""What the domain says when it will not do something; the doors know which HTTP status or exit status that is."""

from __future__ import annotations


class Refusal(Exception):
    """The request was understood and will not be done: a fixed word for programs, one sentence for people."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence

    def __reduce__(self) -> tuple[type[Refusal], tuple[str, str]]:
        return type(self), (self.code, self.sentence)


class NotFound(Refusal):
    """There is nothing with this id; the sentence says how to see what there is."""

    def __init__(self, what: str, identifier: str, listed_by: str) -> None:
        shown = identifier[:60]
        super().__init__("not_found", f"There is no {what} {shown!r}; `{listed_by}` shows them.")

    def __reduce__(self) -> tuple[type[Refusal], tuple[str, str]]:
        return Refusal, (self.code, self.sentence)
