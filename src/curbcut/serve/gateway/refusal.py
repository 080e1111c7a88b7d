"""`Refused`: a request that is not served, in the shape that OpenAI's clients read.

    400  invalid_request_error   the body, a field or a value; `param` names the field
    401  authentication_error    no key, or one that is not known
    403  invalid_request_error   a page of another site, while no keys are needed
    404  invalid_request_error   no such path or model
    405  invalid_request_error   the path takes another method
    408  invalid_request_error   the body did not come in time
    413  invalid_request_error   the body is too large
    415  invalid_request_error   the body is not declared as JSON, or compressed
    429  rate_limit_error        the queue is full; Retry-After says when to come again
    500  server_error            the engine failed on it
    503  server_error            shutting down, or no memory for the model now
"""

from __future__ import annotations

from typing import Any

_TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error",
          503: "server_error"}


class Refused(Exception):
    """Why a request is not served, and the HTTP status that says so."""

    def __init__(self, status: int, message: str, *, param: str | None = None,
                 code: str | None = None, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_seconds = retry_after_seconds

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON body."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param,
                          "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """The answer's extra headers."""
        headers = {}
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(self.retry_after_seconds)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers
