"""What turns texts into features: the interface, and embedders that a user names."""

import hashlib
import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float

from inference.storage.reading import reading
from inference.storage.versions import version_of
from mixture_models.validation import InputError, real_array

# Texts of a batch that are embedded by themselves too, and the share of the features' size by which these may
# differ.
_ALONE, _MOST_DIFFERENT = 2, 0.05


#: What turns a list of texts into an array (text, feature), of any kind.
type TextFunction = Callable[[list[str]], object]


class Embedder(ABC):
    """Turns texts into features, which depend on the text alone and on what the embedder was fitted on.

    Attributes:
        name: what results say.
    """

    name: str

    @property
    @abstractmethod
    def identity(self) -> str | None:
        """Return what is the same for the same features of the same text, or None where that is not known."""

    def fitted(self, *tasks: Sequence[str]) -> "Embedder":
        """Return the embedder fitted on the texts of the references; one that is not fitted is itself."""
        return self

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        """Return the features of texts, each of them finite.

        Raises:
            InputError: features that cannot be used.
        """


class FunctionEmbedder(Embedder):
    """A user's function from a list of texts to an array (text, feature)."""

    def __init__(self, name: str, function: TextFunction, identity: str | None) -> None:
        """Keep the function, the name that results say, and what is known of it; see `Embedder.identity`."""
        self.name, self._function, self._identity = name, function, identity
        self._checked = False

    @property
    def identity(self) -> str | None:
        """Return what the function was made with."""
        return self._identity

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
        """Return what the function returns; the first time, that of some texts by themselves is compared."""
        found = self._called(list(texts))
        if not self._checked and len(texts) > _ALONE:
            alone = np.concatenate([self._called([text]) for text in texts[:_ALONE]])
            size = np.sqrt(np.mean((found - found.mean(axis=0)) ** 2))
            if (
                alone.shape[1] != found.shape[1]
                or np.abs(alone - found[:_ALONE]).max() > _MOST_DIFFERENT * size
            ):
                raise InputError(
                    f"the embedder {self.name} must give a text the same features whatever texts are beside "
                    "it; by itself one has others: a function that learns from the texts that it is given "
                    "cannot be used"
                )
            self._checked = True
        return found

    def _called(self, texts: list[str]) -> np.ndarray:
        wanted = f"the embedder {self.name} must return {len(texts)} rows of finite features, one a text"
        try:
            returned = np.asarray(self._function(texts))
        except InputError:
            raise
        except Exception as error:  # a user's function may raise anything
            reason = " ".join(str(error).split()) or "no message"
            raise InputError(f"{wanted}; it raised {type(error).__name__}: {reason[:160]}") from error
        if returned.dtype.kind not in "fiuV":  # V: a machine-learning float such as bfloat16
            raise InputError(f"{wanted}; got {returned.dtype}")
        features = real_array(f"what the embedder {self.name} returns", returned)
        if features.ndim != 2 or len(features) != len(texts) or not features.shape[1]:
            raise InputError(f"{wanted}; got shape {features.shape}")
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        if bad:
            raise InputError(f"{wanted}; {bad} rows are not finite")
        return features


def function_embedder(name: str) -> FunctionEmbedder:
    """Return the embedder ``module:function``; modules of the current folder are found too.

    Raises:
        InputError: no such module or function.
    """
    module_name, _, attribute = name.partition(":")
    wanted = f"the embedder {name} must be a module and a function that can be imported"
    with _current_folder():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # a module may raise anything when it is imported
            raise InputError(f"{wanted}; {type(error).__name__}: {error}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise InputError(f"{wanted}; {module_name} has no function {attribute}")
    source = getattr(module, "__file__", None)
    contents = version_of(module_name).encode() if source is None else Path(source).read_bytes()
    return FunctionEmbedder(name, function, f"{name} {hashlib.sha256(contents).hexdigest()}")


def model_embedder(folder: Path) -> FunctionEmbedder:
    """Return the embedder of a sentence-transformers model that lies in a folder.

    Raises:
        InputError: the package is not installed, or the folder holds no such model.
    """
    try:
        package = importlib.import_module("sentence_transformers")
    except ImportError:
        raise InputError(
            f"the model in {folder} needs the package sentence-transformers, which is not installed: install "
            "massdrift[text], or name another embedder"
        ) from None
    with reading(folder, "embedder must be the folder of a sentence-transformers model"):
        model = package.SentenceTransformer(str(folder))
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    facts = [(str(f.relative_to(folder)), (s := f.stat()).st_size, s.st_mtime_ns) for f in files]
    identity = f"sentence-transformers {version_of('sentence-transformers')} {facts}"
    return FunctionEmbedder(
        folder.resolve().name, lambda texts: model.encode(texts, show_progress_bar=False), identity
    )


@contextmanager
def _current_folder() -> Iterator[None]:
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())
