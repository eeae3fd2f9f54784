"""Errors as clients of OpenAI's interface read them: a status, and JSON with `message`, `type`, `param` and `code`."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


class ApiError(Exception):
    """
    An answer that is an error.

    Args:
        status: Status of HTTP.
        message: What is wrong and what was expected.
        code: Short name of the error, for programs.
        param: Name of the field of the request that is wrong, if it is one.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, headers

    def body(self) -> dict[str, Any]:
        """Make the JSON of the answer."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def add_error_handlers(app: FastAPI) -> None:
    """Let the app answer every error as JSON, also those of paths that it does not have and of its own faults."""

    async def tell(request: Request, error: Any) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    async def tell_http(request: Request, error: Any) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed"}
        message = f"{request.method} {request.url.path}: {error.detail}"
        told = ApiError(error.status_code, message, codes.get(error.status_code, "invalid_request"))
        return JSONResponse(told.body(), told.status, error.headers)

    async def tell_fault(request: Request, error: Exception) -> JSONResponse:
        told = ApiError(500, "the server failed at this request; its log says why", "internal_error")
        return JSONResponse(told.body(), told.status)

    app.add_exception_handler(ApiError, tell)
    app.add_exception_handler(HTTPException, tell_http)
    app.add_exception_handler(Exception, tell_fault)
