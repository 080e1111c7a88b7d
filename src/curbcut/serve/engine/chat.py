"""Messages as one prompt: by the model's own chat template, else joined by line breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curbcut.serve.engine.interface import Unfit
from curbcut.serve.engine.text import Vocabulary


def render(vocabulary: Vocabulary, messages: Sequence[Mapping[str, Any]]) -> str:
    """The prompt that asks for the next message of the assistant.

    A base model has no chat template: it goes on with a text. Its prompt is the contents of the
    messages, whoever said them, joined by line breaks, and nothing is added. A template runs in
    Jinja's sandbox without access to anything but the messages. Raises Unfit.
    """
    if vocabulary.chat_template is None:
        return "\n".join(message["content"] for message in messages)
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = _refuse
    specials = {name: _token(vocabulary.settings.get(name)) for name in ("bos_token", "eos_token")}
    try:
        template = environment.from_string(vocabulary.chat_template)
        return template.render(messages=list(messages), add_generation_prompt=True, **specials)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError,
            AttributeError) as error:
        raise Unfit(f"the model's chat template refuses these messages: {error}") from None


def _refuse(message: str) -> None:
    raise Unfit(message)


def _token(given: Any) -> str:
    """A special token, written as text or as {"content": text}."""
    text = given.get("content") if isinstance(given, Mapping) else given
    return text if isinstance(text, str) else ""
