"""Accuracy, and macro precision, recall and F1, by scikit-learn."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from .text_pairs import CheckedPairs

_CITATION = """\
@article{pedregosa-etal-2011-scikit, title = {Scikit-learn: Machine Learning in {P}ython}, author = {Pedregosa, F. and
  Varoquaux, G. and Gramfort, A. and Michel, V. and Thirion, B. and others}, journal = {Journal of Machine Learning
  Research}, volume = {12}, year = {2011}}
"""

_DESCRIPTION = "How often the class of a text is right, in all and on average over the classes."

_INPUTS = """
Args:
    predictions: list of the names of classes.
    references: for each prediction the name of the right class.
Returns:
    accuracy, and precision, recall and f1, each the mean over the classes that are predicted or right somewhere, 0 for
    a class that is not both; percentages.
"""


class TextClassification(CheckedPairs, evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://scikit-learn.org/stable/modules/model_evaluation.html"],
        )

    def _compute(self, predictions, references):
        means = precision_recall_fscore_support(references, predictions, average="macro", zero_division=0)
        scores = dict(zip(("precision", "recall", "f1"), means[:3], strict=True))
        scores = {"accuracy": accuracy_score(references, predictions), **scores}
        return {name: 100.0 * float(value) for name, value in scores.items()}
