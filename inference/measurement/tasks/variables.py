"""The variables of a measurement of several tasks: long names and units."""

VARIABLES = dict(
    task=("task", "1"),
    task_information=("information on the task's weight a sample, 1: its task is known", "1"),
    task_reference_share=("part of the variance of the task's weight that the references' error makes", "1"),
    weight=("weight of the task, β", "1"),
    displacement=("displacement of the task's mean, Δ", "feature"),
    task_drift=("drift of the task", "Mahalanobis"),
    other_task=("task", "1"),
    resolution=("drift that can be told from none", "Mahalanobis"),
    unmoved_probability=("probability that the task's mode has not moved", "1"),
    weight_mean=("posterior mean of the weight", "1"),
    weight_sd=("posterior standard deviation of the weight", "1"),
    weight_quantile=("posterior quantile of the weight", "1"),
    confusion=("probability that a sample of a task is taken for one of another", "1"),
    check_deviation=("deviation of a statistic from its prediction, in standard deviations", "1"),
    reference_separation=("distance between two references along the discriminants", "Mahalanobis"),
    foreign_share=("share of a reference that looks like another task", "1"),
    own_share_error=("error of the estimated weight of all references together", "1"),
    information_kept=("squared distances that held-out references keep along the discriminants", "1"),
)
