"""A statement as a PDF: the same statement, the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from curbcut import units
from curbcut.errors import MissingExtra
from curbcut.ledger.amounts import kwh, usd
from curbcut.papers.statement import KINDS, Line, Statement, notes

UNKNOWN = "not known"
UNMEASURED = "not measured"
METHOD = (
    "<b>Charged</b> is the price list times tokens, held before the work and never more than was "
    "held. <b>Cost</b> is a request's share of the machine's time, and of the facility's energy "
    "where that is not in the rent; it is told beside, and not billed.",
    "<b>Energy</b> is that of the devices: accelerators, or a CPU's cores and memory. The joules "
    "of each step of the engine are shared among the requests in it: reading the weights in equal "
    "parts, the work on each one's own tokens and context by what it takes. Where there is a "
    "counter the shares are scaled to it, and what it says beyond them is its own line; where "
    "there is none they are modelled, and called so.",
    "<b>Carbon</b> is operational: devices, their host and the building (PUE), by the grid's mean "
    "intensity. What was neither measured nor modelled is left out of a sum, and said beside it.")
_INK, _SOFT, _RULE, _BAND = "#1b1f24", "#5b6570", "#c9d0d6", "#f1f4f6"
_MARGIN = 48.0
_WIDTH = 595.28 - 2 * _MARGIN
_FRAME = 6.0
"""What reportlab leaves free inside of margins."""


def write_pdf(found: Statement, path: Path) -> None:
    """Writes the statement to `path`; raises MissingExtra without reportlab."""
    path.write_bytes(as_pdf(found))


def as_pdf(found: Statement) -> bytes:
    """The statement as a PDF on A4; raises MissingExtra without reportlab."""
    try:
        from reportlab.lib.pagesizes import A4
        from reportlab.platypus import SimpleDocTemplate
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "pdf") from None
    import io

    out = io.BytesIO()
    document = SimpleDocTemplate(
        out, pagesize=A4, leftMargin=_MARGIN - _FRAME, rightMargin=_MARGIN - _FRAME,
        topMargin=_MARGIN - _FRAME, bottomMargin=_MARGIN,
        title=f"Statement of {found.name}, {found.month}", author="Curbcut", lang="en", invariant=1)
    foot = _foot(found)
    document.build(_story(found), onFirstPage=foot, onLaterPages=foot)
    return out.getvalue()


def _story(found: Statement) -> list[Any]:
    from reportlab.platypus import Spacer

    style = _styles()
    kind = found.scope.partition(":")[0]
    story: list[Any] = [
        _text(f"{kind.capitalize()} {escape(found.name)}", style["title"]),
        _text(f"Statement of {found.month}: {_day(found.start)} to {_day(found.until)} (UTC)",
              style["soft"]),
        Spacer(1, 10), _summary(found, style), Spacer(1, 4),
        *[_text(note, style["soft"]) for note in notes(found)]]
    story += _section("By key and model", style, _uses(found, style))
    story += _section("By model, for each token of an answer", style, _models(found, style))
    if found.prices:
        story += _section("Prices of a million tokens, now", style, _prices(found, style))
    if found.budgets:
        story += _section("Budgets", style, _budgets(found, style))
    if found.parts:
        story += _section("Where the machines' energy went, all organisations together", style,
                          _machines(found, style))
    story += _section("How these figures are known", style,
                      [_text(line, style["body"]) for line in METHOD])
    story += [_text(escape(source), style["small"]) for source in found.sources[:8]]
    return story + _chain(found, style)


def _summary(found: Statement, style: dict[str, Any]) -> Any:
    """Five figures in a band."""
    total = found.total
    tokens = total.prompt_tokens + total.answer_tokens
    energy = units.show(total.kwh, "kwh") if total.kwh is not None else UNMEASURED
    if not total.requests:  # then nothing is known, and nothing was missed
        energy, charged, carbon = ("none",) * 3
    else:
        charged, carbon = shown_usd(total.charged_usd), _gco2e(total.gco2e)
    figures = [("Requests", f"{total.requests:,}"), ("Tokens", units.show(tokens, "count")),
               ("Charged", charged), (f"Energy, {_basis(total)}", energy),
               ("Carbon", carbon)]
    cells = [[_text(label, style["label"]) for label, _ in figures],
             [_text(value, style["figure"]) for _, value in figures]]
    return _table(cells, [1.0] * 5, [("BACKGROUND", (0, 0), (-1, -1), _colour(_BAND)),
                                     ("LINEABOVE", (0, 0), (-1, 0), 1.2, _colour(_INK))])


def _basis(total: Line) -> str:
    if total.kwh_modelled is None:
        return "measured" if total.kwh_measured is not None else "devices"
    if total.kwh_measured is None:
        return "modelled"
    assert total.kwh is not None
    share = total.kwh_measured / total.kwh if total.kwh else 0.0
    return f"{share:.0%} measured"


def _uses(found: Statement, style: dict[str, Any]) -> list[Any]:
    head = ["Key", "Model", "Requests", "Prompt", "of it kept", "Answer", "Charged", "Cost",
            "Energy", "Carbon"]
    total = found.total
    rows = [[_who(line), line.model, *_figures(line, total)] for line in found.lines]
    if not rows:
        return [_text("Nothing was asked in this time.", style["body"])]
    rows.append(["Total", "", *_figures(total, total)])
    shares = [1.9, 1.6, 0.95, 0.8, 0.75, 0.8, 1.15, 1.15, 1.05, 1.5]
    star = [_text("* modelled, or in part", style["soft"])] * (total.kwh_modelled is not None)
    return [_ruled(head, rows, shares, style, left=2, total=True), *star]


def _who(line: Line) -> str:
    return f"{line.key or 'no key'} {f'({line.project})' if line.project else ''}".strip()


def _figures(line: Line, total: Line) -> list[str]:
    energy = UNMEASURED if line.kwh is None else units.show(line.kwh, "kwh", total.kwh)
    mark = "" if line.kwh_modelled is None else "*"
    return [f"{line.requests:,}", *(units.show(count, "count") for count in (
        line.prompt_tokens, line.cached_tokens, line.answer_tokens)),
        shown_usd(line.charged_usd, total.charged_usd), shown_usd(line.cost_usd, total.cost_usd),
        energy + mark, _gco2e(line.gco2e, total.gco2e)]


def _models(found: Statement, style: dict[str, Any]) -> list[Any]:
    head = ["Model", "Joules a token", "Charged a million", "Cost a million",
            "Carbon a million"]
    rows = []
    for line in found.by_model:
        joules = line.joules_per_token
        mark = "" if line.kwh_modelled is None else "*"
        rows.append([line.model, UNMEASURED if joules is None
                     else units.show(joules, "joules") + mark,
                     shown_usd(line.usd_per_million), shown_usd(line.cost_per_million),
                     _gco2e(line.gco2e_per_million)])
    below = [_text("Their prompts' share is in it.", style["soft"])]
    return [_ruled(head, rows, [1.6, 1, 1, 1, 1], style), *below] if rows else []


def _prices(found: Statement, style: dict[str, Any]) -> list[Any]:
    rows = [[one.model, *(shown_usd(usd(value)) for value in (
        one.prompt_nanousd, one.cached_nanousd, one.output_nanousd)), one.basis]
        for one in found.prices]
    return [_ruled(["Model", "Prompt", "Prompt that was kept", "Answer", "Basis"], rows,
                   [1.6, 1, 1.2, 1, 1], style)]


def _budgets(found: Statement, style: dict[str, Any]) -> list[Any]:
    shown: dict[str, Callable[[int, int], str]] = {
        "tokens": lambda value, _like: f"{units.show(value, 'count')} tokens",
        "nanousd": lambda value, like: shown_usd(usd(value), usd(like)),
        "millijoules": lambda value, like: units.show(kwh(value), "kwh", kwh(like))}
    names = {line.key_id: f"key {line.key}" for line in found.lines}
    rows = []
    for one in found.budgets:
        kind, _, name = one.scope.partition(":")
        rows.append([names.get(name, f"{kind} {name}"),
                     {"all": "for ever", "month": "a month", "day": "a day"}[one.period],
                     *(shown[one.unit](value, one.amount) for value in (
                         one.amount, one.spent, one.held, one.left))])
    return [_ruled(["Of", "Period", "Amount", "Spent", "Held", "Left"], rows,
                   [1.8, 0.9, 1, 1, 1, 1], style, left=2)]


def _machines(found: Statement, style: dict[str, Any]) -> list[Any]:
    kwh_like, usd_like, carbon_like = (
        max(abs(getattr(part, name) or 0.0) for part in found.parts)
        for name in ("kwh", "usd", "gco2e"))
    rows = [[KINDS[part.kind], units.show(part.seconds, "seconds") if part.seconds > 0 else "",
             UNMEASURED if part.kwh is None else units.show(part.kwh, "kwh", kwh_like),
             shown_usd(part.usd, usd_like), _gco2e(part.gco2e, carbon_like)]
            for part in found.parts]
    share = found.idle_share
    idle = [] if share is None else [
        _text(f"Idle: {share:.0%} of the machines' energy. It is charged to nobody.",
              style["soft"])]
    return [_ruled(["To", "Time", "Energy", "Money", "Carbon"], rows, [2, 1, 1, 1, 1], style),
            *idle]


def _chain(found: Statement, style: dict[str, Any]) -> list[Any]:
    if found.audit is None:
        return []
    verdict = "sound" if not found.audit.fault else f"NOT SOUND: {escape(found.audit.fault)}"
    return _section("Audit chain", style, [_text(
        f"{found.audit.rows:,} rows, {verdict}. Head: <font face='Courier'>{found.audit.head}"
        "</font>. Who keeps this head can tell later that no row before it was changed "
        "(curbcut audit verify --head).", style["body"])])


def _section(title: str, style: dict[str, Any], parts: Sequence[Any]) -> list[Any]:
    from reportlab.platypus import KeepTogether

    if not parts:
        return []
    return [KeepTogether([_text(title, style["section"]), parts[0]]), *parts[1:]]


def _ruled(head: Sequence[str], rows: Sequence[Sequence[str]], shares: Sequence[float],
           style: dict[str, Any], *, left: int = 1, total: bool = False) -> Any:
    """A table whose first columns are text and the others figures."""
    def cells(row: Sequence[str], text: str, figure: str) -> list[Any]:
        return [_text(escape(value), style[text if place < left else figure])
                for place, value in enumerate(row)]

    table = [cells(head, "head", "head right")]
    table += [cells(row, "cell", "right") for row in rows]
    rules: list[tuple[Any, ...]] = [
        ("LINEBELOW", (0, 0), (-1, 0), 0.8, _colour(_INK)),
        ("LINEBELOW", (0, 1), (-1, -1), 0.3, _colour(_RULE))]
    if total:
        rules += [("LINEABOVE", (0, -1), (-1, -1), 0.8, _colour(_INK)),
                  ("BACKGROUND", (0, -1), (-1, -1), _colour(_BAND))]
    return _table(table, shares, rules, repeat=1)


def _table(cells: list[list[Any]], shares: Sequence[float], rules: Sequence[tuple[Any, ...]],
           repeat: int = 0) -> Any:
    from reportlab.platypus import Table

    widths = [_WIDTH * share / math.fsum(shares) for share in shares]
    return Table(cells, widths, repeatRows=repeat, style=[
        ("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 3),
        ("RIGHTPADDING", (0, 0), (-1, -1), 3), ("TOPPADDING", (0, 0), (-1, -1), 2.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5), *rules])


def _styles() -> dict[str, Any]:
    from reportlab.lib.enums import TA_RIGHT
    from reportlab.lib.styles import ParagraphStyle

    def made(name: str, size: float, **more: Any) -> Any:
        return ParagraphStyle(name, **{"fontName": "Helvetica", "fontSize": size,
                                       "leading": size * 1.3, "textColor": _colour(_INK),
                                       "splitLongWords": 1} | more)

    bold = {"fontName": "Helvetica-Bold"}
    return {"title": made("title", 19, **bold), "section": made(
        "section", 11, spaceBefore=14, spaceAfter=4, **bold),
        "body": made("body", 8.5, spaceAfter=4), "small": made(
            "small", 7, textColor=_colour(_SOFT), spaceAfter=2),
        "soft": made("soft", 8.5, textColor=_colour(_SOFT), spaceBefore=2),
        "label": made("label", 7.5, textColor=_colour(_SOFT)),
        "figure": made("figure", 12.5, **bold), "cell": made("cell", 7.2),
        "right": made("right", 7.2, alignment=TA_RIGHT), "head": made("head", 7.2, **bold),
        "head right": made("head right", 7.2, alignment=TA_RIGHT, **bold)}


def _foot(found: Statement) -> Callable[[Any, Any], None]:
    def draw(canvas: Any, document: Any) -> None:
        canvas.saveState()
        canvas.setFont("Helvetica", 7.5)
        canvas.setFillColor(_colour(_SOFT))
        canvas.drawString(_MARGIN, 30, f"{found.name}, {found.month}: statement by Curbcut")
        canvas.drawRightString(595.28 - _MARGIN, 30, f"page {document.page}")
        canvas.restoreState()

    return draw


def _text(text: str, style: Any) -> Any:
    from reportlab.platypus import Paragraph

    # The built-in fonts know Latin letters only: others are shown as "?", never as a black box.
    return Paragraph(text.encode("cp1252", "replace").decode("cp1252"), style)


def _colour(code: str) -> Any:
    from reportlab.lib.colors import HexColor

    return HexColor(code)


def shown_usd(value: float | None, like: float | None = None) -> str:
    """Dollars, with as many digits as `like` (the column's sum) needs to show its parts."""
    if value is None:
        return UNKNOWN
    size = abs(value if like is None else like)
    digits = 2 if size >= 10 else 4 if size >= 0.1 else 6
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{'>-' if value < 0 else '<'}${10**-digits:.{digits}f}"
    return f"{'-' if value < 0 else ''}${abs(value):,.{digits}f}"


def _gco2e(grams: float | None, like: float | None = None) -> str:
    if grams is None:
        return UNKNOWN
    return units.show(grams / 1000, "kgco2e", None if like is None else like / 1000)


def _day(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d")
