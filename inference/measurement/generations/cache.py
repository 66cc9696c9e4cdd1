"""Features of texts, kept by content: what was embedded once is not embedded again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from inference.measurement.generations.embedder import Embedder
from inference.progress import hidden
from inference.storage import files, kept

# Texts that are embedded, and kept, at a time.
_BATCH = 256

_DIGEST_BYTES = 16


def features_of(
    texts: Sequence[str], embedder: Embedder, *, folder: Path | None, progress: bool = False
) -> Float[np.ndarray, "text feature"]:
    """Return the features of texts: those that are kept, or embedded now and kept; NaN for an empty text.

    Equal texts are embedded once. What is finished stays when this is interrupted. A file that is damaged
    counts as none.

    Args:
        texts: in any number.
        embedder: fitted.
        folder: in which features are kept; None, or an embedder without an identity, keeps nothing.
        progress: whether to show a bar over the texts.

    Raises:
        InputError: what the embedder refuses.
        OSError: features cannot be written.
    """
    by_digest = {_digest(text): text for text in texts if text}
    own = None
    if folder is not None and embedder.identity is not None:
        own = folder / kept.fingerprint(embedder.identity)
        if own.is_dir():
            files.clean_within(own)
    found = {} if own is None else _kept(own, by_digest)
    left = [digest for digest in by_digest if digest not in found]
    with tqdm(total=len(left), desc="embedding", unit="text", disable=hidden(progress and bool(left))) as bar:
        for start in range(0, len(left), _BATCH):
            digests = left[start : start + _BATCH]
            features = embedder.embed([by_digest[digest] for digest in digests])
            if own is not None:
                name = hashlib.sha256(b"".join(digests)).hexdigest()[:32]
                marks = np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), _DIGEST_BYTES)
                kept.write(own / f"{name}.npz", {"texts": marks, "features": features})
            found |= dict(zip(digests, features, strict=True))
            bar.update(len(digests))
    width = len(next(iter(found.values()))) if found else 1
    missing = np.full(width, np.nan)
    return np.array([found[_digest(text)] if text else missing for text in texts]).reshape(len(texts), width)


def _kept(folder: Path, wanted: dict[bytes, str]) -> dict[bytes, np.ndarray]:
    """Return the features of the wanted texts that a folder has."""
    found: dict[bytes, np.ndarray] = {}
    width = None
    for path in sorted(folder.glob("*.npz")):
        part = kept.read(path) or {}
        texts, features = part.get("texts"), part.get("features")
        if texts is None or features is None or features.ndim != 2 or len(texts) != len(features):
            continue
        width = features.shape[1] if width is None else width
        if features.shape[1] != width or not np.isfinite(features).all():
            continue
        digests = (row.tobytes() for row in texts)
        found |= {digest: row for digest, row in zip(digests, features, strict=True) if digest in wanted}
    return found


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_DIGEST_BYTES]
