"""Texts become features: the built-in embedder, those that a user names, and what is kept of either."""

import sys
from types import ModuleType

import numpy as np
import pytest
import texts

from inference.measurement.generations import cache, ngrams
from inference.measurement.generations.cache import features_of
from inference.measurement.generations.embedder import (
    FunctionEmbedder,
    function_embedder,
    model_embedder,
)
from inference.measurement.generations.measure_generations import embedder_of
from inference.measurement.generations.ngrams import NGramEmbedder
from mixture_models import InputError

# A function as a user writes it, in a module of his own.
MODULE = """
import numpy as np

def lengths(texts):
    return [[len(text), text.count(" ")] for text in texts]

def wrong_shape(texts):
    return np.zeros(len(texts))

def not_finite(texts):
    return np.full((len(texts), 2), np.nan)

def words(texts):
    return [["a"]] * len(texts)

def failing(texts):
    raise RuntimeError("no such\\ndevice")

def centred(texts):
    values = np.array([[float(len(text)), 1.0 + len(text) ** 2] for text in texts])
    return values - values.mean(axis=0)

number = 3
"""


@pytest.fixture(scope="module")
def references():
    rng = np.random.default_rng(0)
    return [texts.texts_of(task, 200, rng) for task in ("old", "new")]


@pytest.fixture(scope="module")
def fitted(references):
    return NGramEmbedder().fitted(*references)


def spread(features):
    return np.sum((features - features.mean(axis=0)) ** 2, axis=1)


def test_references_lie_as_other_texts_of_their_task_do(references, fitted):
    """Otherwise every checkpoint would look narrower than the references, which the map has seen."""
    rng = np.random.default_rng(1)
    for task, reference in zip(("old", "new"), references, strict=True):
        fresh = texts.texts_of(task, 1000, rng)
        both = [spread(fitted.embed(some)) for some in (reference, fresh)]
        error = np.sqrt(sum(one.var() / len(one) for one in both))
        assert abs(both[0].mean() - both[1].mean()) < 4.0 * error
        # Seen by the test: one map of all references spreads them wider than others by more than that.
        counts = ngrams._counts([*references[0], *references[1]])
        whole = ngrams._fit(counts, np.repeat([0, 1], 200), 2, 8)
        seen = [spread(whole.apply(ngrams._counts(some))) for some in (reference, fresh)]
        wider = (seen[0].mean() - seen[1].mean()) / np.sqrt(sum(one.var() / len(one) for one in seen))
        assert wider > 4.0


def test_maps_are_turned_toward_one_another(references):
    """Otherwise the features of a text would mean what its hash says."""
    counts = ngrams._counts([*references[0], *references[1]])
    owner = np.repeat([0, 1], 200)
    whole = ngrams._fit(counts, owner, 2, 8)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    turned = ngrams._turned(whole._replace(directions=rotation @ whole.directions), whole)
    np.testing.assert_allclose(turned.directions, whole.directions, atol=1e-12)
    # Of fewer texts, a map is as near as it can be, in the features that tell the tasks apart among others.
    part = ngrams._fit(counts[::2], owner[::2], 2, 8)
    near = ngrams._turned(part._replace(directions=part.directions[::-1]), whole)
    fresh = ngrams._counts(texts.texts_of("old", 100, np.random.default_rng(1)))
    assert np.corrcoef(near.apply(fresh)[:, 0], whole.apply(fresh)[:, 0])[0, 1] > 0.95


def test_features_are_those_of_a_text_and_nothing_beside_it(references, fitted):
    some = [*references[0][:5], *references[1][:5], "something else", "中文"]
    together = fitted.embed(some)
    assert together.shape == (12, 8)
    np.testing.assert_allclose(np.concatenate([fitted.embed([text]) for text in some]), together, atol=1e-12)
    # Neither the order of the references, nor which of them is called old, nor copies of texts matter.
    for old, new in (
        references[::-1],
        [one[::-1] for one in references],
        [one + one[:9] for one in references],
    ):
        np.testing.assert_allclose(NGramEmbedder().fitted(old, new).embed(some), together, atol=1e-9)
    assert NGramEmbedder().fitted(*references).identity == fitted.identity
    assert NGramEmbedder().fitted(*references[::-1]).identity != fitted.identity


def test_both_references_count_alike_however_many_texts_they_have():
    old, new = ["both old one", "both old two"] * 50, ["both new one", "both new two"]
    counts = ngrams._counts(old + new)
    one = ngrams._fit(counts, np.repeat([0, 1], [100, 2]), 2, 2)
    # n-grams of one text of one task, of all of one task, of these and one text of the other, and of all.
    shares = np.array([0.25, 0.5, 0.75, 1.0])
    assert sorted(set(one.rarity.round(9))) == pytest.approx(
        sorted(np.log(103.0 / (1.0 + 102.0 * shares)) + 1.0)
    )


def test_boilerplate_does_not_lie_far_out(references):
    """A few nearly equal texts have no say in where the other texts are."""
    rng = np.random.default_rng(2)
    boilerplate = [f"Copyright {i} all rights reserved " * 8 for i in range(4)]
    embedder = NGramEmbedder().fitted(references[0] + boilerplate, references[1])
    assert np.abs(embedder.embed(boilerplate)).max() < 3.0
    assert np.abs(embedder.embed(texts.texts_of("old", 100, rng))).max() < 3.0


