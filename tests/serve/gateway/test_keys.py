import pytest

from callers import known
from curbcut.errors import InputError
from curbcut.serve.gateway.keys import check_exposure, check_origin, identify, is_loopback
from curbcut.serve.gateway.limits import Limits, check_known, room_for_answer
from curbcut.serve.gateway.refusal import Refused

KNOWN = known({"secret": "ann"})


@pytest.mark.parametrize(("host", "loopback"), [
    ("127.0.0.1", True), ("127.8.9.1", True), ("localhost", True), ("::1", True),
    ("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("example.org", False), ("", False),
    ("127.0.0.1.example.org", False)])
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback
    check_exposure(host, KNOWN)
    if loopback:
        check_exposure(host, None)
    else:
        with pytest.raises(InputError, match="curbcut keys add NAME"):
            check_exposure(host, None)


def test_known_keys_have_names_and_others_do_not():
    assert identify("Bearer secret", KNOWN).key == "ann"
    assert identify("bearer  secret ", KNOWN).key == "ann"
    assert identify(None, None) is None
    for header in (None, "", "Bearer", "Bearer ", "secret", "Basic secret", "Bearer secre",
                   "Bearer secret x"):
        with pytest.raises(Refused) as caught:
            identify(header, KNOWN)
        assert caught.value.status == 401
        assert caught.value.headers["WWW-Authenticate"] == "Bearer"
        assert "secre" not in caught.value.message


@pytest.mark.parametrize(("host", "origin", "served"), [
    ("127.0.0.1:8000", None, True), ("localhost:8000", "http://localhost:3000", True),
    ("[::1]:8000", "http://[::1]:3000", True), ("evil.example:8000", None, False),
    ("127.0.0.1:8000", "https://evil.example", False), ("localhost:8000", "null", False)])
def test_pages_of_other_sites_cannot_use_an_open_server(host, origin, served):
    check_origin(host, origin, KNOWN)
    if served:
        check_origin(host, origin, None)
        return
    with pytest.raises(Refused) as caught:
        check_origin(host, origin, None)
    assert caught.value.status == 403


def test_room():
    limits = Limits(answer_tokens=30)
    assert room_for_answer([1] * 10, None, 100, limits, "prompt") == 30
    assert room_for_answer([1] * 90, None, 100, limits, "prompt") == 10
    assert room_for_answer([1] * 90, 10, 100, limits, "prompt") == 10
    for prompt, tokens in (([], None), ([1] * 90, 11), ([1] * 100, None), ([1] * 101, 1)):
        with pytest.raises(Refused) as caught:
            room_for_answer(prompt, tokens, 100, limits, "prompt")
        assert caught.value.status == 400 and caught.value.param == "prompt"


def test_known_tokens():
    check_known([0, 9], 10, "prompt")
    for token in (-1, 10):
        with pytest.raises(Refused, match=str(token)):
            check_known([token], 10, "prompt")
