"""BLEU, chrF and exact match of translations. Self-contained: `evaluate` copies this file before it imports it."""

import datasets
import evaluate
from sacrebleu.metrics import BLEU, CHRF

_CITATION = """\
@inproceedings{post-2018-call, title = {A Call for Clarity in Reporting {BLEU} Scores}, author = {Post, Matt},
  booktitle = {Proceedings of the Third Conference on Machine Translation: Research Papers}, year = {2018}}
@inproceedings{popovic-2015-chrf, title = {chr{F}: character n-gram {F}-score for automatic {MT} evaluation},
  author = {Popovi{\\'c}, Maja}, booktitle = {Proceedings of the Tenth Workshop on Statistical Machine Translation},
  year = {2015}}
"""

_DESCRIPTION = "Corpus BLEU and chrF as sacreBLEU computes them, with their signatures, and exact match."

_INPUTS = """
Args:
    predictions: list of texts.
    references: for each prediction a text or a list of texts; the lists may differ in length.
    tokenize: sacreBLEU's tokenizer for BLEU, default '13a'; None leaves BLEU out, for texts that need different ones.
    lowercase: whether BLEU and chrF ignore case, default False.
Returns:
    sacrebleu, sacrebleu_signature, chrf, chrf_signature, exact_match (percentage equal to one of the references,
    surrounding whitespace apart); unless `lowercase`, also sacrebleu_lowercase and its signature: BLEU that ignores
    case, which much of the literature reports.
"""


# By `lowercase`: the keys of BLEU, and whether each ignores case.
_BLEU_KEYS = {False: {"sacrebleu": False, "sacrebleu_lowercase": True}, True: {"sacrebleu": True}}


class Seq2seqTranslation(evaluate.Metric):
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
            reference_urls=["https://github.com/mjpost/sacrebleu"],
        )

    def add_batch(self, *, predictions=None, references=None):
        """Add predictions and their references. Raises ValueError or TypeError for what cannot be scored."""
        _check(predictions, references)
        super().add_batch(predictions=predictions, references=references)

    def _compute(self, predictions, references, tokenize="13a", lowercase=False):
        if tokenize is not None and tokenize not in BLEU.TOKENIZERS:
            known = ", ".join(sorted(BLEU.TOKENIZERS))
            raise ValueError(f"tokenize={tokenize!r} is not a tokenizer of sacreBLEU; choose one of: {known}")
        references = [_as_list(texts) for texts in references]
        for index, texts in enumerate(references):
            if not any(texts):
                raise ValueError(f"reference {index} is empty; BLEU needs a text to compare with: drop such rows")
        # sacreBLEU takes columns: the first references of all, the second ones of all, with None where there is none.
        width = max(len(texts) for texts in references)
        columns = [[texts[i] if i < len(texts) else None for texts in references] for i in range(width)]
        chrf = CHRF(lowercase=lowercase)
        chrf_score = chrf.corpus_score(predictions, columns)
        scores = {}
        for name, ignored in {} if tokenize is None else _BLEU_KEYS[lowercase].items():
            bleu = BLEU(tokenize=tokenize, lowercase=ignored)
            scores[name] = bleu.corpus_score(predictions, columns).score
            scores[f"{name}_signature"] = str(bleu.get_signature())
        pairs = zip(predictions, references, strict=True)
        hits = sum(prediction.strip() in [text.strip() for text in texts] for prediction, texts in pairs)
        return scores | {
            "chrf": chrf_score.score,
            "chrf_signature": str(chrf.get_signature()),
            "exact_match": 100.0 * hits / len(predictions),
        }


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
