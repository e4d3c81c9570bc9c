"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

KINDS = {401: "authentication_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """Ends a request. `param` is the field that was wrong, `code` a word for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(status, message, headers)
        self.param, self.code = param, code


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict:
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: HTTPException) -> JSONResponse:
    own: dict[str, Any] = {"param": error.param, "code": error.code} if isinstance(error, ApiError) else {}
    body = error_body(error.status_code, error.detail, **own)
    return JSONResponse(body, error.status_code, error.headers)
