"""BIO tags of words: from spans and back, and the best well-formed ones under the scores of a model.

`B-X` begins a span of label X, `I-X` goes on with it, `O` is outside of all spans (Ramshaw and Marcus 1995,
https://aclanthology.org/W95-0107). Letters: B batch, W words, C classes.
"""

from collections.abc import Sequence

import torch

OUTSIDE = "O"


def bio_tags(labels: Sequence[str]) -> tuple[str, ...]:
    """All tags for spans with these labels, `O` first.

    ```python
    >>> bio_tags(["ARG0", "V"])
    ('O', 'B-ARG0', 'B-V', 'I-ARG0', 'I-V')
    ```
    """
    return (OUTSIDE, *(f"B-{label}" for label in labels), *(f"I-{label}" for label in labels))


def spans_of_tags(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The spans, `(label, first word, last word)`, in their order. An `I-X` that goes on with no X begins one.

    ```python
    >>> spans_of_tags(["B-ARG0", "I-ARG0", "O", "B-V"])
    [('ARG0', 0, 1), ('V', 3, 3)]
    ```
    """
    spans: list[tuple[str, int, int]] = []
    for index, tag in enumerate(tags):
        kind, _, label = tag.partition("-")
        if kind == "I" and spans and spans[-1][0] == label and spans[-1][2] == index - 1:
            spans[-1] = (label, spans[-1][1], index)
        elif tag != OUTSIDE:
            spans.append((label, index, index))
    return spans


def bracketed(words: Sequence[str], tags: Sequence[str]) -> str:
    """Words with their spans in brackets, each behind its label.

    ```python
    >>> bracketed(["Ann", "sees", "him", "."], ["B-ARG0", "B-V", "B-ARG1", "O"])
    '[ARG0 Ann ] [V sees ] [ARG1 him ] .'
    ```
    """
    opens = {first: label for label, first, _ in spans_of_tags(tags)}
    closes = {last for _, _, last in spans_of_tags(tags)}
    parts = []
    for index, word in enumerate(words):
        parts += [*([f"[{opens[index]}"] if index in opens else []), word, *(["]"] if index in closes else [])]
    return " ".join(parts)


class BioDecoder:
    """Finds the likeliest tags among those that are well-formed, by the Viterbi algorithm.

    Args:
        tags: the names of the classes, in their order, all of them BIO tags.

    Raises:
        ValueError: a name that is no BIO tag, or an `I-X` without its `B-X`.
    """

    def __init__(self, tags: Sequence[str]):
        numbers = {tag: index for index, tag in enumerate(tags)}
        for tag in tags:
            if tag != OUTSIDE and not (tag[:2] in ("B-", "I-") and tag[2:]):
                raise ValueError(f"tags must be O, B-label or I-label, got {tag!r}; give a model of BIO tags")
            if tag.startswith("I-") and f"B-{tag[2:]}" not in numbers:
                raise ValueError(f"tags must have B-{tag[2:]} beside {tag}; add it")
        self.tags = tuple(tags)
        self.inside = torch.tensor([numbers[tag] for tag in tags if tag.startswith("I-")], dtype=torch.int64)
        self.begin = torch.tensor([numbers[f"B-{tag[2:]}"] for tag in tags if tag.startswith("I-")], dtype=torch.int64)

    def __call__(self, scores: torch.Tensor, lengths: Sequence[int]) -> list[list[str]]:
        """The tags of the words of each text.

        Args:
            scores: (B, W, C) logits; those of a word without any are 0. lengths: how many words each text has.
        """
        emissions = scores.float().log_softmax(-1).cpu()
        first = emissions[:, 0].clone()
        first[:, self.inside] = -torch.inf
        best, pointers = [first], []
        for word in range(1, emissions.shape[1]):
            score = best[-1]
            value, origin = score.max(1, keepdim=True)
            value, origin = value.repeat(1, score.shape[1]), origin.repeat(1, score.shape[1])
            # An I-X goes on with B-X or I-X alone; what begins or is outside may follow anything.
            both = torch.stack((score[:, self.begin], score[:, self.inside]))
            value[:, self.inside], which = both.max(0)
            origin[:, self.inside] = torch.where(which == 0, self.begin, self.inside)
            best.append(value + emissions[:, word])
            pointers.append(origin)
        paths = []
        for row, length in enumerate(lengths):
            path = [int(best[length - 1][row].argmax())]
            for word in range(length - 2, -1, -1):
                path.append(int(pointers[word][row, path[-1]]))
            paths.append([self.tags[index] for index in reversed(path)])
        return paths
