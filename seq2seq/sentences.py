"""Where the sentences of a text are, and the answer in a text that says first what it follows from."""

import re
from itertools import pairwise

# What ends a sentence, with the quotes and brackets that close behind it; a line break ends one too.
_END = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[”’」』）]*|\n)\s*")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """The sentences of a text, `(first character, one past the last)`, without whitespace at their ends.

    A sentence ends behind `.`, `!`, `?` or `…` (and what closes behind it: quotes, brackets) before whitespace, behind
    `。`, `！` or `？`, and at a line break. So a dot behind an abbreviation ends one as well.

    ```python
    >>> sentence_spans("Ann left. Where to?")
    [(0, 9), (10, 19)]
    ```
    """
    borders = [0, *(match.end() for match in _END.finditer(text)), len(text)]
    spans = []
    for first, last in pairwise(borders):
        part = text[first:last]
        if part.strip():
            spans.append((first + len(part) - len(part.lstrip()), first + len(part.rstrip())))
    return spans


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The sentence, or the run of sentences, that the characters from `start` to before `end` are in."""
    touched = [(first, last) for first, last in sentence_spans(text) if first < end and last > start]
    return (min(touched[0][0], start), max(touched[-1][1], end)) if touched else (start, end)


ANSWER = "Answer: "
"""What stands between an answer and what it follows from."""
_ANSWER = re.compile(r"answer\s*:", re.IGNORECASE)


def has_mark(text: str) -> bool:
    """Whether `Answer:` stands in a text, as `split_answer` finds it."""
    return _ANSWER.search(text) is not None


def split_answer(text: str, no_answer: str | None = None, quote: str | None = None) -> tuple[str, str]:
    """What stands before the last `Answer:` of a text, and the answer behind it, which is all where there is none.

    Tokenizers that lowercase or cut punctuation off write it as `answer :`.

    Args:
        no_answer: an answer that says that there is none, in any case; `""` then stands for it.
        quote: what could only be quoted. With `"sentences"` the first `Answer:` counts, for none of them has it.
    """
    marks = list(_ANSWER.finditer(text))
    mark = marks[0 if quote == "sentences" else -1] if marks else None
    before, answer = (text[: mark.start()], text[mark.end() :]) if mark else ("", text)
    answer = answer.strip()
    says_none = no_answer is not None and answer.casefold() == no_answer.strip().casefold()
    return before.strip(), "" if says_none else answer
