"""What a request says: its fields, from JSON, a form or the query, and checks of their types and sizes."""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request

from ..utils.errors import InputError
from ..utils.text import check_text
from ..utils.type_checks import did_you_mean
from .bodies import read_body
from .errors import ApiError, as_bad_request, bad_request, too_large
from .settings import Settings

_MOST_FIELDS = 1000


async def read_fields(request: Request, settings: Settings, known: Sequence[str], lists: Sequence[str]) -> dict:
    """The fields of a request; those that are null are left out.

    Clients of LibreTranslate send JSON, forms, and fields in the query of a POST.

    Args:
        known: the fields that the endpoint takes, beside `api_key`. lists: those of which several may be given.

    Raises:
        ApiError: 400 for what cannot be read, 408 for what does not arrive, 413 for what is too large, 415 for another
            type of body.
    """
    body = await read_body(
        request, limit=settings.max_body, timeout=settings.read_timeout, fix="send several requests"
    )
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields = _pairs(request.scope.get("query_string", b""), "the query", lists)
    if kind == "application/json":
        given = json_object(body, "the body")
    elif kind == "application/x-www-form-urlencoded" or not body:
        given = _pairs(body, "the form", lists)
    else:
        raise ApiError(
            415,
            f"Content-Type must be application/json or application/x-www-form-urlencoded, got {kind[:80]!r}; send one "
            "of these",
        )
    for name, value in given.items():
        if name in fields:
            raise bad_request(f"{name[:40]!r} must be given once, got it in the query and in the body")
        fields[name] = value
    check_known(fields, (*known, "api_key"))
    return {name: value for name, value in fields.items() if value is not None}


def check_known(fields: Iterable[str], known: Sequence[str]) -> None:
    """Refuse a field that would do nothing. Raises ApiError 400, with those that there are."""
    for name in fields:
        if name not in known:
            near = did_you_mean(name, known)
            raise bad_request(f"fields must be among {', '.join(known)}, got {name[:80]!r}; {near or 'leave it out'}")


def json_object(body: bytes, name: str) -> dict[str, Any]:
    """The fields of a JSON object. Raises ApiError 400, which calls the body by `name`."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in pairs:
            if key in fields:
                raise bad_request(f"{key[:40]!r} must be given once, got it several times in {name}")
            fields[key] = value
        return fields

    try:
        values = json.loads(body, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, bytes that are not UTF-8, depth
        raise bad_request(f"{name} must be JSON: {str(error)[:120]}; check it") from None
    if not isinstance(values, dict):
        raise bad_request(f"{name} must be a JSON object, {{...}}, got {brief(values)}")
    return values


def _pairs(text: bytes, name: str, lists: Sequence[str]) -> dict[str, Any]:
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise bad_request(f"{name} must be URL-encoded UTF-8: {str(error)[:120]}; check it") from None
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key not in fields:
            fields[key] = value
        elif key in lists:
            fields[key] = [*(fields[key] if isinstance(fields[key], list) else [fields[key]]), value]
        else:
            raise bad_request(f"{key[:40]!r} must be given once, got it several times in {name}")
    return fields


def text_field(fields: dict[str, Any], name: str, settings: Settings) -> str:
    """A text. Raises ApiError: 400 if it is missing or cannot be used, 413 if it is too long."""
    value = fields.get(name)
    if isinstance(value, str) and value:
        _check(value, name, settings)
        return value
    raise bad_request(f"{name} must be a text that is not empty, got {brief(value)}; give one")


def texts_field(fields: dict[str, Any], name: str, settings: Settings) -> tuple[list[str], bool]:
    """One text or several, as a list, and whether it was a list.

    Raises:
        ApiError: as `text_field`, and 413 for a list that is too long. Texts in a list may be empty.
    """
    value = fields.get(name)
    if not isinstance(value, list):
        return [text_field(fields, name, settings)], False
    if not value:
        raise bad_request(f"{name} must be a text or a list of texts, got an empty list; give one")
    if len(value) > settings.max_texts:
        raise too_large(
            f"{name} must have at most {settings.max_texts} texts, got {len(value)}; send several requests"
        )
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise bad_request(f"{name}[{index}] must be text, got {brief(text)}")
        _check(text, f"{name}[{index}]", settings)
    return value, True


def _check(text: str, name: str, settings: Settings) -> None:
    if len(text) > settings.max_characters:
        raise too_large(f"{name} must have at most {settings.max_characters} characters, got {len(text)}; split it")
    with as_bad_request(InputError):
        check_text(text, name)


def brief(value: Any) -> str:
    """What an error says of a value that came as JSON: the beginning of a text, a number, or only the type."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return repr(value[:40])
    return repr(value)[:40] if isinstance(value, bool | int | float) else type(value).__name__
