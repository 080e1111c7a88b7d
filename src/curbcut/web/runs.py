"""The runs: all of them as a table, one in full, several beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import Route

from curbcut.errors import InputError, UnknownName
from curbcut.spec import UNIT_OF, Estimate, Resolved
from curbcut.spec import codec as spec_codec
from curbcut.web.answers import MOST_NAMES, as_json
from curbcut.web.folder import documents, files, samples
from curbcut.web.pages import page_route
from curbcut.web.timeline import timeline

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger
    from curbcut.web.site import Site


def routes(site: Site) -> list[Route]:
    """Pages and JSON of runs."""
    def table(request: Request) -> dict[str, Any]:
        site.asked()
        change = site.table.since(request.query_params.get("after", ""))
        return {"cursor": change.cursor, "rows": change.rows, "notes": notes(site)}

    def one(request: Request) -> dict[str, Any]:
        site.asked()
        return in_full(site, request.path_params["name"])

    def events(request: Request) -> dict[str, Any]:
        site.asked()
        name = known(site, request.path_params["name"])
        return timeline(opened(site), name, request.query_params.get("after", ""))

    def compare(request: Request) -> dict[str, Any]:
        site.asked()
        return compared_runs(site, [known(site, name)
                                    for name in named(request.query_params.getlist("run"))])

    return [
        page_route("/", "runs.html", "/"),
        page_route("/runs/{name}", "run.html", "/",
                   lambda request: {"name": request.path_params["name"]}),
        page_route("/compare", "compare.html", "/compare"),
        Route("/api/runs", as_json(table)),
        Route("/api/runs/{name}", as_json(one)),
        Route("/api/runs/{name}/events", as_json(events)),
        Route("/api/compare", as_json(compare)),
    ]


def notes(site: Site) -> list[str]:
    """What a person should know of the whole: a ledger that cannot be used, damaged records."""
    said = [site.fault] if site.fault else []
    return said + [f"{name}: {why}" for name, why in sorted(site.inboxes.faults.items())[:20]]


def opened(site: Site) -> Ledger:
    """The ledger, for who already found a run in it."""
    ledger = site.ledger()
    if ledger is None:
        raise InputError("no ledger here yet", where=str(site.runs),
                         mend="`curbcut go` makes one; or name another folder with --runs")
    return ledger


def known(site: Site, name: str) -> str:
    """`name`, if a run is called so; raises UnknownName with the nearest ones."""
    if site.table.row(name) is None:
        raise UnknownName("run", name[:100], site.table.names(), where="run")
    return name


def named(names: list[str], what: str = "run") -> list[str]:
    """The names of a request, each once; raises InputError for none, or too many."""
    once = list(dict.fromkeys(names))
    if not once:
        raise InputError(f"no {what} is named", where=what, mend=f"add ?{what}=NAME")
    if len(once) > MOST_NAMES:
        raise InputError(f"{len(once)} are named", where=what, mend=f"name {MOST_NAMES} at most")
    return once


def in_full(site: Site, name: str) -> dict[str, Any]:
    """One run: its row, what was promised beside what was measured, configuration, files."""
    cursor, _ = site.table.names_since("")
    row = site.table.row(known(site, name))
    ledger = opened(site)
    folders = site.inboxes.folders()
    folder = folders.get(name)
    return {"cursor": cursor, "row": row, "figures": list(figures(ledger, name)),
            "config": config(ledger.resolved(name)),
            "files": files(folder), "documents": documents(folder), "samples": samples(folder),
            "damaged": len(ledger.damage(name)), "notes": notes(site)}


def figures(ledger: Ledger, name: str) -> Iterator[dict[str, Any]]:
    """Each figure of each step, promised beside measured, in the order of the circle."""
    from curbcut.report.comparison import compared
    from curbcut.report.labels import called
    from curbcut.spec import Account

    for step in ledger.steps(name):
        promised, measured = (ledger.account(name, step, "forecast"),
                              ledger.account(name, step, "measured"))
        for line in compared(promised or Account(), measured or Account()):
            yield {"step": step, "section": line.section, "figure": line.kind,
                   "label": called(line.section, line.kind), "unit": UNIT_OF[line.section],
                   "promised": estimate(line.promised), "measured": estimate(line.measured),
                   "ratio": line.ratio, "inside": line.inside}


def estimate(one: Estimate | None) -> dict[str, Any] | None:
    """An estimate as JSON; None where the account did not look at it."""
    if one is None:
        return None
    return {"value": one.value, "low": one.low, "high": one.high, "basis": one.basis,
            "source": one.source}


def config(resolved: Resolved | None) -> dict[str, dict[str, Any]]:
    """Each value of a run by its dotted key, and who set it."""
    if resolved is None:
        return {}
    return {key: {"value": value, "origin": resolved.origins.get(key, "")}
            for key, value in flat(spec_codec.plain(resolved.run))}


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf with its dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def compared_runs(site: Site, names: list[str]) -> dict[str, Any]:
    """Of several runs: the keys in which they differ, and what each reached for how much."""
    ledger = opened(site)
    configs = {name: config(ledger.resolved(name)) for name in names}
    keys = {key: None for values in configs.values() for key in values if key != "name"}
    differing = {}
    for key in keys:
        values = {name: configs[name].get(key, {}).get("value") for name in names}
        if len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1:
            differing[key] = values
    rows = [row for row in map(site.table.row, names) if row is not None]
    return {"keys": differing, "same": len(keys) - len(differing),
            "rows": [{key: row[key] for key in (
                "name", "state", "model", "machine", "loss", "bits_per_byte", "tokens", "seconds",
                "tokens_per_second", "mfu", "usd", "kwh")} for row in rows]}
