"""BLEU, chrF and exact match of translations."""

from itertools import zip_longest

import evaluate
from sacrebleu.metrics import BLEU, CHRF

from .text_pairs import FEATURES, CheckedPairs, as_list

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


class Seq2seqTranslation(CheckedPairs, evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=FEATURES,
            reference_urls=["https://github.com/mjpost/sacrebleu"],
        )

    def _compute(self, predictions, references, tokenize="13a", lowercase=False):
        if tokenize is not None and tokenize not in BLEU.TOKENIZERS:
            known = ", ".join(sorted(BLEU.TOKENIZERS))
            raise ValueError(
                f"tokenize must be one of sacreBLEU's tokenizers, {known}, got {tokenize!r}; give one of these"
            )
        references = [as_list(texts) for texts in references]
        for index, texts in enumerate(references):
            if not any(texts):
                raise ValueError(
                    f"references[{index}] must have a text that is not empty for BLEU, got {texts}; drop the example"
                )
        # sacreBLEU takes columns: the first references of all, the second ones of all, with None where there is none.
        columns = list(zip_longest(*references))
        chrf = CHRF(lowercase=lowercase)
        chrf_score = chrf.corpus_score(predictions, columns)
        scores = {}
        for name, ignores_case in {} if tokenize is None else _BLEU_KEYS[lowercase].items():
            bleu = BLEU(tokenize=tokenize, lowercase=ignores_case)
            scores[name] = bleu.corpus_score(predictions, columns).score
            scores[f"{name}_signature"] = str(bleu.get_signature())
        pairs = zip(predictions, references, strict=True)
        hits = sum(prediction.strip() in [text.strip() for text in texts] for prediction, texts in pairs)
        return scores | {
            "chrf": chrf_score.score,
            "chrf_signature": str(chrf.get_signature()),
            "exact_match": 100.0 * hits / len(predictions),
        }
