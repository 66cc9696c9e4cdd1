"""The run: pre-train, post-train by every objective, sample, embed, measure, count and compare."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from tqdm.auto import tqdm

from analyses.digits import data, judges, training
from analyses.digits.objectives import Choice, Task, choices, network_of, params_of
from analyses.digits.settings import Settings, Store
from analyses.digits.transformer import Transformer
from inference import measure, results
from inference.intervals import interval_probability
from inference.run_comparison import compare_runs

#: Variables of ``/posterior`` that are kept.
MEASURED = ("old_weight", "new_weight", "old_drift", "new_gap", "old_displacement")

_KEPT = ("old_resolution", "k_hat", "weight_information", "method", "words")

# Images of a checkpoint that a figure shows.
_SHOWN = 48

# What the random numbers of each part are folded with.
_VERIFIER, _EMBEDDING, _NETWORKS, _PRETRAINING, _POST_TRAINING, _SAMPLES = range(6)


def run(settings: Settings, folder: Path, *, progress: bool = True) -> xr.DataTree:
    """Return the result of a run; finished parts in the folder are not computed again.

    Args:
        settings: of the run.
        folder: in which every finished part is kept.
        progress: whether to show a progress bar.

    Returns:
        DataTree with ``/posterior`` over (objective, seed, chain, draw, checkpoint), ``/sample_stats``,
        ``/count`` (the independent count and its difference from the measured weight), ``/theory`` (the old
        weight that the two-mode lens predicts), ``/comparison`` of the objectives at the last checkpoint,
        with their seeds put together, and ``/shown`` (images).

    Raises:
        InputError: a folder of other settings, before anything is computed.
    """
    store = Store(folder, settings)
    with jax.enable_x64(False), tqdm(disable=None if progress else True, unit="step") as bar:
        return _run(settings, store, bar)


def _run(settings: Settings, store: Store, bar: Any) -> xr.DataTree:
    key = jax.random.key(settings.seed)
    of = partial(jax.random.fold_in, key)
    digits = data.load(settings.num_levels, settings.seed)
    verifier = judges.perceptron(digits.judges, settings.num_levels, of(_VERIFIER))
    embed = judges.Embedding(digits.judges, settings.num_levels, of(_EMBEDDING))
    counter = judges.Counter(digits.judges, digits.networks, settings.num_levels)
    chosen = _choices(settings)
    bar.total = settings.pretraining_steps + settings.steps[-1] * len(chosen)
    bar.set_description("pre-training")
    networks = _pretrained(settings, store, digits, of, bar)
    start = _task(settings, digits, networks, verifier)
    targets, arrays = start, {}
    for index, (name, choice) in enumerate(chosen.items()):
        bar.set_description(name)
        whole = partial(_trained, settings, choice, start, targets, of, index, bar)
        arrays[name] = store.arrays(name, whole)
        if name == "sft_replay":
            # The demonstrations of SDFT: what SFT on both tasks made of each network.
            last = {n: jnp.asarray(arrays[name][f"param.{n}"][-1]) for n in params_of(networks)}
            targets = _task(settings, digits, network_of(last, networks), verifier)
    old, new = embed(digits.networks.old), embed(digits.networks.new)
    trees: dict[str, list[xr.DataTree]] = {}
    for name, stored in arrays.items():
        bar.set_description(f"measuring {name}")
        trees[name] = []
        for seed in range(settings.num_seeds):
            samples = {str(s): stored["samples"][i, seed] for i, s in enumerate(settings.steps)}
            measured = partial(_measured, samples, old, new, embed, settings.seed)
            trees[name].append(store.tree(f"{name}-{seed}-measured", measured))
    return _assembled(settings, chosen, arrays, trees, counter, digits)


def _choices(settings: Settings) -> dict[str, Choice]:
    names = ("old_weight", "kl_weight", "anchor", "ema", "utility_kl_weight", "beta", "lag")
    return choices(**{name: getattr(settings, name) for name in names}, num_steps=settings.steps[-1])


def _task(
    settings: Settings, digits: data.Digits, networks: Transformer, verifier: judges.Perceptron
) -> Task:
    old, new = (jnp.asarray(images) for images in (digits.networks.old, digits.networks.new))
    logit = jnp.log(settings.old_weight) - jnp.log1p(-settings.old_weight)
    return Task(old, new, logit, networks, verifier)


def _pretrained(settings: Settings, store: Store, digits: data.Digits, of: Any, bar: Any) -> Transformer:
    shape = (data.SIDE**2, settings.num_levels, settings.width, settings.num_blocks, settings.num_heads)
    keys = jax.vmap(partial(jax.random.fold_in, of(_NETWORKS)))(jnp.arange(settings.num_seeds))
    networks = jax.vmap(lambda key: Transformer(*shape, key))(keys)
    is_old = digits.networks.is_old
    shares = settings.start_old_weight, 1.0 - settings.start_old_weight
    each = np.where(is_old, shares[0] / is_old.sum(), shares[1] / (~is_old).sum())
    logits = jnp.asarray(np.tile(np.log(each), (settings.num_seeds, 1)), jnp.float32)

    def compute() -> dict[str, np.ndarray]:
        trained = training.pretrain(
            networks,
            jnp.asarray(digits.networks.pixels),
            logits,
            num_steps=settings.pretraining_steps,
            batch_size=settings.batch_size,
            learning_rate=settings.pretraining_rate,
            key=of(_PRETRAINING),
            report=bar.update,
        )
        return {name: np.asarray(value) for name, value in params_of(trained).items()}

    stored = store.arrays("pretraining", compute)
    return network_of({name: jnp.asarray(value) for name, value in stored.items()}, networks)


def _trained(
    settings: Settings, choice: Choice, start: Task, targets: Task, of: Any, index: int, bar: Any
) -> dict[str, np.ndarray]:
    kept: list[dict[str, np.ndarray]] = []
    of_objective = partial(jax.random.fold_in, of(_POST_TRAINING))
    checkpoints = training.post_train(
        choice.objective,
        start,
        targets,
        settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        key=of_objective(index),
    )
    before = 0
    for place, checkpoint in enumerate(checkpoints):
        # The start is the same for all objectives, and so are its images.
        number = 0 if place == 0 else place + len(settings.steps) * index
        key = jax.random.fold_in(of(_SAMPLES), number)
        images = training.sample(checkpoint.networks, key, settings.num_samples)
        params = {f"param.{n}": np.asarray(v) for n, v in params_of(checkpoint.networks).items()}
        kept.append({"samples": np.asarray(images, np.uint8), "loss": checkpoint.loss} | params)
        bar.update(checkpoint.step - before)
        before = checkpoint.step
    return {name: np.stack([one[name] for one in kept]) for name in kept[0]}


def _measured(
    samples: dict[str, np.ndarray], old: np.ndarray, new: np.ndarray, embed: judges.Embedding, seed: int
) -> xr.DataTree:
    embedded = {name: embed(images) for name, images in samples.items()}
    return measure(
        embedded,
        old,
        new,
        seed=seed,
        covariance="unequal",
        tails="gaussian",
        progress=False,
        method="laplace",
    )


def _assembled(
    settings: Settings,
    chosen: dict[str, Choice],
    arrays: dict[str, dict[str, np.ndarray]],
    trees: dict[str, list[xr.DataTree]],
    counter: judges.Counter,
    digits: data.Digits,
) -> xr.DataTree:
    names, seeds = xr.Variable("objective", list(chosen)), xr.Variable("seed", np.arange(settings.num_seeds))

    def together(group: str, kept: tuple[str, ...]) -> xr.Dataset:
        of_each = [xr.concat([t[group].to_dataset()[list(kept)] for t in trees[n]], seeds) for n in chosen]
        return xr.concat(of_each, names)

    posterior, checks = together("posterior", MEASURED), together("sample_stats", _KEPT)
    counts = _counts(posterior, arrays, counter, settings.seed)
    start = posterior["old_weight"].isel(checkpoint=0).mean(["chain", "draw"])
    predicted = [chosen[n].predicted(start.sel(objective=n).to_numpy()) for n in chosen]
    theory = xr.Dataset(
        {"predicted_old_weight": (("objective", "seed"), np.stack(predicted))},
        {"objective": list(chosen), "seed": np.arange(settings.num_seeds)},
    )
    pooled = {n: _pooled(posterior.sel(objective=n)) for n in chosen}
    comparison = compare_runs(pooled)["comparison"].to_dataset()
    shown = xr.Dataset(
        {
            "image": (
                ("objective", "checkpoint", "image_number", "pixel_row", "pixel_column"),
                np.stack(
                    [
                        a["samples"][:, 0, :_SHOWN].reshape(-1, _SHOWN, data.SIDE, data.SIDE)
                        for a in arrays.values()
                    ]
                ),
            ),
            "real_image": (
                ("mode", "image_number", "pixel_row", "pixel_column"),
                np.stack(
                    [
                        p[:_SHOWN].reshape(_SHOWN, data.SIDE, data.SIDE)
                        for p in (digits.networks.old, digits.networks.new)
                    ]
                ),
            ),
        },
        {"objective": list(chosen), "checkpoint": list(settings.steps), "mode": ["old", "new"]}
        | {"image_number": np.arange(_SHOWN)}
        | {f"pixel_{side}": np.arange(data.SIDE) for side in ("row", "column")},
    )
    attrs = results.provenance(asdict(settings)) | {
        "kind": "digits",
        "separation": float(trees[next(iter(chosen))][0].attrs["separation"]),
    }
    groups = {
        "posterior": posterior,
        "sample_stats": checks,
        "count": counts,
        "theory": theory,
        "comparison": comparison,
        "shown": shown,
    }
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=attrs)} | {f"/{n}": results.describe(group) for n, group in groups.items()}
    )


def _pooled(posterior: xr.Dataset) -> xr.DataTree:
    """Return the posterior of a network that is drawn at random: the seeds' draws, one after the other."""
    draws = posterior.stack(one=("seed", "chain", "draw")).drop_vars(["one", "seed", "chain", "draw"])
    return xr.DataTree.from_dict(
        {"/posterior": draws.rename(one="draw").expand_dims("chain").assign_coords(chain=[0])}
    )


