"""What the metrics here share: predictions are texts, and each has one text or several as references.

`evaluate` copies this file together with a metric that imports from it, so it imports nothing of the package itself.
"""

import datasets

_TEXT = datasets.Value("string")
# The columns of a metric: a list of references for each prediction, or one reference each.
FEATURES = [
    datasets.Features({"predictions": _TEXT, "references": datasets.List(_TEXT)}),
    datasets.Features({"predictions": _TEXT, "references": _TEXT}),
]


class CheckedPairs:
    """What a metric inherits first, so that it refuses what it cannot score."""

    def add_batch(self, *, predictions=None, references=None):
        """Add predictions and their references. Raises as `check_pairs`."""
        check_pairs(predictions, references)
        super().add_batch(predictions=predictions, references=references)  # type: ignore[misc]


def check_pairs(predictions, references):
    """Refuse what cannot be scored.

    Raises:
        TypeError: something else than a list of texts, or of lists of texts.
        ValueError: unequal numbers, nothing to score, or a prediction without a reference.
    """
    for name, texts in (("predictions", predictions), ("references", references)):
        if isinstance(texts, str):
            raise TypeError(f"{name} must be a list of texts, got one text {texts[:40]!r}; write [text]")
    if len(predictions) != len(references):
        fix = "give" if len(predictions) < len(references) else "drop"
        raise ValueError(
            f"predictions must have one text for each of {len(references)} references, got {len(predictions)}; "
            f"{fix} the rest"
        )
    if len(predictions) == 0:
        raise ValueError("predictions must have at least one text, got none; give what the model generated")
    for index, (prediction, texts) in enumerate(zip(predictions, references, strict=True)):
        if not as_list(texts):
            raise ValueError(f"references[{index}] must have at least one text, got none; add one or drop the example")
        for name, text in [("predictions", prediction), *(("references", text) for text in as_list(texts))]:
            if not isinstance(text, str):
                raise TypeError(f"{name}[{index}] must be text, got {type(text).__name__}; give decoded text")


def as_list(texts):
    """The references of one prediction as a list, also where there is one only."""
    return list(texts) if isinstance(texts, list | tuple) else [texts]
