"""The memory that trainings are held in: this process's, or that of its first accelerator."""

import sys
from pathlib import Path

import jax
import psutil

from mixture_models.validation import InputError

try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

_STATUS = Path("/proc/self/status")

# The share of the memory that is free which a sweep may take unless told otherwise, and what reading and
# writing take beside programs and blocks.
_SHARE, _BESIDE = 0.5, 192 * 2**20


def default_limit() -> float:
    """Return the bytes that may be held in all unless the user says otherwise."""
    return _held() + _SHARE * free()


def free() -> float:
    """Return the bytes that are free."""
    stats = _device()
    return psutil.virtual_memory().available if stats is None else stats["bytes_limit"] - _in_use(stats)


def check_fits(what: str, needed: float, advice: str) -> None:
    """Refuse what needs more memory than is free.

    Args:
        what: that must fit, such as ``"what is recorded"``.
        needed: bytes.
        advice: what to change, such as ``"take fewer replicates"``.

    Raises:
        InputError: it does not fit.
    """
    there = free()
    if needed > there:
        raise InputError(
            f"{what} must fit into memory; it takes {needed / 1e9:.3g} GB and {there / 1e9:.3g} GB are free: "
            f"{advice}"
        )


def beside_blocks() -> int:
    """Return the bytes that are held now or will be, whatever is trained."""
    return _held() + _BESIDE


def peak() -> int:
    """Return the bytes that have been held at most so far."""
    stats = _device()
    if stats is not None:
        return int(stats["peak_bytes_in_use"])
    if resource is None:  # Windows
        return int(psutil.Process().memory_info().peak_wset)
    if _STATUS.exists():  # Linux, whose resource usage counts a parent's memory too
        return 1024 * int(_STATUS.read_text().partition("VmHWM:")[2].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def whose() -> str:
    """Return whose memory it is, in words."""
    return "this process" if _device() is None else jax.local_devices()[0].device_kind


def _held() -> int:
    stats = _device()
    return int(psutil.Process().memory_info().rss) if stats is None else _in_use(stats)


def _in_use(stats: dict[str, int]) -> int:
    return int(stats["bytes_in_use"])


def _device() -> dict[str, int] | None:
    """Return what the first device says of its memory, None where it is this process's."""
    return None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
