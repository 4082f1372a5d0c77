"""PropBank's semantic roles."""

from collections.abc import Iterator
from pathlib import Path

from ...utils.errors import InputError
from ..text_files import parse_json, read_lines
from .records import Text, list_of, look_up
from .registry import register_format


@register_format("propbank")
def read_propbank(*, path: str | Path) -> Iterator[dict[str, Text]]:
    """JSON lines, one sentence each: a record for each of its predicates, none for a sentence without.

    A line has `tokens`, the words, and `preds`: `[{"i": word, "args": [[label, first word, last word], ...]}, ...]`,
    words counted from 0. A record has `words`, `predicate`, the number of its word, and `tags`, a BIO tag for each
    word, where the predicate's own is `B-V`.
    """
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}, line {number}"
        sentence = parse_json(line, path, number)
        words = list_of(sentence, "tokens", place)
        if not all(isinstance(word, str) and word for word in words):
            raise InputError(f"{place}: each item of 'tokens' must be a word, got {words!r:.80}")
        for index, predicate in enumerate(list_of(sentence, "preds", place)):
            at = f"{place}, preds[{index}]"
            word = look_up(predicate, "i", at)
            if type(word) is not int or not 0 <= word < len(words):
                raise InputError(f"{at}: 'i' must be the number of a word, 0 to {len(words) - 1}, got {word!r}")
            yield {"words": words, "predicate": str(word), "tags": _tags(list_of(predicate, "args", at), words, at)}


def _tags(arguments: list, words: list[str], place: str) -> list[str]:
    """A BIO tag for each word.

    Raises:
        InputError: an argument that is no span of the words, or overlaps another.
    """
    tags = ["O"] * len(words)
    for argument in arguments:
        is_span = isinstance(argument, list) and len(argument) == 3
        label, first, last = argument if is_span else (None, None, None)
        if not isinstance(label, str) or type(first) is not int or type(last) is not int:
            raise InputError(f"{place}: an argument must be [label, first word, last word], got {argument!r:.80}")
        if not 0 <= first <= last < len(words):
            raise InputError(f"{place}: an argument must be within words 0 to {len(words) - 1}, got {argument!r:.80}")
        if any(tag != "O" for tag in tags[first : last + 1]):
            raise InputError(f"{place}: the arguments must not overlap, got {argument!r:.80}; leave one out")
        tags[first : last + 1] = [f"B-{label}", *[f"I-{label}"] * (last - first)]
    return tags
