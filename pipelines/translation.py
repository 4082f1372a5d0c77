"""Translation."""

from typing import Any

from .inputs import PipelineInputError
from .text_to_text import TextToTextPipeline


class TranslationPipeline(TextToTextPipeline):
    """Translates texts; inputs, outputs and options are those of `TextToTextPipeline`.

    ```python
    >>> translate = pipeline("translation", model=folder)
    >>> translate("A dog barks.", num_beams=5)
    [{'translation_text': 'Ein Hund bellt.'}]
    ```

    Args:
        src_lang, tgt_lang: the languages, by their names in a tokenizer with language codes (mBART, NLLB, M2M100).
    """

    return_name = "translation"

    def _sanitize_parameters(  # type: ignore[override]  # which has further options
        self, src_lang: str | None = None, tgt_lang: str | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name, language in (("src_lang", src_lang), ("tgt_lang", tgt_lang)):
            if language is not None:
                token = self._language_token(name, language)
                if name == "tgt_lang":
                    options["forced_bos_token_id"] = token
        if src_lang is not None:
            self.tokenizer.src_lang = src_lang
        return super()._sanitize_parameters(**options)

    def _language_token(self, name: str, language: str) -> int:
        tokenizer: Any = self.tokenizer
        if not hasattr(tokenizer, "set_src_lang_special_tokens"):
            raise PipelineInputError(
                f"{name} must be left out with {type(tokenizer).__name__}, which has no language codes, got "
                f"{language!r}; where a model takes its task as text, give prefix"
            )
        token = (getattr(tokenizer, "lang_code_to_id", None) or {}).get(language)
        token = tokenizer.convert_tokens_to_ids(language) if token is None else token
        if token is None or token == tokenizer.unk_token_id:
            raise PipelineInputError(
                f"{name} must be a language that {type(tokenizer).__name__} has a code for, got {language!r}"
            )
        return int(token)