def _counts(
    posterior: xr.Dataset, arrays: dict[str, dict[str, np.ndarray]], counter: judges.Counter, seed: int
) -> xr.Dataset:
    """Count the old images of every checkpoint, and hold them against the measured weight."""
    probability = interval_probability()
    tails = [0.5 - 0.5 * probability, 0.5 + 0.5 * probability]
    measured = (
        posterior["old_weight"].transpose("objective", "seed", "checkpoint", "chain", "draw").to_numpy()
    )
    measured = measured.reshape(*measured.shape[:3], -1)
    rng = np.random.default_rng(seed)
    raw, counted, bounds, difference, limits = ([] for _ in range(5))
    for o, stored in enumerate(arrays.values()):
        for s in range(measured.shape[1]):
            for c in range(measured.shape[2]):
                count = counter.count(stored["samples"][c, s].astype(np.int32))
                draws = count.draws(measured.shape[-1], rng)
                raw.append(count.called_old / count.num_images)
                counted.append(draws.mean())
                bounds.append(np.quantile(draws, tails))
                difference.append(measured[o, s, c].mean() - draws.mean())
                limits.append(np.quantile(measured[o, s, c] - draws, tails))
    dims, shape = ("objective", "seed", "checkpoint"), measured.shape[:3]
    between = np.reshape(limits, (*shape, 2))
    return xr.Dataset(
        {
            "called_old": (dims, np.reshape(raw, shape)),
            "counted_old_weight": (dims, np.reshape(counted, shape)),
            "counted_interval": ((*dims, "ci_bound"), np.reshape(bounds, (*shape, 2))),
            "difference": (dims, np.reshape(difference, shape)),
            "difference_interval": ((*dims, "ci_bound"), between),
            "agrees": (dims, (between[..., 0] <= 0.0) & (between[..., 1] >= 0.0)),
        },
        {n: posterior[n] for n in dims} | {"ci_bound": ["lower", "upper"]},
    )


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective, seed and checkpoint: measured and counted old weight, drift and gap."""
    posterior, count = tree["posterior"].to_dataset(), tree["count"].to_dataset()
    tails = 0.5 - 0.5 * interval_probability(), 0.5 + 0.5 * interval_probability()
    rows = xr.Dataset()
    for name in ("old_weight", "old_drift", "new_gap"):
        rows[name] = posterior[name].mean(["chain", "draw"])
        for bound, tail in zip(("lower", "upper"), tails, strict=True):
            rows[f"{name}_{bound}"] = posterior[name].quantile(tail, ["chain", "draw"]).drop_vars("quantile")
    for name in ("counted_old_weight", "called_old", "difference", "agrees"):
        rows[name] = count[name]
    for bound in ("lower", "upper"):
        rows[f"counted_old_weight_{bound}"] = count["counted_interval"].sel(ci_bound=bound, drop=True)
        rows[f"difference_{bound}"] = count["difference_interval"].sel(ci_bound=bound, drop=True)
    rows = rows.merge(tree["sample_stats"].to_dataset(), join="outer")
    return rows.to_dataframe().reset_index()


def rank_agreement(tree: xr.DataTree) -> float:
    """Return Kendall's rank correlation of predicted and measured final old weight over the objectives."""
    final = tree["posterior"]["old_weight"].isel(checkpoint=-1).mean(["seed", "chain", "draw"])
    predicted = tree["theory"]["predicted_old_weight"].mean("seed")
    return float(stats.kendalltau(final.to_numpy(), predicted.to_numpy()).statistic)
