"""A sweep on a Dask cluster: every task is a block, which the worker trains and writes itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import Any

import cloudpickle

from inference.engine.blas import on_one_thread
from inference.sweeps.blocks import train_block
from inference.sweeps.cuts import Block
from inference.sweeps.grid import Grid
from inference.sweeps.store import SweepStore
from mixture_models.validation import InputError

# Tasks that the scheduler knows of, for each thread of the cluster: it need not hold a long sweep at once.
_AHEAD = 4

# Deaths of a worker in the same task after which the task is held to be the cause.
_DEATHS = 10


def run_on(
    grid: Grid,
    store: SweepStore,
    work: Sequence[Block],
    progress: Callable[[int], object],
    *,
    workers: int | None,
    scheduler: str | None,
) -> None:
    """Train blocks on a cluster; a worker that dies loses what it was at, which another one takes over.

    Args:
        grid: the sweep's.
        store: reachable under the same path by every worker.
        work: what is to be trained.
        progress: called with 1 after every block.
        workers: processes of a cluster on this machine.
        scheduler: or the address of a running one.

    Raises:
        InputError: ``dask.distributed`` is not installed, or no scheduler answers.
    """
    payload = cloudpickle.dumps((grid, store))
    with _client(workers, scheduler) as (client, as_completed):
        # Made when they are asked for.
        tasks = (client.submit(_train, payload, tuple(block), pure=False, retries=2) for block in work)
        ahead = _AHEAD * max(1, sum(client.nthreads().values()))
        running = as_completed([*islice(tasks, ahead)])
        for future in running:
            future.result()
            progress(1)
            for following in islice(tasks, 1):
                running.add(following)


@contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[tuple[Any, Any]]:
    try:
        import dask
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise InputError(
            "a cluster needs dask.distributed: install massdrift with its extra 'cluster'"
        ) from error
    settings = {"distributed.scheduler.allowed-failures": _DEATHS, "distributed.admin.tick.limit": "1h"}
    with dask.config.set(settings):
        if scheduler is None:
            with (
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
                ) as local,
                Client(local) as client,
            ):
                yield client, as_completed
            return
        try:
            client = Client(scheduler, timeout="30s")
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(f"scheduler must be the address of a Dask scheduler; got {scheduler}") from error
        with client:
            yield client, as_completed


@on_one_thread
def _train(payload: bytes, block: tuple[int, tuple[int, ...], int]) -> None:
    """Train and commit one block, on a worker."""
    grid, store = _unpacked(payload)
    objective, place, replicates = block
    piece = Block(int(objective), tuple(place), int(replicates))
    trained = train_block(grid, store.cut, piece, lambda amount: None, store.stages_of(piece))
    store.write(grid, piece, trained)


@lru_cache(maxsize=2)
def _unpacked(payload: bytes) -> tuple[Grid, SweepStore]:
    grid, store = cloudpickle.loads(payload)
    return grid, store
