"""Exact match and token F1 of answers."""

import re
import string
from collections import Counter

import evaluate

from .text_pairs import FEATURES, as_list, check_pairs

_CITATION = """\
@inproceedings{rajpurkar-etal-2016-squad, title = {{SQ}u{AD}: 100,000+ Questions for Machine Comprehension of Text},
  author = {Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy}, booktitle = {Proceedings of
  the 2016 Conference on Empirical Methods in Natural Language Processing}, year = {2016}}
"""

_DESCRIPTION = "Exact match and token F1 under SQuAD 1.1's normalisation, the best over each question's references."

_INPUTS = """
Args:
    predictions: list of texts.
    references: for each prediction a text or a list of texts; the lists may differ in length.
Returns:
    exact_match and f1, percentages. As in SQuAD 1.1, f1 is 0 where normalisation leaves no common token, so also
    where prediction and reference are both an article alone.
"""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Seq2seqQa(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=FEATURES,
            reference_urls=["https://rajpurkar.github.io/SQuAD-explorer/"],
        )

    def add_batch(self, *, predictions=None, references=None):
        """Add predictions and their references. Raises ValueError or TypeError for what cannot be scored."""
        check_pairs(predictions, references)
        super().add_batch(predictions=predictions, references=references)

    def _compute(self, predictions, references):
        matches, overlaps = 0.0, 0.0
        for prediction, texts in zip(predictions, references, strict=True):
            tokens = normalize(prediction).split()
            reference_tokens = [normalize(text).split() for text in as_list(texts)]
            matches += tokens in reference_tokens
            overlaps += max(token_f1(tokens, reference) for reference in reference_tokens)
        return {"exact_match": 100.0 * matches / len(predictions), "f1": 100.0 * overlaps / len(predictions)}


def normalize(text):
    """Lower case, without ASCII punctuation, English articles and extra whitespace, in that order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(prediction, reference):
    """Harmonic mean of precision and recall over tokens, each counted as often as it occurs in both."""
    common = sum((Counter(prediction) & Counter(reference)).values())
    return 2 * common / (len(prediction) + len(reference)) if common else 0.0
