import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from curbcut.serve.engine.pages import Pages
from pretend import check

SIZE = 2
A, B = ("a", ""), ("b", "")


def know(pages, held, tokens, link, upto=None):
    for place in range(len(tokens) // SIZE if upto is None else upto):
        link = pages.know(held, place, tuple(tokens[place * SIZE: (place + 1) * SIZE]), link)
    return link


def remember(pages, tokens, root=A):
    held = pages.take(len(tokens) // SIZE)
    know(pages, held, tokens, root)
    pages.release(held)
    return held


def test_only_equal_beginnings_of_equal_salt_are_found():
    pages = Pages(8, SIZE)
    held = remember(pages, [1, 2, 3, 4])
    assert pages.find([1, 2, 3, 4, 5], A)[0] == held
    assert pages.find([1, 2, 9, 9], A)[0] == held[:1]
    assert pages.find([1], A)[0] == pages.find([3, 4], A)[0] == pages.find([1, 2], B)[0] == []
    assert pages.remembered == 2 and pages.used == 0 and pages.unheld(held) == 2


def test_the_longest_unused_goes_first_and_ends_before_beginnings():
    pages = Pages(4, SIZE)
    first, second = remember(pages, [1, 2, 3, 4]), remember(pages, [5, 6, 7, 8])
    found, _ = pages.find([1, 2, 3, 4], A)
    pages.hold(found)
    pages.release(found)                         # used again: now the second is the older one
    assert pages.take(1) == second[1:]
    assert pages.find([5, 6, 7, 8], A)[0] == second[:1]
    assert pages.take(2) == [second[0], first[1]]
    assert pages.find([1, 2, 3, 4], A)[0] == first[:1]
    check(pages)


def test_what_nobody_knows_is_given_out_before_what_is_remembered():
    pages = Pages(3, SIZE)
    remember(pages, [1, 2])
    plain = pages.take(2)
    pages.release(plain)
    assert set(pages.take(2)) == set(plain)
    assert pages.remembered == 1


def test_a_second_copy_gives_way_to_the_first():
    pages = Pages(4, SIZE)
    one, two = pages.take(1), pages.take(2)
    know(pages, one, [1, 2], A)
    copy = two[0]
    link = know(pages, two, [1, 2, 3, 4], A)
    assert two[0] == one[0] and pages.free == 2
    pages.release(one)
    assert pages.take(3) is None and pages.take(1) == [copy]
    assert pages.find([1, 2, 3, 4], A) == (two, link)
    check(pages)


def test_what_is_not_there_is_not_taken():
    pages = Pages(2, SIZE)
    assert pages.take(3) is None and pages.free == 2
    assert len(pages.take(2)) == 2 and pages.take(1) is None


def test_giving_back_twice_is_noticed():
    pages = Pages(2, SIZE)
    held = pages.take(1)
    pages.release(held)
    pages.release(held)
    with pytest.raises(AssertionError):
        check(pages)


class Books(RuleBasedStateMachine):
    """Sequences that come, grow and go; what each page holds is written down beside the books."""

    @initialize(count=st.integers(1, 9))
    def begin(self, count):
        self.pages = Pages(count, SIZE)
        self.content = {}
        self.live = []

    @rule(salt=st.sampled_from("ab"), tokens=st.lists(st.integers(0, 1), max_size=9))
    def come(self, salt, tokens):
        root = (salt, "")
        found, link = self.pages.find(tokens, root)
        for place, page in enumerate(found):
            assert self.content[page] == (root, tuple(tokens[: (place + 1) * SIZE]))
        self.pages.hold(found)
        self.live.append([root, list(tokens[: len(found) * SIZE]), found, len(found), link])

    @precondition(lambda self: self.live)
    @rule(data=st.data(), more=st.lists(st.integers(0, 1), min_size=1, max_size=6))
    def grow(self, data, more):
        one = data.draw(st.sampled_from(self.live))
        root, tokens, held, known, link = one
        need = -(-(len(tokens) + len(more)) // SIZE) - len(held)
        taken = self.pages.take(need)
        assert (taken is None) == (need > 0 and self.free_before < need)
        if taken is None:
            return
        assert not {page for other in self.live for page in other[2]} & set(taken)
        held += taken
        tokens += more
        for place in range(known, len(tokens) // SIZE):
            self.content[held[place]] = (root, tuple(tokens[: (place + 1) * SIZE]))
            link = self.pages.know(held, place, tuple(tokens[place * SIZE: (place + 1) * SIZE]),
                                   link)
            assert self.content[held[place]] == (root, tuple(tokens[: (place + 1) * SIZE]))
        one[3:] = [len(tokens) // SIZE, link]

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def go(self, data):
        one = data.draw(st.sampled_from(self.live))
        self.live.remove(one)
        self.pages.release(one[2])

    @invariant()
    def balance(self):
        if not hasattr(self, "pages"):
            return
        check(self.pages)
        self.free_before = self.pages.free
        held = {page for one in self.live for page in one[2]}
        assert self.pages.used == len(held)
        for page in held:
            assert self.pages._holders[page] == sum(page in one[2] for one in self.live)


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestBooks = Books.TestCase
