import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.facts.loss_laws import COEFFICIENTS, law, laws


def loss(one, parameters, tokens):
    return one.E + one.A / parameters**one.alpha + one.B / tokens**one.beta


def test_published_coefficients():
    one = law("hoffmann-2022")
    assert (one.E, one.A, one.alpha, one.B, one.beta) == (1.69, 406.4, 0.34, 410.7, 0.28)
    one = law()
    assert (one.name, one.E, one.B) == ("besiroglu-2024", 1.8172, 2085.43)


def test_intervals_hold_their_coefficients():
    assert set(law("besiroglu-2024").intervals) == set(COEFFICIENTS)
    assert law("hoffmann-2022").intervals == {}


@pytest.mark.parametrize("name", [one.name for one in laws() if "MassiveText" in one.domain])
def test_chinchilla_itself_comes_out_near_two_nats(name):
    assert loss(law(name), 70e9, 1.4e12) == pytest.approx(1.95, abs=0.07)


def test_the_replication_spends_about_evenly_on_parameters_and_tokens():
    one = law()
    assert one.beta / (one.alpha + one.beta) == pytest.approx(0.5126, abs=0.001)


def test_every_law_says_what_it_measures():
    assert all(one.unit == "nats per token" and one.domain for one in laws())


def test_unknown_law_offers_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'hoffmann-2022'"):
        law("hofmann-2022")


def test_own_law_with_a_coefficient_outside_its_interval_is_refused(own_facts):
    (own_facts / "loss_laws.csv").write_text(
        "name,E,A,alpha,B,beta,E_low,E_high,unit,domain,source,date\n"
        "mine,0.5,1,0.3,1,0.3,1,2,nats per token,python,me,2026\n")
    with pytest.raises(InputError, match=r"loss_laws\.csv, line 2: E is outside its interval"):
        law("mine")
