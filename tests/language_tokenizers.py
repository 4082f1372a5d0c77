"""Small tokenizers with language codes, without a file of Transformers' Hub: NLLB, mBART and mBART-50."""

from transformers import MBart50Tokenizer, MBartTokenizer, NllbTokenizer, PreTrainedTokenizerBase

LETTERS = ["▁", *"hoaiu"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
# The languages that the tests translate between, as each names them.
LANGUAGES = {"nllb": ("eng_Latn", "deu_Latn"), "mbart": ("en_XX", "de_DE"), "mbart50": ("en_XX", "de_DE")}
# A model of each kind.
FAMILIES = {"nllb": "m2m_100", "mbart": "mbart", "mbart50": "mbart"}


def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    """A tokenizer of letters, as it is before anyone has set its languages."""
    if kind == "nllb":
        ids = {token: at for at, token in enumerate([*SPECIAL, *LETTERS])}
        return NllbTokenizer(vocab=ids, merges=[], extra_special_tokens=["eng_Latn", "deu_Latn", "fra_Latn"])
    letters = [(letter, -2.0) for letter in LETTERS]
    special = [(token, 0.0) for token in SPECIAL]
    if kind == "mbart":
        return MBartTokenizer(vocab=[*special, *letters, *((code, 0.0) for code in ("en_XX", "de_DE", "fr_XX"))])
    return MBart50Tokenizer(vocab=[*special, *letters, *((code, 0.0) for code in ("en_XX", "de_DE", "fr_XX"))])
