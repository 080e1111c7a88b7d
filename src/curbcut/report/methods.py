"""The table of methods: what the catalogue knows, joined with what the code declares.

    curbcut.plan.methods.PRICED    name -> "module:function" that prices it
    curbcut.train.methods.RUNS     name -> "module:function" that executes it
    curbcut.serve.methods.RUNS     the same for serving
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from curbcut.errors import UnknownName
from curbcut.report.tables import (
    Cell,
    Column,
    Format,
    Table,
    plain_console,
    print_table,
    show,
)
from curbcut.spec.methods import CATALOGUE, Method

if TYPE_CHECKING:
    from rich.console import Console

DECLARATIONS = (("curbcut.plan.methods", "PRICED"), ("curbcut.train.methods", "RUNS"),
                ("curbcut.serve.methods", "RUNS"))
"""Where methods are declared; a module that does not exist declares nothing."""


@dataclass(frozen=True)
class Standing:
    """A method, the function that prices it and those that run it ("module:function")."""

    method: Method
    priced: str = ""
    runs: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether it can be planned and run: the half of it alone is unfinished."""
        return bool(self.priced and self.runs)


def declared(module: str, name: str) -> Mapping[str, str]:
    """What one module declares; empty where there is no such module.

    Raises UnknownName for a method that the catalogue does not know.
    """
    try:
        found: Mapping[str, str] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        return {}
    known = {method.name for method in CATALOGUE}
    for method in found:
        if method not in known:
            raise UnknownName("method", method, known, where=f"{module}.{name}")
    return found


def standings() -> list[Standing]:
    """Each method of the catalogue with what the code declares for it."""
    priced, *executed = (declared(module, name) for module, name in DECLARATIONS)
    return [Standing(method, priced.get(method.name, ""),
                     tuple(runs[method.name] for runs in executed if method.name in runs))
            for method in CATALOGUE]


def resolve(path: str) -> Any:
    """The function behind "module:function"; raises ImportError or AttributeError."""
    module, _, name = path.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def as_plain(rows: list[Standing]) -> list[dict[str, Any]]:
    """The table for programs; what is not known is None."""
    return [{"method": row.method.name, "what": row.method.what,
             "bottleneck": row.method.bottleneck, "field": row.method.field or None,
             "planned": bool(row.priced), "runs": bool(row.runs), "finished": row.finished,
             "priced_by": row.priced or None, "run_by": list(row.runs),
             "gain": row.method.gain or None, "source": row.method.source or None}
            for row in rows]


def tables(rows: list[Standing]) -> list[Table]:
    """What each method relieves and whether it is finished; what it does and what it gains."""
    finished = sum(row.finished for row in rows)
    return [
        Table("Methods", (Column("method"), Column("relieves"), Column("planned"), Column("runs"),
                   Column("chosen by", least=12)),
              [(Cell(row.method.name, "bold"), row.method.bottleneck, bool(row.priced),
                bool(row.runs), Cell(row.method.field, "dim")) for row in rows],
              [f"{finished} of {len(rows)} methods are planned and run; the others are "
               "unfinished."]),
        Table("What each does, and its published or measured gain",
              (Column("method"), Column("what", least=20), Column("gain", least=20),
               Column("source", least=10)),
              [(row.method.name, row.method.what,
                row.method.gain or Cell("gain not measured", "dim", None), row.method.source)
               for row in rows])]


def print_methods(rows: list[Standing], chosen: Format = "text",
                  console: Console | None = None) -> None:
    """Prints the methods in a format; for people what each does is sentences, and not cut."""
    standing, gains = tables(rows)
    if chosen != "text":
        show([standing, gains], chosen, plain=as_plain(rows), console=console)
        return
    from rich.padding import Padding
    from rich.text import Text

    console = console or plain_console()
    print_table(replace(standing, title="", notes=()), console)
    console.print(f"\n{gains.title}", style="bold")
    for row in rows:
        line = Text.assemble((row.method.name, "bold"), f": {row.method.what}; ",
                             row.method.gain or ("gain not measured", "dim"))
        if row.method.source:
            line.append(f" [{row.method.source}]", "dim")
        console.print(Padding(line, (0, 0, 0, 2)))
    console.print(f"\n{standing.notes[0]}")
