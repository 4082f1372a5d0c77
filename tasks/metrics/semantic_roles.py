"""Precision, recall and F1 of the arguments of predicates, as CoNLL-2005 scores them."""

import datasets
import evaluate

_CITATION = """\
@inproceedings{carreras-marquez-2005-introduction, title = {Introduction to the {C}o{NLL}-2005 Shared Task: Semantic
  Role Labeling}, author = {Carreras, Xavier and M{\\`a}rquez, Llu{\\'i}s}, booktitle = {Proceedings of the Ninth
  Conference on Computational Natural Language Learning}, year = {2005}}
"""

_DESCRIPTION = "Arguments with the right label and the right words, over all predicates."

_INPUTS = """
Args:
    predictions: for each predicate a BIO tag for each word of its sentence.
    references: the same of the right arguments.
Returns:
    precision, recall and f1 of arguments, and exact_match, the predicates whose arguments are all right; percentages.
    A discontinuous argument is right as a whole: its parts are the span X and the spans C-X behind it. C-X without an
    X before it is an argument of its own. The predicate itself, V, is given, and does not count.
"""

PREDICATE = "V"


class SemanticRoles(evaluate.Metric):
    def _info(self):
        tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": tags, "references": tags}),
            reference_urls=["https://www.cs.upc.edu/~srlconll/soft.html"],
        )

    def add_batch(self, *, predictions=None, references=None):
        """Add predictions and their references. Raises ValueError or TypeError for what cannot be scored."""
        check_tags(predictions, references)
        super().add_batch(predictions=predictions, references=references)

    def _compute(self, predictions, references):
        pairs = [(arguments(one), arguments(other)) for one, other in zip(predictions, references, strict=True)]
        right = sum(len(predicted & wanted) for predicted, wanted in pairs)
        predicted, wanted = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
        return {
            "precision": 100.0 * right / max(predicted, 1),
            "recall": 100.0 * right / max(wanted, 1),
            "f1": 200.0 * right / max(predicted + wanted, 1),
            "exact_match": 100.0 * sum(one == other for one, other in pairs) / len(pairs),
        }


def arguments(tags):
    """The arguments of a predicate, each its label and the first and last words of its parts."""
    found: list[tuple[str, list[tuple[int, int]]]] = []
    for label, first, last in spans(tags):
        base = label.removeprefix("C-")
        before = [parts for known, parts in found if known == base] if base != label else []
        if before:
            before[-1].append((first, last))
        else:
            found.append((base, [(first, last)]))
    return {(label, tuple(parts)) for label, parts in found if label != PREDICATE}


def spans(tags):
    """Label, first and last word of each span; an I-X that goes on with no X begins one, as in conlleval."""
    found: list[tuple[str, int, int]] = []
    for index, tag in enumerate(tags):
        kind, _, label = tag.partition("-")
        if kind == "I" and found and found[-1][0] == label and found[-1][2] == index - 1:
            found[-1] = (label, found[-1][1], index)
        elif kind in ("B", "I"):
            found.append((label, index, index))
    return found


def check_tags(predictions, references):
    """Refuse what cannot be scored.

    Raises:
        TypeError: something else than lists of tags.
        ValueError: unequal numbers, nothing to score, or a tag that is not BIO.
    """
    if len(predictions) != len(references) or len(predictions) == 0:
        raise ValueError(
            f"predictions must be one for each of {len(references)} references, at least one, got {len(predictions)}"
        )
    for index, pair in enumerate(zip(predictions, references, strict=True)):
        for name, tags in zip(("predictions", "references"), pair, strict=True):
            if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
                raise TypeError(f"{name}[{index}] must be a list of tags, got {tags!r:.60}")
            for tag in tags:
                if tag != "O" and not (tag[:2] in ("B-", "I-") and tag[2:]):
                    raise ValueError(f"{name}[{index}] must have the tags O, B-label or I-label, got {tag!r}")
        if len(pair[0]) != len(pair[1]):
            raise ValueError(
                f"predictions[{index}] must have a tag for each of {len(pair[1])} words, got {len(pair[0])}"
            )
