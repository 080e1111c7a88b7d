"""`Refused`: a request that is not served, in the shape that OpenAI's clients read.

    400  invalid_request_error   the body, a field or a value; `param` names the field
    401  authentication_error    no key, or one that is not known
    403  invalid_request_error   a page of another site, while no keys are needed; a role that may
                                 not; a model without a price under a budget of money
    404  invalid_request_error   no such path or model
    405  invalid_request_error   the path takes another method
    408  invalid_request_error   the body did not come in time
    409  invalid_request_error   somebody else changed the same thing at the same time
    413  invalid_request_error   the body is too large
    415  invalid_request_error   the body is not declared as JSON, or compressed
    429  rate_limit_error        the queue is full, or a limit of its key, project or organisation
                                 is met; Retry-After says when to come again
    429  insufficient_quota      a budget has no room left for what the request may take
    500  server_error            the engine failed on it
    503  server_error            shutting down, no memory for the model now, no ledger
"""

from __future__ import annotations

from typing import Any

_TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error",
          503: "server_error"}


class Refused(Exception):
    """Why a request is not served, and the HTTP status that says so."""

    def __init__(self, status: int, message: str, *, param: str | None = None,
                 code: str | None = None, retry_after_seconds: int | None = None,
                 kind: str = "", retry: bool = True) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_seconds, self.retry = retry_after_seconds, retry
        self.kind = kind or _TYPES.get(status, "invalid_request_error")

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param,
                          "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """The answer's extra headers."""
        headers = {}
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(self.retry_after_seconds)
        if not self.retry:  # OpenAI's clients heed it: they would come again at once
            headers["x-should-retry"] = "false"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers
