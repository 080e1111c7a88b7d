import pytest

from curbcut.serve.engine.embedding import Embedding, gathered
from curbcut.serve.engine.interface import Unfit
from pretend import Pretend


def test_one_prompt_at_a_time_in_their_order():
    waiting = Embedding(Pretend())
    found = waiting.add([(1, 2), (5,)])
    waiting.next()
    assert [one.done() for one in found] == [True, False] and waiting
    waiting.next()
    assert gathered(found) == [[3.0, 0.0], [5.0, 0.0]] and not waiting
    waiting.next()


@pytest.mark.parametrize(("fault", "told"), [(NotImplementedError(), Unfit),
                                             (OSError("gone"), OSError)])
def test_what_fails_is_told_to_its_asker_who_wants_no_more(fault, told):
    runner = Pretend()
    waiting = Embedding(runner)
    found = waiting.add([(1,), (2,)])

    def broken(prompt):
        raise fault

    runner.embed = broken
    waiting.next()
    with pytest.raises(told):
        gathered(found)
    del runner.embed
    waiting.next()
    assert found[1].cancelled() and not waiting


def test_who_waits_when_it_ends_is_told():
    waiting = Embedding(Pretend())
    one, other = waiting.add([(1,), (2,)])
    one.cancel()
    waiting.refuse(OSError("closed"))
    assert one.cancelled() and isinstance(other.exception(), OSError) and not waiting
