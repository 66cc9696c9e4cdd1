"""Ctrl-C is heard whatever the process is at, and what stops a command is one sentence.

Python raises `KeyboardInterrupt` once the main thread is back from the call that it is in, which may compile
for a minute. A thread that the signal wakes waits for that a moment, and ends the process then.
"""

import errno
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from analyses.core import outputs
from inference.storage import files

# Seconds that what is under way has to end by itself.
_GRACE = 0.5


@contextmanager
def heard() -> Iterator[None]:
    """Turn Ctrl-C and a failing disk within the block into one sentence, which says what is kept.

    Raises:
        typer.Exit: with 130 after Ctrl-C, with 1 where a file cannot be written or read.
    """
    outputs.forget()
    said = threading.Lock()
    with _watched(said):
        try:
            yield
        except KeyboardInterrupt:
            _say(said, "interrupted")
            raise typer.Exit(130) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever reads what is printed has gone
                raise
            where = "" if error.filename is None else f": {error.filename}"
            _say(said, f"{error.strerror or error}{where}")
            raise typer.Exit(1) from None


@contextmanager
def _watched(said: threading.Lock) -> Iterator[None]:
    """End the process a while after Ctrl-C if nothing else does."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # whoever chose another handler decides
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(reader, ended, said), daemon=True)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        writer.close()  # which ends the watcher


def _watch(reader: socket.socket, ended: threading.Event, said: threading.Lock) -> None:
    with reader:
        while number := reader.recv(1):
            # A cluster's processes take longer to end.
            grace = 4.0 * _GRACE if multiprocessing.active_children() else _GRACE
            if number[0] == signal.SIGINT and not ended.wait(grace):
                with files.moving:
                    _say(said, "interrupted")
                    outputs.end()
                    sys.stdout.flush()
                    os._exit(130)


def _say(said: threading.Lock, reason: str) -> None:
    """Say why the command stops and what is kept; who comes second waits for the process to end."""
    said.acquire()
    if sys.stdout.isatty():
        Console().show_cursor()  # a spinner hides it
    print(f"massdrift: stopped: {reason}; {outputs.words_of_kept()}", file=sys.stderr, flush=True)
