"""The rule of thumb in tables."""

from __future__ import annotations

import pytest

from curbcut.facts import presets
from curbcut.plan import rule_of_thumb
from curbcut.report import flops
from curbcut.report.tables import plain_console, print_table, read
from curbcut.spec import ModelShape, codec


def counted(name: str, sequence: int = 2048) -> flops.Count:
    return flops.count(codec.build(ModelShape, presets.shape(name), "model"), sequence)


@pytest.mark.parametrize("name", ["Llama-3-8B", "DeepSeek-V3"])
def test_the_rule_and_the_count_are_of_the_same_tokens(name):
    count = counted(name)
    table = flops.rule_table(count)
    rule, real = (float(row[1]) for row in table.rows)
    assert rule == pytest.approx(6 * count.shape.active_parameters * 20 * count.shape.parameters)
    assert real == pytest.approx(count.by_convention["exact"] * 20 * count.shape.parameters)
    assert read(table.rows[0][2]) == pytest.approx(rule / real)
    assert ("K =" in table.notes[0]) == (name == "DeepSeek-V3")


def test_the_sizes_fit_a_terminal(capsys):
    by = rule_of_thumb.supply()
    lines = rule_of_thumb.table(by)
    table = flops.size_table(lines, by)
    assert [row[0] for row in table.rows] == list(rule_of_thumb.SIZES)
    assert table.rows[2][5] == pytest.approx(1000 * lines[2].mwh)
    assert len({column.key for column in table.columns}) == len(table.columns)
    print_table(table, plain_console())
    printed = capsys.readouterr().out.splitlines()
    assert "framework of arXiv:2404.08811" in printed[-1] + printed[-2]
    assert max(len(line) for line in printed[:-3]) <= 100
