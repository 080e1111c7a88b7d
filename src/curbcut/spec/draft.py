"""`Draft`: a run as far as it has been said, and who said each value.

A person's TOML (with what it `extends`), options on the command line, presets, defaults and the
plan each set values; the first one to set a value wins unless it is told to override. What comes
out, once complete, is a `Run` and its `origins`.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from curbcut.errors import InputError
from curbcut.facts import presets
from curbcut.spec import codec
from curbcut.spec.nouns import ModelShape, Run

MAX_EXTENDS = 16


@dataclasses.dataclass(frozen=True)
class Draft:
    """Values by dotted key ("recipe.micro_batch"), and the origin of each."""

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def has(self, key: str) -> bool:
        """Whether `key`, or anything under it, has a value."""
        return key in self.values or any(k.startswith(f"{key}.") for k in self.values)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key."""
        return self.values.get(key, default)

    def with_values(self, values: Mapping[str, Any], origin: str, *,
                    override: bool = False) -> Draft:
        """A draft with dotted `values` added; those already set stay unless `override`."""
        merged, origins = dict(self.values), dict(self.origins)
        for key, value in values.items():
            if override or key not in merged:
                merged[key], origins[key] = value, origin
        return Draft(merged, origins)

    def with_raw(self, raw: Mapping[str, Any], origin: str, *, override: bool = False) -> Draft:
        """Like `with_values` for a nested, unchecked dict as TOML gives it."""
        return self.with_values(flatten(codec.check(Run, raw, f"{origin}:")), origin,
                                override=override)

    def with_preset(self) -> Draft:
        """Fills the model's dimensions from its preset, where one is named."""
        name = self.get("model.preset")
        if not name:
            return self
        shape = codec.check(ModelShape, presets.shape(name), f"preset {name}")
        return self.with_values({f"model.{k}": v for k, v in shape.items()}, f"preset {name}")

    def complete(self) -> Resolved:
        """The run, with defaults for what nobody set; raises InputError for what has none."""
        run: Run = codec.build(Run, nest(self.values))
        origins = {key: self.origins.get(key, "default") for key in flatten(codec.plain(run))}
        return Resolved(run, origins)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A complete run, and who set each value (by dotted key)."""

    run: Run
    origins: Mapping[str, str]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}; mappings that are values (by precision) stay whole."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and prefix == "" and key in _TABLES:
            flat |= flatten(value, f"{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        table, dot, leaf = key.partition(".")
        if dot:
            nested.setdefault(table, {})[leaf] = value
        else:
            nested[key] = value
    return nested


_TABLES = {f.name for f in dataclasses.fields(Run)
           if dataclasses.is_dataclass(codec.hints(Run)[f.name])}


def load(path: str | os.PathLike[str]) -> Draft:
    """Reads a TOML file and the files that it `extends`, nearest first.

    Raises InputError for a missing file, broken TOML, an unknown key or unit, or a circle.
    """
    draft = Draft()
    for file, raw in _chain(Path(path)):
        draft = draft.with_raw(raw, file.name)
    return draft.with_preset()


def _chain(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    seen: list[Path] = []
    following: Path | None = path
    while following is not None:
        if following.resolve() in seen or len(seen) == MAX_EXTENDS:
            raise InputError(f"extends itself through {following}", where=str(path),
                             mend="remove one `extends`")
        seen.append(following.resolve())
        raw = _read_toml(following)
        base = raw.pop("extends", None)
        if base is not None and not isinstance(base, str):
            raise InputError("extends must be one file name", where=str(following),
                             mend='write extends = "base.toml"')
        yield following, raw
        following = following.parent / base if base else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), mend="check the path") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path),
                         mend="give a readable TOML file") from None
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", where=str(path), mend="save it as UTF-8") from None
    except ValueError as error:  # tomllib's own, or a number of thousands of digits
        raise InputError(f"is not valid TOML: {error}", where=str(path),
                         mend="mend that line; https://toml.io shows the format") from None
