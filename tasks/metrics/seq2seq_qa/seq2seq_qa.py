"""Exact match and token F1 of answers. Self-contained: `evaluate` copies this file before it imports it."""

import re
import string
from collections import Counter

import datasets
import evaluate

_CITATION = """\
@inproceedings{rajpurkar-etal-2016-squad, title = {{SQ}u{AD}: 100,000+ Questions for Machine Comprehension of Text},
  author = {Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy}, booktitle = {Proceedings of
  the 2016 Conference on Empirical Methods in Natural Language Processing}, year = {2016}}
"""

_DESCRIPTION = "Exact match and token F1 under SQuAD's normalisation, the best over each question's references."

_INPUTS = """
Args:
    predictions: list of texts.
    references: for each prediction a text or a list of texts; the lists may differ in length. The empty text is the
        reference of a question without an answer, as in SQuAD 2.
Returns:
    exact_match and f1, percentages. As in SQuAD 1.1, f1 is 0 where normalisation leaves no common token, so also
    where prediction and reference are both an article alone. With questions without an answer also HasAns_exact and
    HasAns_f1 of those that have one, if there are any, and NoAns_exact and NoAns_f1 of the others, for which both are
    100 if normalisation leaves nothing of the prediction, and else 0.
"""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Seq2seqQa(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
            reference_urls=["https://rajpurkar.github.io/SQuAD-explorer/"],
        )

    def add_batch(self, *, predictions=None, references=None):
        """Add predictions and their references. Raises ValueError or TypeError for what cannot be scored."""
        _check(predictions, references)
        super().add_batch(predictions=predictions, references=references)

    def _compute(self, predictions, references):
        scored = [
            (_score(prediction, _as_list(texts)), _as_list(texts) == [""])
            for prediction, texts in zip(predictions, references, strict=True)
        ]
        exact, f1 = _means([scores for scores, _ in scored])
        result = {"exact_match": exact, "f1": f1}
        if not any(unanswerable for _, unanswerable in scored):
            return result
        for name, wanted in (("HasAns", False), ("NoAns", True)):
            if part := [scores for scores, unanswerable in scored if unanswerable == wanted]:
                result[f"{name}_exact"], result[f"{name}_f1"] = _means(part)
        return result


def normalize(text):
    """Lower case, without ASCII punctuation, English articles and extra whitespace, in that order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _score(prediction, texts):
    """Whether the prediction matches a reference, and its best F1, both 0 to 1."""
    tokens = normalize(prediction).split()
    wanted = [normalize(text).split() for text in texts]
    overlaps = (token_f1(tokens, one) if text else float(not tokens) for text, one in zip(texts, wanted, strict=True))
    return float(tokens in wanted), max(overlaps)


def _means(scores):
    """Percentages: the means of both scores."""
    return tuple(100.0 * sum(column) / len(scores) for column in zip(*scores, strict=True))


def token_f1(prediction, reference):
    """Harmonic mean of precision and recall over tokens, each counted as often as it occurs in both."""
    common = sum((Counter(prediction) & Counter(reference)).values())
    return 2 * common / (len(prediction) + len(reference)) if common else 0.0


def _check(predictions, references):
    if isinstance(predictions, str) or isinstance(references, str):
        raise TypeError("predictions and references must be lists, not one string each")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references; give one for each")
    if len(predictions) == 0:
        raise ValueError("nothing to score: predictions and references are empty; give at least one of each")
    for index, (prediction, texts) in enumerate(zip(predictions, references, strict=True)):
        if not _as_list(texts):
            raise ValueError(f"reference {index} is an empty list; give at least one text")
        for what, text in [("prediction", prediction), *(("reference", text) for text in _as_list(texts))]:
            if not isinstance(text, str):
                raise TypeError(f"{what} {index} is of type {type(text).__name__}, not str; give decoded text")


def _as_list(texts):
    return list(texts) if isinstance(texts, list | tuple) else [texts]
