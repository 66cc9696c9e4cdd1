"""The commands, each an analysis: a module of `analyses` whose name is the command's."""

from analyses.core.analysis import Command

COMMANDS = (
    Command("compare", "Compare post-training objectives: what is left of the old task, and what has moved."),
    Command(
        "sequence",
        "Train a sequence of tasks: what does each objective forget of every earlier one, and learn?",
    ),
    Command(
        "mass-forgetting",
        "How fast does SFT empty the old mode, and does the weight tell the truth? Exact, with asymptotes.",
    ),
    Command(
        "drift",
        "How does the drift of on-policy learning fall with separation? A posterior of its decay rate.",
    ),
    Command(
        "geometry",
        "How fast does on-policy learning return to its target? Measured against the Fisher information.",
    ),
    Command("replay", "What does replay change: the optimum of forward KL, and the batches of reverse KL?"),
    Command(
        "near-on-policy",
        "At which settings do SDFT, TTT-Discover and OAPL forget? Maps: exact, by theory, and trained.",
    ),
    Command(
        "plan",
        "Plan a training: what each objective will forget, and which setting keeps enough. No simulation.",
        optional=True,
    ),
    Command(
        "sweep",
        "Train over a grid of settings, in chunks that an interruption cannot lose; run again to go on.",
        resumes="Store to write, ends in .zarr; one begun before is resumed.",
        draws=False,
        told=True,
    ),
    Command(
        "phase", "Where does which objective forget? A map over separation, batch size, and replay or anchor."
    ),
    Command(
        "reproduce chen2025",
        "Reproduce Chen et al. 2025 (arXiv:2510.18874): what retains, the objective or a factor of 0.005?",
    ),
    Command(
        "measure",
        "Measure a real run: old weight and drift of its checkpoints, from samples, with error bars.",
        told=True,
    ),
    Command(
        "evals",
        "Measure forgetting from evaluation logs: graded answers of a base and of what was trained from it.",
        told=True,
    ),
    Command(
        "measure-scores",
        "Measure a real run by scores: its old weight, exactly, from two log-likelihoods a sample. No drift.",
        told=True,
    ),
    Command(
        "plan-evals",
        "Plan an evaluation: how many items, answers and training seeds show a loss, or measure it so well.",
        optional=True,
    ),
    Command(
        "plan-sequence",
        "Plan a sequence of tasks: which settings keep enough of every earlier task. No simulation.",
        optional=True,
    ),
    Command("compare-runs", "Compare measured runs: which kept more old mass, and which drifted less?"),
    Command(
        "digits",
        "Post-train small transformers on real digits by each objective, measure them, and test the theory.",
        resumes="Folder of the run; an interrupted one goes on.",
    ),
    Command(
        "digits-sequence",
        "Teach small transformers one group of digits after the other: is each lost as a mixture says?",
        resumes="Folder of the run; an interrupted one goes on.",
    ),
)
