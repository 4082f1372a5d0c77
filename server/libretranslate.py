"""LibreTranslate's API: https://docs.libretranslate.com/guides/api_usage."""

from typing import Any

from babel import Locale
from babel.core import UnknownLocaleError
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from ..utils.type_checks import did_you_mean
from .errors import ApiError, bad_request
from .events import EXAMPLE, EventStream
from .fields import brief, text_field, texts_field
from .models import TextModel
from .openapi import TEXT, TEXT_OR_LIST, describe
from .service import Service
from .settings import LanguagePair

_FIELDS = ("q", "source", "target", "format", "alternatives")
_SCHEMA = {
    "q": TEXT_OR_LIST,
    "source": {**TEXT, "description": "Code of the language of q."},
    "target": {**TEXT, "description": "Code of the language to translate to."},
    "format": {**TEXT, "enum": ["text"], "default": "text"},
}


def translation_routes(service: Service, model: TextModel) -> APIRouter:
    """/languages, /detect, /translate and, beside LibreTranslate's, /translate/stream."""
    router = APIRouter(tags=["translation"])
    languages = _languages(model.pairs)
    example = {"q": "A dog barks.", "source": model.pairs[0].source, "target": model.pairs[0].target}
    required = ("q", "source", "target")

    @router.get("/languages", summary="The languages, and what each is translated to")
    async def get_languages() -> list[dict[str, Any]]:
        return languages

    @router.post("/detect", summary="Refused: the model translates, and detects no languages")
    async def detect(request: Request) -> Response:
        await service.fields(request, "q", lists=("q",))
        raise ApiError(
            501, f"/detect must not be called: this server detects no languages; give source, {_codes(model)}"
        )

    @router.post(
        "/translate",
        summary="Translate a text or a list of texts",
        openapi_extra=describe(
            required, _SCHEMA, example, {"application/json": {"translatedText": "Ein Hund bellt."}}
        ),
    )
    async def translate(request: Request) -> Response:
        fields = await service.fields(request, *_FIELDS, lists=("q",))
        texts, is_list = texts_field(fields, "q", service.settings)
        pair = _pair(fields, model)
        outputs = await service.answers(request, texts, prefix=pair.prefix)
        return JSONResponse({"translatedText": outputs if is_list else outputs[0]})

    @router.post(
        "/translate/stream",
        summary="Translate a text by greedy decoding, a piece at a time, as Server-Sent Events",
        openapi_extra=describe(required, {**_SCHEMA, "q": TEXT}, example, {"text/event-stream": EXAMPLE}),
    )
    async def translate_stream(request: Request) -> Response:
        fields = await service.fields(request, *_FIELDS)
        text = text_field(fields, "q", service.settings)
        stream = await service.stream(request, text, model, prefix=_pair(fields, model).prefix)
        return EventStream(stream, lambda whole: {"translatedText": whole})

    return router


def _pair(fields: dict[str, Any], model: TextModel) -> LanguagePair:
    """The direction that a request asks for, after checks of the other fields. Raises ApiError 400."""
    if fields.get("format", "text") != "text":
        raise bad_request(f"format must be 'text', got {brief(fields['format'])}; send plain text")
    alternatives = fields.get("alternatives", 0)
    if alternatives not in (0, "0") or isinstance(alternatives, bool):
        raise bad_request(
            f"alternatives must be 0, since one translation is given, got {brief(alternatives)}; leave it out"
        )
    return find_pair(fields, model.pairs)


def find_pair(fields: dict[str, Any], pairs: tuple[LanguagePair, ...]) -> LanguagePair:
    """The direction from `source` to `target`. Raises ApiError 400, with what there is."""
    source: Any = fields.get("source")
    target: Any = fields.get("target")
    sources = sorted({pair.source for pair in pairs})
    for name, value in (("source", source), ("target", target)):
        if not isinstance(value, str) or not value:
            raise bad_request(f"{name} must be the code of a language, got {brief(value)}; give it")
    if source not in sources:
        fix = "give it, since this server detects no languages" if source == "auto" else did_you_mean(source, sources)
        raise bad_request(f"source must be one of {', '.join(sources)}, got {source[:20]!r}{fix and f'; {fix}'}")
    for pair in pairs:
        if (pair.source, pair.target) == (source, target):
            return pair
    targets = [pair.target for pair in pairs if pair.source == source]
    raise bad_request(f"target must be one of {', '.join(targets)} for source {source}, got {target[:20]!r}")


def _codes(model: TextModel) -> str:
    return " or ".join(sorted({pair.source for pair in model.pairs}))


def _languages(pairs: tuple[LanguagePair, ...]) -> list[dict[str, Any]]:
    codes = dict.fromkeys([*(pair.source for pair in pairs), *(pair.target for pair in pairs)])
    return [
        {"code": code, "name": _name(code), "targets": [pair.target for pair in pairs if pair.source == code]}
        for code in codes
    ]


def _name(code: str) -> str:
    try:
        return Locale.parse(code.replace("_", "-"), sep="-").get_display_name("en") or code
    except (UnknownLocaleError, ValueError):
        return code
