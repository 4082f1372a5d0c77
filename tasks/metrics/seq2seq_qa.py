"""Exact match and token F1 of answers."""

import re
import string
from collections import Counter

import evaluate

from .text_pairs import FEATURES, CheckedPairs, as_list

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


class Seq2seqQa(CheckedPairs, evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=FEATURES,
            reference_urls=["https://rajpurkar.github.io/SQuAD-explorer/"],
        )

    def _compute(self, predictions, references):
        scores = [score(prediction, as_list(texts)) for prediction, texts in zip(predictions, references, strict=True)]
        has_answer = [as_list(texts) != [""] for texts in references]
        exact, f1 = means(scores)
        result = {"exact_match": exact, "f1": f1}
        for name, kind in (("HasAns", True), ("NoAns", False)):
            part = [pair for pair, has in zip(scores, has_answer, strict=True) if has is kind]
            if part and not all(has_answer):
                result[f"{name}_exact"], result[f"{name}_f1"] = means(part)
        return result


def score(prediction, references):
    """Whether the prediction matches a reference, and its best F1, both 0 to 1."""
    tokens = normalize(prediction).split()
    reference_tokens = [normalize(text).split() for text in references]
    overlaps = (
        token_f1(tokens, reference) if text else float(not tokens)
        for text, reference in zip(references, reference_tokens, strict=True)
    )
    return float(tokens in reference_tokens), max(overlaps)


def means(scores):
    """The means of both scores, as percentages."""
    return tuple(100.0 * sum(column) / len(scores) for column in zip(*scores, strict=True))


def normalize(text):
    """Lower case, without ASCII punctuation, English articles and extra whitespace, in that order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(prediction, reference):
    """Harmonic mean of precision and recall over tokens, each counted as often as it occurs in both."""
    common = sum((Counter(prediction) & Counter(reference)).values())
    return 2 * common / (len(prediction) + len(reference)) if common else 0.0
