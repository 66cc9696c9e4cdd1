"""What takes the steps of a training: NumPyro's SVI, or what a guide needs in its place."""

from functools import singledispatch

from numpyro.infer import SVI
from numpyro.infer.svi import SVIState

from mixture_models.types import ModelOrGuide, Params


class Steps(SVI):
    """SVI with a place to tidy up after a step."""

    def settled(self, svi_state: SVIState, companion: Params | None) -> tuple[SVIState, Params | None]:
        """Return the state and the companion's params after a step, as the next step wants them."""
        return svi_state, companion


@singledispatch
def steps_of(guide: ModelOrGuide) -> type[Steps]:
    """Return what takes the steps of a kind of guide; another kind registers its own."""
    return Steps
