import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from curbcut.errors import DamagedFile, InputError
from curbcut.serve.engine import text
from curbcut.serve.engine.text import TextStream
from pretend import END, byte_tokenizer

VOCABULARY = text.Vocabulary(byte_tokenizer(), frozenset([259]), {}, None)


class Bytes:
    """One token a byte."""

    def decode(self, ids, special=False):
        return bytes(ids).decode(errors="replace")

    def characters(self, special):
        return None


def stream(tokens, stop=()):
    out = TextStream(Bytes(), stop)
    pieces = []
    for token in tokens:
        pieces.append(out.add(token))
        if out.stopped:
            return pieces, True
    return [*pieces, out.finish()], out.stopped is not None


@settings(max_examples=50)
@given(st.text(max_size=30))
def test_no_piece_breaks_a_character(wanted):
    pieces, _ = stream(wanted.encode())
    assert "".join(pieces) == wanted
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in wanted


@settings(max_examples=50)
@given(st.lists(st.integers(0, 255), max_size=30))
def test_pieces_of_any_bytes_join_to_the_whole(tokens):
    assert "".join(stream(tokens)[0]) == Bytes().decode(tokens)


@settings(max_examples=50)
@given(st.text("ab<", max_size=20), st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3))
def test_stop_texts_over_token_borders(wanted, stops):
    """What is handed out is what comes before the stop text that is complete first."""
    pieces, stopped = stream(wanted.encode(), tuple(stops))
    ends = [(i + len(s), i) for s in stops if (i := wanted.find(s)) >= 0]
    assert stopped == bool(ends)
    if not ends:
        assert "".join(pieces) == wanted
        return
    first = min(end for end, _ in ends)
    assert "".join(pieces) == wanted[: min(start for end, start in ends if end == first)]


def test_stop_texts_inside_one_token():
    class Chunks(Bytes):
        def decode(self, ids, special=False):
            return "".join(["xabc", "y"][i] for i in ids)

    out = TextStream(Chunks(), ("abc", "b"))
    assert out.add(0) == "xa" and out.stopped == "b"


def test_a_possible_stop_is_held_and_released():
    out = TextStream(Bytes(), ("END",))
    assert [out.add(b) for b in b"xEN"] == ["x", "", ""]
    assert out.add(ord("x")) == "ENx"
    assert [out.add(b) for b in b"E"] == [""]
    assert out.finish() == "E"


def test_after_a_stop_nothing_comes():
    out = TextStream(Bytes(), ("b",))
    assert "".join(out.add(b) for b in b"abc") == "a"
    assert out.finish() == ""


def test_words_keep_their_spaces():
    vocab = {"▁the": 0, "▁cat": 1, "s": 2}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="s"))
    tokenizer.decoder = decoders.Metaspace()

    class Words(Bytes):
        def decode(self, ids, special=False):
            return tokenizer.decode(ids)

    out = TextStream(Words())
    assert "".join(out.add(t) for t in [0, 1, 2, 0]) + out.finish() == "the cats the"


def test_a_stop_text_can_be_included_and_not_come_too_early():
    out = TextStream(Bytes(), ("END",), include_stop=True)
    assert "".join(out.add(b) for b in b"xENDy") == "xEND" and out.stopped == "END"
    out = TextStream(Bytes(), ("ab",))
    assert [out.add(b, may_stop=False) for b in b"aba"] == ["a", "b", "a"]
    assert "".join(out.add(b) for b in b"b.ab.") == "b."  # what said "a" begins no stop text
    assert out.stopped == "ab"


@settings(max_examples=50)
@given(st.lists(st.integers(0, 259), max_size=20), st.booleans())
def test_joined_bytes_are_what_the_tokenizer_decodes(tokens, special):
    """Also broken ones, special tokens, and any split into pieces."""
    vocabulary = VOCABULARY
    out = TextStream(vocabulary, special=special)
    assert vocabulary.characters(special) is not None
    said = "".join(out.add(token) for token in tokens) + out.finish()
    assert said == vocabulary.decode(tokens, special)
    joined = b"".join(vocabulary.bytes_of(token, special) for token in tokens)
    assert joined.decode(errors="replace") == said


def test_special_tokens_are_read_from_text_only_where_asked():
    text_of_end = f"a{END}b"
    plain, special = VOCABULARY.encode(text_of_end), VOCABULARY.encode(text_of_end, special=True)
    assert 259 in special and 259 not in plain
    assert VOCABULARY.decode(plain) == text_of_end and VOCABULARY.decode(special) == "ab"
    assert VOCABULARY.decode(special, special=True) == text_of_end
    assert VOCABULARY.encode(text_of_end) == plain
    with pytest.raises(ValueError, match="surrogates"):
        VOCABULARY.encode("\ud800")


def test_bytes_are_not_told_where_they_depend_on_neighbours():
    tokenizer = Tokenizer(models.WordLevel({"▁the": 0, "s": 1}, unk_token="s"))
    tokenizer.decoder = decoders.Metaspace()
    vocabulary = text.Vocabulary(tokenizer, frozenset(), {}, None)
    assert vocabulary.bytes_of(0) is None and vocabulary.characters(False) is None


def test_load_reads_ends_and_template(folder, tmp_path):
    vocabulary = text.load(folder)
    assert vocabulary.end_tokens == {259} and vocabulary.chat_template is None
    assert vocabulary.decode(vocabulary.encode("the ab é")) == "the ab é"
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 8]}')
    settings_file = tmp_path / "tokenizer_config.json"
    for given_, found in (("one", "one"), ([{"name": "default", "template": "two"}], "two"),
                          ([{"name": "tool", "template": "x"}], None)):
        settings_file.write_text(json.dumps({"chat_template": given_}))
        assert text.load(tmp_path).chat_template == found
    assert text.load(tmp_path).end_tokens == {7, 8, 259}
    (tmp_path / "chat_template.jinja").write_text("three")
    assert text.load(tmp_path).chat_template == "three"


def test_bad_tokenizers_are_named(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        text.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DamagedFile, match=r"tokenizer\.json"):
        text.load(tmp_path)
