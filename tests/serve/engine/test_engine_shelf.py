import asyncio
import gc
import threading
import weakref

import pytest

from curbcut.errors import DamagedFile, InputError
from curbcut.serve.engine.interface import Closed, Stats
from curbcut.serve.engine.local import LocalEngine
from curbcut.serve.engine.models import Models, NoRoom, Served, Single, UnknownModel
from curbcut.serve.engine.shelf import Book, Shelf, plain_name, total
from curbcut.serve.engine.text import Vocabulary
from pretend import Pretend, asked


class Letters:
    decoder = None

    def get_vocab_size(self):
        return 97

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(33 + token) for token in ids)


class Library:
    """Books that count how often they are loaded, and may wait or fail."""

    def __init__(self, **sizes):
        self.loads, self.go, self.engines = [], threading.Event(), []
        self.go.set()
        self.error = None
        self.books = {name: Book(load=lambda name=name, size=size: self.load(name, size),
                                 bytes_=size, context_tokens=32, created=7,
                                 adapters=("fr",) if name == "a" else ())
                      for name, size in sizes.items()}

    def load(self, name, size):
        self.go.wait(60)
        self.loads.append(name)
        if self.error:
            raise self.error
        runner = Pretend()
        runner.weights_bytes = size
        engine = LocalEngine(runner, Vocabulary(Letters(), frozenset(), {}, None))
        self.engines.append(weakref.ref(engine))
        return engine


@pytest.fixture
def shelf_of():
    shelves = []

    def make(budget=None, **sizes):
        library = Library(**sizes)
        shelves.append(Shelf(library.books, budget))
        return shelves[-1], library

    yield make
    for shelf in shelves:
        shelf.close()


def loaded(shelf):
    return [name for name, place in shelf._places.items() if place.engine is not None]


def ask(engine):
    ended = threading.Event()
    engine.submit(asked([1, 2], 2), lambda delta: delta.finish and ended.set())
    assert ended.wait(60)


def test_a_model_is_loaded_when_it_is_asked_for_and_once(shelf_of):
    shelf, library = shelf_of(a=1, b=1)
    models: Models = shelf
    assert models.names() == [Served("a", 7, 32), Served("a:fr", 7, 32, "a"), Served("b", 7, 32)]
    assert library.loads == []
    with shelf.hold("b") as one, shelf.hold("b") as two:
        assert one.engine is two.engine and one.adapter == ""
    with shelf.hold("a:fr") as adapted:
        assert adapted.adapter == "fr"
    assert library.loads == ["b", "a"] and shelf.names()[0].context_tokens == 48


@pytest.mark.parametrize("name", ["", "c", "../a", "a/../b", "%2e%2e", "a\0", "a:", "a:de", ":fr",
                                  "A", "а", "b:fr", "a" * 10_000])
def test_other_names_are_unknown(shelf_of, name):
    shelf, library = shelf_of(a=1, b=1)
    with pytest.raises(UnknownModel), shelf.hold(name):
        pass
    assert library.loads == []


def test_the_longest_unused_goes_when_room_is_needed_and_its_counts_stay(shelf_of):
    shelf, library = shelf_of(budget=10, a=4, b=4, c=6)
    for name in ("a", "b", "a"):
        with shelf.hold(name) as leased:
            ask(leased.engine)
    with shelf.hold("c") as leased:
        ask(leased.engine)
    assert loaded(shelf) == ["a", "c"] and library.loads == ["a", "b", "c"]
    assert {name: one.finished for name, one in shelf.stats().items()} == {"a": 2, "b": 1, "c": 1}
    assert shelf.stats()["b"].pages == 0 and shelf.stats()["a"].pages == 12
    with shelf.hold("b") as leased:
        ask(leased.engine)
    assert shelf.stats()["b"].finished == 2 and total([*shelf.stats().values()]).finished == 5
    del leased
    gc.collect()
    assert sum(engine() is not None for engine in library.engines) == len(loaded(shelf)) == 2


def test_who_is_held_stays_and_there_may_be_no_room(shelf_of):
    shelf, library = shelf_of(budget=10, a=6, b=6)
    with shelf.hold("a") as held:
        with pytest.raises(NoRoom, match="no room for b"), shelf.hold("b"):
            pass
        ask(held.engine)
    with shelf.hold("b"):
        assert loaded(shelf) == ["b"]
    assert library.loads == ["a", "b"]


def test_what_can_never_fit_and_bad_names_are_refused_at_once():
    with pytest.raises(InputError, match="more than"):
        Shelf(Library(a=11).books, 10)
    for name, better in (("Qwen3 0.6B", "qwen3-0.6b"), ("../x", "x"), ("", "model"),
                         ("x" * 65, "x" * 64), ("a:b", "a-b")):
        with pytest.raises(InputError) as caught:
            Shelf({name: Library(a=1).books["a"]})
        assert caught.value.mend == f"call it {better}"
        Shelf({plain_name(name): Library(a=1).books["a"]}).close()


def test_a_folder_that_cannot_be_loaded_is_told_to_all_who_asked_and_tried_again(shelf_of):
    shelf, library = shelf_of(a=1)
    library.error = DamagedFile("is torn")
    for _ in range(2):
        with pytest.raises(DamagedFile, match="torn"), shelf.hold("a"):
            pass
    library.error = None
    with shelf.hold("a"):
        assert library.loads == ["a"] * 3


def test_the_event_loop_goes_on_while_a_model_is_loaded_and_many_wait(shelf_of):
    shelf, library = shelf_of(a=1)
    library.go.clear()

    async def one():
        async with shelf.lease("a") as leased:
            return leased.engine

    async def all_of_them():
        tasks = [asyncio.create_task(one()) for _ in range(5)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()                 # who leaves takes nothing away from the others
        await asyncio.sleep(0.01)
        library.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(all_of_them())
    assert isinstance(found[0], asyncio.CancelledError)
    assert len({id(engine) for engine in found[1:]}) == 1 and library.loads == ["a"]
    assert shelf._places["a"].holders == 0


def test_a_shelf_that_drains_lends_nothing_more(shelf_of):
    shelf, _ = shelf_of(a=1, b=1)
    with shelf.hold("a") as held:
        shelf.drain()
        with pytest.raises(Closed):
            held.engine.submit(asked([1]), lambda delta: None)
    for name in ("a", "b"):
        with pytest.raises(Closed), shelf.hold(name):
            pass
    shelf.close()
    shelf.close()


def test_one_engine_alone_is_models_too():
    engine = Library(a=1).load("a", 1)
    engine.adapters = {"fr": "somewhere"}
    models: Models = Single(engine, "it", 3)

    async def lease(name):
        async with models.lease(name) as leased:
            return leased.engine, leased.adapter

    assert [one.name for one in models.names()] == ["it", "it:fr"]
    assert asyncio.run(lease("it")) == (engine, "")
    assert asyncio.run(lease("it:fr")) == (engine, "fr")
    for name in ("fr", "it:", "it:de", "other"):
        with pytest.raises(UnknownModel):
            asyncio.run(lease(name))
    assert models.stats() == {"it": engine.stats()}
    models.drain()
    models.close()


def test_sums_are_of_all_fields():
    assert total([]) == Stats()
    assert total([Stats(steps=2, pages=3), Stats(steps=1, failed=1)]) == Stats(
        steps=3, pages=3, failed=1)
