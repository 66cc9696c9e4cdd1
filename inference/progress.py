"""When a progress bar is shown: in terminals and notebooks, not in logs, where an update is a line."""

import sys

from tqdm.auto import tqdm


def hidden(progress: bool) -> bool:
    """Return whether to hide a bar, tqdm's ``disable``.

    tqdm's own ``disable=None`` hides it in notebooks too: their output is no terminal.

    Args:
        progress: whether the user wants to see it.
    """
    in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    return not (progress and (in_notebook or sys.stderr.isatty()))
