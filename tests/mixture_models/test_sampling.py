"""The sampling law is a part of an objective: what it says is drawn, and nothing else."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.tree_util import Partial

from mixture_models import ForwardKL, InputError, Loss, MixtureLaw, TwoMode, objectives
from mixture_models.losses import sampling
from mixture_models.losses.loss import NumPyroLoss, law_of
from mixture_models.losses.precision import SinglePrecision
from mixture_models.losses.sampling import OfLastMode, SamplingLaw
from mixture_models.objectives import Objective, new_data, published

TARGET = TwoMode.create(0.4, 0.0, 3.0, 1.0)
START = TARGET.replace(old_weight=0.7, old_mean=0.3, new_mean=2.0)
LEARNER = TARGET.replace(old_weight=0.6, old_mean=-0.2, new_mean=2.5)

# Every registered objective with its variants, and what they do not show of the losses.
TEXTS = (
    *objectives.by_default(),
    "reverse_kl:estimator=pathwise",
    "reverse_kl:replay={'old':0.2}",
    "sdft:divergence=forward",
    "sdft:divergence=0.3",
    "ttt_discover:eta=adaptive",
)
GUIDE = published.PublishedTwoModeLearner()
PUBLISHED = {
    type(loss).__name__: Objective("published", Partial(new_data, None), GUIDE, loss)
    for loss in (published.FlooredForwardKL(), published.PublishedRL())
}
OBJECTIVES = {text: objectives.parse(text) for text in TEXTS} | PUBLISHED


class Held(MixtureLaw):
    """A law whose samples are the same whatever the key."""

    def sample(self, key, sample_shape=()):
        """Draw by a key of its own."""
        return super().sample(jax.random.key(7), sample_shape)

    def strata(self, key, num_samples):
        """Draw by a key of its own."""
        return super().strata(jax.random.key(7), num_samples)


class At(SamplingLaw):
    """Samples of a law of no policy, about a place."""

    words = "a place"

    def __init__(self, place):
        self.place = place

    def law(self, target, learner, args):
        """Return the law."""
        return Held(jnp.zeros(1), jnp.array([[self.place]]), (jnp.ones(()),))


def losses(objective, num_keys=2):
    """Return the loss on a batch of eight for several keys."""
    sites = {"old_logit": LEARNER.old_logit, "old_weight": 0.6, "old_scale": 0.9, "new_scale": 1.1}
    with jax.enable_x64(True):
        params = {n: jnp.asarray(v, float) for n, v in sites.items()}
        params |= {n: jnp.asarray(getattr(LEARNER, n)) for n in ("old_mean", "new_mean")}
        beside = {n: 1.1 * v for n, v in params.items()}
        told = {} if objective.companion is None else {"companion": beside}
        loss = objective.loss.with_samples(8)
        model = partial(objective.model, **told)
        keys = jax.random.split(jax.random.key(0), num_keys)
        found = [loss.loss(key, params, model, objective.guide, START, TARGET) for key in keys]
    return np.array(found)


def kinds(kind=Loss):
    """Return all kinds of losses of the project."""
    below = [each for one in kind.__subclasses__() for each in (one, *kinds(one))]
    return {one for one in below if one.__module__.startswith("mixture_models.")}


def test_every_loss_is_among_these():
    covered = {type(objective.loss) for objective in OBJECTIVES.values()}
    assert covered == kinds() - {NumPyroLoss, SinglePrecision}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_is_of_the_sampling_law_and_of_nothing_else(name, monkeypatch):
    objective = OBJECTIVES[name]
    assert len(set(losses(objective))) == 2
    found = {}
    for place in (0.5, 1.5):
        monkeypatch.setattr(type(objective.loss), "sampling", At(place))
        # What is drawn by another law than this one depends on the key.
        found[place] = set(losses(objective))
        assert len(found[place]) == 1
    assert found[0.5] != found[1.5]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_single_precision_keeps_the_sampling_law(name):
    loss = OBJECTIVES[name].loss
    assert SinglePrecision(loss).sampling.words == loss.sampling.words != sampling.NotStated.words


def test_the_published_rl_samples_the_last_mode():
    objective = OBJECTIVES["PublishedRL"]
    assert objective.sampling.words == "the learner's new mode"
    with jax.enable_x64(True):
        start = replace(START, new_scale=np.asarray(0.5))
        learner = law_of(GUIDE, {}, start, TARGET)
        law = objective.sampling.law(None, learner, ())
    np.testing.assert_array_equal(law.means, [[2.0]])
    np.testing.assert_array_equal(law.log_weights, [0.0])
    assert [float(scale) for scale in law.scales] == [0.5]
    # The second of two covariances, and the only one of one.
    shared = OfLastMode().law(None, MixtureLaw(jnp.zeros(2), jnp.array([[1.0], [3.0]]), (jnp.ones(()),)), ())
    assert (float(shared.means[0, 0]), float(shared.scales[0])) == (3.0, 1.0)
    with pytest.raises(InputError, match="a last mode to sample needs a learner whose law is a MixtureLaw"):
        OfLastMode().law(None, dist.Normal(0.0, 1.0), ())


def test_a_loss_that_draws_must_state_its_sampling_law(monkeypatch):
    monkeypatch.setattr(ForwardKL, "sampling", sampling.NotStated())
    with pytest.raises(InputError, match="must state its sampling law"):
        losses(OBJECTIVES["sft"])
