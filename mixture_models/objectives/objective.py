"""What an objective is: a model, a guide, a sampling law and a divergence."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mixture_models.losses.loss import Loss, as_loss
from mixture_models.losses.sampling import SamplingLaw
from mixture_models.objectives.companions import Companion
from mixture_models.types import ModelOrGuide

if TYPE_CHECKING:
    from mixture_models.objectives.registry import Recipe


@dataclass(frozen=True)
class Objective:
    """A post-training objective.

    Attributes:
        name: what tables and results call it, such as ``"sft:replay=0.2"``.
        model: NumPyro program ``(start, target)``, the law that the learner is pulled toward; with a
            companion it takes the companion's params as the keyword argument ``companion``; None stands for
            those at the start, or is refused where the companion moves.
        guide: NumPyro program ``(start, target)``, the learner; its params are what training moves. `train`
            needs a `Guide`, which also says what is reported of them.
        loss: the divergence between the two, as a `Loss`; it holds the sampling law. One of NumPyro's own
            ELBOs is taken too.
        description: the model in words.
        companion: the policy that travels beside the learner, or None.
        recipe: how a registered constructor made it, see `mixture_models.objectives.registry`; else None.

    The model, the guide, the loss and the companion are JAX pytrees whose leaves are the numeric
    hyperparameters: objectives that differ in numbers only share one compiled program.
    """

    name: str
    model: ModelOrGuide
    guide: ModelOrGuide
    loss: Loss
    description: str = ""
    companion: Companion | None = None
    recipe: "Recipe | None" = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", as_loss(self.loss))

    @property
    def sampling(self) -> SamplingLaw:
        """Whose samples a batch holds."""
        return self.loss.sampling

    @property
    def parts(self) -> tuple[ModelOrGuide, ModelOrGuide, Loss, Companion | None]:
        """The model, the guide, the loss and the companion."""
        return self.model, self.guide, self.loss, self.companion
