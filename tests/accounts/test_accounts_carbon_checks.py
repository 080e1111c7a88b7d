"""Published carbon figures, from their published inputs, by the product's own functions.

Inputs stand here with where they were read; the grid of each is a row of a person's own facts, so
that the whole way from a place to kilograms is walked.
"""

from __future__ import annotations

import pytest

from curbcut.accounts import embodied
from curbcut.accounts.carbon import carbon, intensity
from curbcut.accounts.epoch import energy_kwh
from curbcut.physics.flops import six_n
from curbcut.spec import Place, measured
from tiny import tiny_machine

NO_TIME = measured(0.0, "only energy counts here")
DAY = 86_400.0


@pytest.fixture
def tonnes(own_home):
    """Tonnes that kWh at the facility emit on a grid of so many g/kWh (one grid a test: facts of a
    folder are read once).
    """
    def emitted(kwh: float, gco2e_per_kwh: float) -> float:
        folder = own_home / "facts"
        folder.mkdir(exist_ok=True)
        (folder / "grid.csv").write_text("zone,gco2e_per_kwh,year,source,date\n"
                                         f"test-{gco2e_per_kwh},{gco2e_per_kwh},2022,paper,2022\n")
        place = Place(zone=f"test-{gco2e_per_kwh}")
        found = carbon(tiny_machine(), place, NO_TIME, measured(kwh, "paper"))
        return found["operational"].value / 1000
    return emitted


# BLOOM (arXiv:2211.02001): GPU-hours, idle energy and tonnes; e-footprint's defaults of the same
# paper for 400 W, 2,500 kg a server and 150 kg a GPU; the model card for 57 g/kWh.
BLOOM_GPU_HOURS, BLOOM_GRID = 1_082_990, 57


def test_bloom_dynamic(tonnes):
    kwh = energy_kwh(400, 1, 1, 1, BLOOM_GPU_HOURS)
    assert kwh == pytest.approx(433_196)
    assert tonnes(kwh, BLOOM_GRID) == pytest.approx(24.7, rel=0.01)


def test_bloom_idle(tonnes):
    assert tonnes(256_646, BLOOM_GRID) == pytest.approx(14.6, rel=0.01)


def test_bloom_embodied():
    each = embodied.bill_kg([(1, 150), (1 / 8, 2500)])
    found = embodied.share_kg(each, 1, BLOOM_GPU_HOURS * 3600, 6, 0.85)
    assert found / 1000 == pytest.approx(50.5 - 24.7 - 14.6, rel=0.01)


@pytest.mark.parametrize(("watts", "hours", "pue", "grid", "mwh", "published"), [
    (283, 920 * 4096, 1.08, 330, None, 380),         # Gopher, arXiv:2112.11446
    (330, 10_000 * 14.8 * 24, 1.1, 429, 1287, 552.1),  # GPT-3, Patterson et al. arXiv:2104.10350
    (326, 1024 * 1366, 1.0, None, 456, None),        # GLaM, arXiv:2112.06905
])
def test_published_runs(tonnes, watts, hours, pue, grid, mwh, published):
    kwh = energy_kwh(watts, 1, 1, pue, hours)
    if mwh:
        assert kwh / 1000 == pytest.approx(mwh, rel=0.01)
    if published:
        assert tonnes(kwh, grid) == pytest.approx(published, rel=0.01)


# LLMCarbon, SotaroKaneda/MLCarbon data/database.csv at b54d8fe (Apache-2.0): parameters that a
# token meets, tokens, kg/kWh x 1000, PUE, W of the system, peak FLOP/s, efficiency, tonnes.
LLMCARBON = {
    "T5": (11e9, 600e9, 545, 1.12, 310, 123e12, 0.37, 46.7),
    "GPT-3": (175e9, 300e9, 429, 1.1, 330, 125e12, 0.197, 552.1),
    "GShard": (2.3e9, 1000e9, 177, 1.09, 288, 123e12, 0.39, 4.3),
    "Switch": (7.41e9, 2000e9, 330, 1.1, 245, 123e12, 0.28, 59.1),
    "XLM": (0.55e9, 7000e9, 413, 1.1, 342, 125e12, 0.212, 39),
}


@pytest.mark.parametrize("name", LLMCARBON)
def test_llmcarbon_operational(tonnes, name):
    parameters, tokens, grid, pue, watts, peak, efficiency, published = LLMCARBON[name]
    hours = six_n(parameters) * tokens / (peak * efficiency) / 3600
    found = tonnes(energy_kwh(watts, 1, 1, pue, hours), grid)
    assert found == pytest.approx(published, rel=0.08)


def test_llmcarbon_embodied_of_xlm():
    """data/hardware.csv there: cm2 or GB, kg of each, how many; 20.4 days of five years."""
    parts = [(1.47, 1, 64), (256, 0.4, 64), (32_768, 0.018, 64), (8.15, 1.2, 512), (111.6, 1.2, 64)]
    whole = embodied.bill_kg([(amount * count, kg) for amount, kg, count in parts])
    found = embodied.share_kg(whole, 1, 20.4 * DAY, 5, 1.0)
    assert found / 1000 == pytest.approx(0.648, rel=0.01)
    assert found / 1000 == pytest.approx(0.66, rel=0.08)


# Meta's model cards: GPU-hours x rated watts, and tonnes. The cards state no intensity: one of a
# family must fit all its models.
LLAMA = {
    "Llama 2": (400, 423.4, {184_320: 31.22, 368_640: 62.44, 1_720_320: 291.42}),
    "Llama 3": (700, 426.0, {6_400_000: 1900}),
    "Llama 3.1": (700, 413.5, {1_460_000: 420, 7_000_000: 2040, 30_840_000: 8930}),
    "Llama 3.2": (700, 413.0, {370_000: 107, 460_000: 133}),
    "Llama 4": (700, 387.0, {5_000_000: 1354, 2_380_000: 645}),
}


@pytest.mark.parametrize("family", LLAMA)
def test_model_cards_of_llama(tonnes, family):
    watts, grid, models = LLAMA[family]
    for gpu_hours, published in models.items():
        found = tonnes(energy_kwh(watts, 1, 1, 1, gpu_hours), grid)
        assert found == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("family", LLAMA)
def test_our_grid_of_the_usa_holds_what_the_cards_imply(family):
    assert intensity(Place(zone="USA")).contains(LLAMA[family][1] / 1000)


@pytest.mark.parametrize(("mm2", "nm", "kg"), [(826, 7, 20.3), (814, 5, 24.1), (815, 14, 13.3)])
def test_act_of_a_die(mm2, nm, kg):
    """ACT at 97% abatement and a yield of 0.875, made in Taiwan: A100, H100, V100."""
    assert embodied.die_kg(mm2, nm).value == pytest.approx(kg, rel=0.01)
