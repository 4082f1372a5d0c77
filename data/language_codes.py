"""Tokenizers with language codes (mBART, NLLB, M2M100): which languages they know, and where their codes go.

A code stands before or after a text, by the tokenizer. What makes a decoder generate a language follows from where: a
code before targets is the first token to generate, a code after them is the token that a decoder starts with.
"""

from transformers import PreTrainedTokenizerBase

from ..utils.errors import InputError
from .tokenization import special_ends

FIELDS = ("source_language", "target_language")
SHOWN = 8


def has_language_codes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether texts get a code for their language."""
    return hasattr(tokenizer, "set_tgt_lang_special_tokens")


def known_languages(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The languages that a tokenizer with language codes has a code for, as it names them."""
    codes = getattr(tokenizer, "lang_code_to_id", None)
    if codes is None:
        named = set(tokenizer.special_tokens_map.values()) if tokenizer.special_tokens_map else set()
        codes = {
            token: tokenizer.convert_tokens_to_ids(token)
            for token in tokenizer.all_special_tokens
            if token not in named and not token.startswith("<")
        }
    return sorted(code for code, id_ in codes.items() if id_ != tokenizer.unk_token_id)


def set_languages(tokenizer: PreTrainedTokenizerBase, source: str | None, target: str | None) -> None:
    """Have a tokenizer put the codes of these languages to sources and targets, also once it is saved and loaded.

    Raises:
        InputError: a language that it does not know, or none where it needs one, or one where it has no codes.
    """
    given = dict(zip(FIELDS, (source, target), strict=True))
    name = type(tokenizer).__name__
    if not has_language_codes(tokenizer):
        for field, language in given.items():
            if language is not None:
                raise InputError(
                    f"{field} must be left out for a {name}, which has no language codes, got {language!r}; where a "
                    "model takes its task as text, set source_prefix"
                )
        return
    known = known_languages(tokenizer)
    for field, language in given.items():
        if language not in known:
            alike = [code for code in known if code[:2].lower() == (language or "")[:2].lower()]
            some = [*alike, *(code for code in known if code not in alike)][:SHOWN]
            raise InputError(
                f"{field} must be a language that the {name} has a code for, got {language!r}; give one of "
                f"{', '.join(some)}" + (f" and {len(known) - len(some)} more" if len(known) > len(some) else "")
            )
    for attribute, language in (("src_lang", source), ("tgt_lang", target)):
        setattr(tokenizer, attribute, language)
        tokenizer.init_kwargs[attribute] = language  # what is saved


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many ids a model needs; the codes of some tokenizers (M2M100) do not count in their length."""
    codes = getattr(tokenizer, "lang_code_to_id", None) or {}
    return max(len(tokenizer), *(id_ + 1 for id_ in codes.values()), 0)


def language_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """By which special token a model generates the target language: none where the tokenizer has no codes."""
    if not has_language_codes(tokenizer):
        return {}
    before, after = special_ends(tokenizer, of_target=True)
    if before:
        return {"forced_bos_token_id": before[0]}
    return {"decoder_start_token_id": after[-1]}
