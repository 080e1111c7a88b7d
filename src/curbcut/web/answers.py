"""Answers of the page's JSON: what was asked, or one error in the form of all errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from curbcut.errors import CurbcutError, UnknownName

MOST_NAMES = 100
"""Runs or metrics that one request may name."""

Answer = Callable[[Request], Any]


def answered(value: Any, status: int = 200) -> Response:
    """`value` as JSON; a number that is not finite raises ValueError: it must have been made null.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Response(text, status, media_type="application/json")


def refused(error: CurbcutError) -> Response:
    """An error as what, where and mend: 404 for a name that nothing has, else 400 for bad input and
    503 for what failed inside.
    """
    status = 404 if isinstance(error, UnknownName) else 400 if error.exit_code == 2 else 503
    return answered({"error": {"what": error.what, "where": error.where, "mend": error.mend}},
                    status)


def as_json(answer: Answer) -> Callable[[Request], Response]:
    """An endpoint that answers with what `answer` returns, and with its errors as JSON."""
    @wraps(answer)
    def endpoint(request: Request) -> Response:
        try:
            return answered(answer(request))
        except CurbcutError as error:
            return refused(error)
    return endpoint
