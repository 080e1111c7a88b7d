import pytest

from curbcut.errors import UnknownName
from curbcut.facts import accelerators
from curbcut.facts import embodied as embodied_module
from curbcut.facts.embodied import accelerator_range, embodied


def test_h100_span_is_fortyfold_and_its_middle_is_no_bare_die():
    low, mid, high, source = accelerator_range("H100")
    assert (low, mid, high) == (14.65, 273, 575.1)
    assert "LLMCarbon" in source and "Boavizt" in source


def test_every_accelerator_has_a_range_and_never_a_point():
    for one in accelerators.accelerators():
        found = accelerator_range(one.id)
        assert 0 < found.low < found.mid < found.high < 1000, one.id
        assert found.source


def test_one_figure_is_widened_and_says_so():
    found = accelerator_range("A100-40")
    assert found.mid == 319.3
    assert found.low < 319.3 < found.high
    assert found.source.startswith("one figure for a100-sxm-40gb")


def test_no_figure_says_so():
    assert accelerator_range("MI300X").source.startswith("no figure for mi300x")


def test_categories_and_items():
    assert {one.unit for one in embodied("dram", "DDR4")} == {"kgCO2e/GB"}
    [gpu_server] = embodied("server", "p5-class")
    assert gpu_server.value == 5700
    assert all(one.low <= one.value <= one.high for one in embodied("server"))
    with pytest.raises(UnknownName, match="did you mean 'server'"):
        embodied("servers")


def test_own_figure_counts(own_facts):
    (own_facts / "embodied.csv").write_text(
        "category,item,accelerators,value,unit,source,date\n"
        "accelerator,MI300X,mi300x,200,kgCO2e/unit,maker,2026\n"
        "accelerator,MI300X again,mi300x,300,kgCO2e/unit,other,2026\n")
    assert accelerator_range("MI300X")[:3] == (200, 250, 300)


def test_a_server_is_counted_without_its_accelerators():
    """From the p4d of 5,600 kg come off 8 x 319.3 kg, by the same source, before it is shared."""
    low, mid, high, source = embodied_module.server_range()
    assert mid == pytest.approx((5600 - 8 * 319.3) / 8)
    assert low < 2500 / 8 and high > 5700 / 8
    assert "BLOOM" in source and "EcoLogits" in source


def test_a_core_and_a_gigabyte_span_their_sources():
    core, gigabyte = embodied_module.each_range("cpu"), embodied_module.each_range("dram")
    assert core.low == pytest.approx(30.1 / 64) and core.high == pytest.approx(46.7 / 56)
    assert gigabyte.low == 0.048 and gigabyte.high == pytest.approx(117.9 / 32)
    assert gigabyte.low < gigabyte.mid < gigabyte.high
