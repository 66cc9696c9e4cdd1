"""What one step of a training estimates."""

from inference import train

PARAMS = ("old_logit", "old_mean", "new_mean")


def gradients_of_one_step(objective, start, target, *, batch_size, num_replicates, rate=0.5):
    """Return ĝ = (θ_0 - θ_1)/η of every replicate, by parameter, and the losses at the start."""
    tree = train(
        objective,
        start,
        target,
        num_steps=1,
        batch_size=batch_size,
        learning_rate=rate,
        num_replicates=num_replicates,
        seed=11,
        progress=False,
    )
    trajectory = tree["trajectory"].to_dataset().isel(objective=0, chain=0)
    gradients = {
        name: ((trajectory[name].isel(step=0) - trajectory[name].isel(step=1)) / rate).to_numpy()
        for name in PARAMS
    }
    return gradients, trajectory["loss"].isel(step=0).to_numpy()
