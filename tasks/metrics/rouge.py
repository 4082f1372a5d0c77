"""ROUGE-1, -2, -L and -Lsum, the best over the references of each text, by rouge_score."""

import evaluate
from rouge_score.rouge_scorer import RougeScorer

from .text_pairs import FEATURES, CheckedPairs, as_list

_CITATION = """\
@inproceedings{lin-2004-rouge, title = {{ROUGE}: A Package for Automatic Evaluation of Summaries}, author = {Lin,
  Chin-Yew}, booktitle = {Text Summarization Branches Out}, year = {2004}}
"""

_DESCRIPTION = "The F1 of word overlap with the reference that is nearest, as rouge_score computes it."

_INPUTS = """
Args:
    predictions: list of texts; a line break ends a sentence, which only rougeLsum asks for.
    references: for each prediction a text or a list of texts; the lists may differ in length.
    use_stemmer: whether words are compared by their stems (Porter's, for English), default True.
Returns:
    rouge1, rouge2, rougeL and rougeLsum, percentages: the mean over the texts of the F1 with the reference that it is
    highest with, for each of the four by itself, as SciTLDR (Cachola et al. 2020) scores several references.
"""

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class Rouge(CheckedPairs, evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=FEATURES,
            reference_urls=["https://github.com/google-research/google-research/tree/master/rouge"],
        )

    def _compute(self, predictions, references, use_stemmer=True):
        scorer = RougeScorer(list(KINDS), use_stemmer=use_stemmer)
        scores = [
            scorer.score_multi(as_list(texts), prediction)
            for prediction, texts in zip(predictions, references, strict=True)
        ]
        return {kind: 100.0 * sum(score[kind].fmeasure for score in scores) / len(scores) for kind in KINDS}
