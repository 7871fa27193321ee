"""Deep Q-learning (Mnih et al., 2015) with a replay memory and a target network, small enough to
watch.

`python train_dqn.py IDENTIFIER -gamma 0.995 --env cartpole -lr 0.001` Hermes gives the identifier.
Files that have it in their names are moved into the experiment's directory.
"""

import argparse
import json
import random

from networks.cnn import ENVIRONMENTS, Cnn, Window

BATCH = 16  # transitions in one update
WARM_UP = 200  # steps before the first update
EXPLORE = 800  # steps over which actions go from random to greedy
SYNC = 100  # steps between two copies to the target network

Transition = tuple[Window, int, Window, bool]  # seen, done, seen then, and whether the pole fell


def learn(q: Cnn, target: Cnn, batch: list[Transition], gamma: float, rate: float) -> None:
    """Move the value of each action taken towards what the target network makes of its outcome."""
    for window, action, after, failed in batch:
        goal = -1.0 if failed else gamma * max(target.forward(after))
        values = q.forward(window)
        slopes = [0.0] * len(values)
        slopes[action] = (values[action] - goal) / len(batch)
        q.backward(slopes)
    q.update(rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("identifier")
    parser.add_argument("-gamma", type=float, default=0.995)
    parser.add_argument("--env", choices=ENVIRONMENTS, default="cartpole")
    parser.add_argument("-lr", type=float, default=0.001)
    parser.add_argument("--episodes", type=int, default=70)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    env = ENVIRONMENTS[args.env](rng)
    q, target = Cnn(2, rng), Cnn(2, rng)
    target.copy_from(q)
    memory: list[Transition] = []
    returns: list[int] = []
    steps = 0
    with open(f"returns_{args.identifier}.csv", "w") as file:
        print("episode,return", file=file, flush=True)
        for episode in range(1, args.episodes + 1):
            window = env.reset()
            total, failed = 0, False
            while not failed and total < env.max_steps:
                if rng.random() < max(0.02, 1 - steps / EXPLORE):
                    action = rng.randrange(2)
                else:
                    values = q.forward(window)
                    action = values.index(max(values))
                after, failed = env.step(action)
                memory.append((window, action, after, failed))
                window = after
                total += 1
                steps += 1
                if steps >= WARM_UP:
                    learn(q, target, rng.sample(memory, BATCH), args.gamma, args.lr)
                if steps % SYNC == 0:
                    target.copy_from(q)
            returns.append(total)
            print(f"{episode},{total}", file=file, flush=True)
            if episode % 10 == 0:
                print(f"episode {episode:3}: mean return {sum(returns[-10:]) / 10:5.1f}")
    with open(f"model_{args.identifier}.json", "w") as file:
        json.dump({"env": args.env, "kernels": q.kernels, "heads": q.heads}, file)


if __name__ == "__main__":
    main()