def test_few_texts_have_few_features():
    rng = np.random.default_rng(0)
    few = [texts.texts_of(task, 30, rng) for task in ("old", "new")]
    assert NGramEmbedder().fitted(*few).embed(few[0]).shape == (30, 3)
    with pytest.raises(InputError, match="must have words in common to be embedded by their n-grams"):
        NGramEmbedder().fitted(["a"], ["b"]).embed(["a"])


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "mine_for_tests.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "mine_for_tests"
    sys.modules.pop("mine_for_tests", None)


def test_a_function_is_found_by_its_name_and_known_by_its_source(module, tmp_path):
    embedder = embedder_of(f"{module}:lengths")
    np.testing.assert_array_equal(embedder.embed(["a b", "abcd", "", "x"])[:2], [[3, 1], [4, 0]])
    assert str(tmp_path) not in sys.path
    before = embedder.identity
    assert function_embedder(f"{module}:lengths").identity == before
    (tmp_path / "mine_for_tests.py").write_text(MODULE + "\n# changed\n")
    assert function_embedder(f"{module}:lengths").identity != before


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("wrong_shape", r"must return 4 rows of finite features, one a text; got shape \(4,\)"),
        ("not_finite", r"must return 4 rows of finite features, one a text; 4 rows are not finite"),
        ("words", r"must return 4 rows of finite features, one a text; got <U1"),
        ("failing", r"must return 4 rows .*; it raised RuntimeError: no such device"),
        ("centred", r"must give a text the same features whatever texts are beside it"),
    ],
)
def test_features_that_cannot_be_used_are_one_sentence(module, function, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        embedder_of(f"{module}:{function}").embed(["a", "bb", "ccc", "dddd"])
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("no_such_module:f", r"that can be imported; ModuleNotFoundError: No module named 'no_such_module'"),
        ("mine_for_tests:number", r"that can be imported; mine_for_tests has no function number"),
        ("bert", r"embedder must be ngrams, module:function, or a model's folder; got bert"),
        (3, r"embedder must be ngrams, module:function, a function or a model's folder; got 3"),
    ],
)
def test_an_embedder_that_is_none_is_one_sentence(module, given, sentence):
    with pytest.raises(InputError, match=sentence):
        embedder_of(given)


def test_a_model_in_a_folder_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"needs the package sentence-transformers, which is not installed"):
        embedder_of(tmp_path)

    class Model:
        def __init__(self, folder):
            if not list((tmp_path).iterdir()):
                raise ValueError(f"no model in {folder}")

        def encode(self, given, show_progress_bar):
            return np.array([[len(text), 1.0] for text in given], dtype=np.float32)

    stub = ModuleType("sentence_transformers")
    stub.SentenceTransformer = Model
    monkeypatch.setitem(sys.modules, "sentence_transformers", stub)
    with pytest.raises(
        InputError, match=r"must be the folder of a sentence-transformers model; .* no model in"
    ):
        embedder_of(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    embedder = model_embedder(tmp_path)
    np.testing.assert_array_equal(embedder.embed(["ab"]), [[2.0, 1.0]])
    assert embedder.identity == model_embedder(tmp_path).identity
    (tmp_path / "config.json").write_text("{ }")
    assert embedder.identity != model_embedder(tmp_path).identity


class Counting(FunctionEmbedder):
    """Counts the texts that it embeds."""

    def __init__(self, identity="counting"):
        super().__init__("counting", lambda given: [[len(text), 1.0] for text in given], identity)
        self.seen = []

    def embed(self, given):
        """Embed, and note what."""
        self.seen += given
        return super().embed(given)


def test_only_new_texts_are_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_BATCH", 2)
    first, again, other, unknown = Counting(), Counting(), Counting("other"), Counting(None)
    given = ["a", "bb", "a", "", "ccc"]
    expected = np.array([[1, 1], [2, 1], [1, 1], [np.nan, np.nan], [3, 1]])
    np.testing.assert_array_equal(features_of(given, first, folder=tmp_path), expected)
    np.testing.assert_array_equal(features_of(["dddd", *given], again, folder=tmp_path)[1:], expected)
    assert (first.seen, again.seen) == (["a", "bb", "ccc"], ["dddd"])
    features_of(given, other, folder=tmp_path)
    features_of(given, unknown, folder=tmp_path)
    features_of(given, unknown, folder=None)
    assert (len(other.seen), len(unknown.seen)) == (3, 6)


def test_what_is_damaged_is_embedded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_BATCH", 1)
    features_of(["a", "bb", "ccc"], Counting(), folder=tmp_path)
    damaged, foreign, _ = sorted(tmp_path.rglob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:-30])
    np.savez(foreign, texts=np.zeros((1, 16), np.uint8), features=np.full((1, 2), np.nan))
    again, then = Counting(), Counting()
    expected = [[1, 1], [2, 1], [3, 1]]
    np.testing.assert_array_equal(features_of(["a", "bb", "ccc"], again, folder=tmp_path), expected)
    features_of(["a", "bb", "ccc"], then, folder=tmp_path)
    assert (len(again.seen), then.seen) == (2, [])


def test_what_was_embedded_stays_when_the_rest_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_BATCH", 2)

    class Stopping(Counting):
        def embed(self, given):
            if len(self.seen) == 2:
                raise KeyboardInterrupt
            return super().embed(given)

    with pytest.raises(KeyboardInterrupt):
        features_of(["a", "bb", "ccc"], Stopping(), folder=tmp_path)
    again = Counting()
    features_of(["a", "bb", "ccc"], again, folder=tmp_path)
    assert again.seen == ["ccc"]
