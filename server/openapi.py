"""What the OpenAPI page says of the endpoints, which read their fields themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

TEXT = {"type": "string"}
TEXT_OR_LIST = {"oneOf": [TEXT, {"type": "array", "items": TEXT}]}
KEY = {**TEXT, "description": "Needed where the server asks for keys; `Authorization: Bearer KEY` does as well."}
_ERRORS = {
    "400": "The request cannot be used.",
    "403": "The API key is missing or unknown.",
    "408": "The request did not arrive in time.",
    "413": "A text, the list or the body is too large.",
    "415": "The body is neither JSON nor a form.",
    "429": "Too many requests; `Retry-After` says when to try again.",
    "503": "Too much is waiting, or it took too long; `Retry-After` says when to try again.",
}


def describe(
    required: Sequence[str], fields: Mapping[str, Any], example: Mapping[str, Any], answer: Mapping[str, Any]
) -> dict[str, Any]:
    """`openapi_extra` of a POST that takes JSON or a form.

    Args:
        fields: the schema of each. example: of a request. answer: of an answer, by its media type.
    """
    schema = {"type": "object", "required": [*required], "properties": {**fields, "api_key": KEY}}
    error = {"application/json": {"schema": {"type": "object", "properties": {"error": TEXT}}}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema, "example": example},
                "application/x-www-form-urlencoded": {"schema": schema},
            },
        },
        "responses": {
            "200": {"description": "Done.", "content": {kind: {"example": value} for kind, value in answer.items()}},
            **{status: {"description": what, "content": error} for status, what in _ERRORS.items()},
        },
    }
