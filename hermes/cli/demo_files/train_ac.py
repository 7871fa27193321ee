"""Actor-critic with n-step advantages (Mnih et al., 2016, with one actor), small enough to watch.

`python train_ac.py IDENTIFIER -gamma 0.995 --env cartpole -lr_actor 0.003 -lr_critic 0.001` Hermes
gives the identifier. Files that have it in their names are moved into the experiment's directory.
"""

import argparse
import json
import math
import random

from networks.cnn import ENVIRONMENTS, Cnn, Window

BATCH = 16  # steps between two updates
LAMBDA = 0.95  # how far advantages look ahead (Schulman et al., 2016)

Transition = tuple[
    Window, int, Window, bool, bool
]  # seen, done, seen then, pole fell, episode over


def policy(actor: Cnn, window: Window) -> list[float]:
    """The probability of each action."""
    scores = actor.forward(window)
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def learn(
    actor: Cnn, critic: Cnn, batch: list[Transition], gamma: float, rates: tuple[float, float]
) -> None:
    """Make actions that turned out better than the critic thought more likely, others less; then
    correct the critic."""
    advantage = 0.0
    for window, action, after, failed, over in reversed(batch):
        goal = -1.0 if failed else gamma * critic.forward(after)[0]
        value = critic.forward(window)[0]
        advantage = goal - value + (0.0 if over else gamma * LAMBDA * advantage)
        critic.backward([-advantage / len(batch)])
        chances = policy(actor, window)
        actor.backward(
            [advantage * (chance - (i == action)) / len(batch) for i, chance in enumerate(chances)]
        )
    actor.update(rates[0])
    critic.update(rates[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("identifier")
    parser.add_argument("-gamma", type=float, default=0.995)
    parser.add_argument("--env", choices=ENVIRONMENTS, default="cartpole")
    parser.add_argument("-lr_actor", type=float, default=0.003)
    parser.add_argument("-lr_critic", type=float, default=0.001)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    env = ENVIRONMENTS[args.env](rng)
    actor, critic = Cnn(2, rng), Cnn(1, rng)
    batch: list[Transition] = []
    returns: list[int] = []
    with open(f"returns_{args.identifier}.csv", "w") as file:
        print("episode,return", file=file, flush=True)
        for episode in range(1, args.episodes + 1):
            window = env.reset()
            total, over = 0, False
            while not over:
                action = rng.choices((0, 1), policy(actor, window))[0]
                after, failed = env.step(action)
                total += 1
                over = failed or total == env.max_steps
                batch.append((window, action, after, failed, over))
                window = after
                if len(batch) == BATCH:
                    learn(actor, critic, batch, args.gamma, (args.lr_actor, args.lr_critic))
                    batch.clear()
            returns.append(total)
            print(f"{episode},{total}", file=file, flush=True)
            if episode % 20 == 0:
                print(f"episode {episode:3}: mean return {sum(returns[-20:]) / 20:5.1f}")
    with open(f"model_{args.identifier}.json", "w") as file:
        json.dump({"env": args.env, "kernels": actor.kernels, "heads": actor.heads}, file)


if __name__ == "__main__":
    main()
