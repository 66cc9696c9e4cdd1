"""How long does `measure_evals` take once logs are read? 20 tasks, 4 arms, 3 seeds, 10 checkpoints.

``python -m benchmarks.evals_timing`` draws 1,000 items a task with 8 answers of base and run, and prints the
time of a clock and of all processors, programs compiled anew included.
"""

import argparse
import os
import time

import numpy as np
import pandas as pd
from scipy import special

from inference.measurement.evals.measure_evals import measure_paired
from inference.measurement.evals.pairing import Paired


def paired(num_tasks: int, num_arms: int, num_seeds: int, num_checkpoints: int, num_items: int) -> Paired:
    """Return cells of all runs, which lose more mass from checkpoint to checkpoint."""
    rng, runs, cells = np.random.default_rng(0), [], []
    for task in range(num_tasks):
        a = rng.normal(1.0, 4.0, num_items)
        base = rng.binomial(8, special.expit(a))
        for arm in range(num_arms):
            for seed in range(num_seeds):
                for step in range(1, num_checkpoints + 1):
                    b = a - 0.02 * step + 0.1 * step * rng.normal(size=num_items)
                    mass = 0.01 * arm * step * rng.uniform(0.8, 1.2)
                    right = rng.binomial(8, (1.0 - mass) * special.expit(b))
                    items = pd.DataFrame({"right_base": base, "right_run": right}).value_counts()
                    cells.append(items.rename("num_items").reset_index().assign(run=len(runs)))
                    runs.append((f"task {task}", f"arm {arm}", str(seed), 100 * step))
    frame = pd.DataFrame(runs, columns=["task", "arm", "seed", "checkpoint"])
    frame = frame.assign(is_retest=False, kind="repeats", num_items=num_items)
    repeats = pd.concat(cells, ignore_index=True).assign(num_base=8, num_run=8, num_choices=np.nan)
    none = pd.DataFrame(columns=["task", "arm", "seed", "checkpoint", "reason", "num_items", "examples"])
    return Paired(frame, repeats, pd.DataFrame(columns=["run", "num_choices"]), none)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--method", default="auto", choices=("auto", "laplace"))
    options = parser.parse_args()
    logs = paired(options.tasks, 4, 3, 10, 1000)
    load, start = os.getloadavg()[0], time.perf_counter()
    before = os.times()
    tree = measure_paired(logs, method=options.method, progress=False)
    after = os.times()
    processors = after.user + after.system - before.user - before.system
    stats = tree["sample_stats"].to_dataset()
    by_nuts, large = int((stats["method"] == "nuts").sum()), int((stats["k_hat"] > 0.7).sum())
    print(
        f"{len(logs.runs)} runs of 1,000 items with 8 answers: {time.perf_counter() - start:.0f} s, of all "
        f"processors {processors:.0f} s; load before {load:.1f}; NUTS drew {by_nuts}, k-hat > 0.7 in {large}"
    )


if __name__ == "__main__":
    main()
