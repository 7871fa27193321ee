"""What both training scripts share: the cart-pole to balance, and a small convolutional network.
Standard library only.

Both are in one file so that one line of the hermes file, `-ca networks/cnn.py`, keeps with every
experiment all the code that its result depends on, beside the script itself.
"""

import math
import random
from collections.abc import Sequence
from operator import mul

Window = tuple[float, ...]  # the last FRAMES observations, oldest first, one after the other
FRAMES = 4
SIZE = 4  # numbers in one observation: position, velocity, angle, angular velocity


class CartPole:
    """Push a cart left (action 0) or right (1) so that the pole on it stays up. An episode's return
    is the number of its steps.

    The task and its constants are those of Barto, Sutton & Anderson (1983), "Neuronlike adaptive
    elements that can solve difficult learning control problems"; the equations are those of Florian
    (2007), "Correct equations for the dynamics of the cart-pole system", without friction. The
    scripts learn from the reward of 1983, -1 for a failure and else 0: with a discount it ranks
    policies as 1 per step does, and keeps values small.
    """

    gravity, cart, pole, half_length = 9.8, 1.0, 0.1, 0.5  # m/s^2, kg, kg, m
    force, seconds = 10.0, 0.02  # of one push
    max_position, max_angle = 2.4, math.radians(12)
    max_steps = 200  # an episode is cut off here; that is not a failure

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def reset(self) -> Window:
        """Start an episode with the pole nearly upright."""
        self.x, self.v, self.angle, self.spin = (self.rng.uniform(-0.05, 0.05) for _ in range(4))
        self.window = self._observe() * FRAMES
        return self.window

    def step(self, action: int) -> tuple[Window, bool]:
        """Push once; gives what is seen then, and whether the pole has fallen (or the cart has left
        the track)."""
        force = self.force if action else -self.force
        sin, cos, total, lever = (
            math.sin(self.angle),
            math.cos(self.angle),
            self.cart + self.pole,
            self.pole * self.half_length,
        )
        push = (force + lever * self.spin**2 * sin) / total
        spin_rate = (self.gravity * sin - cos * push) / (
            self.half_length * (4 / 3 - self.pole * cos**2 / total)
        )
        v_rate = push - lever * spin_rate * cos / total
        self.x += self.seconds * self.v
        self.v += self.seconds * v_rate
        self.angle += self.seconds * self.spin
        self.spin += self.seconds * spin_rate
        self.window = self.window[SIZE:] + self._observe()
        return self.window, abs(self.x) > self.max_position or abs(self.angle) > self.max_angle

    def _observe(self) -> Window:
        """Scaled, as a network learns best from numbers of about 1."""
        return self.x / self.max_position, self.v / 2, self.angle / self.max_angle, self.spin / 2


ENVIRONMENTS = {"cartpole": CartPole}  # what `--env` may name


class Cnn:
    """A convolution over time, ReLU, and a linear layer, with gradients by hand and Adam (Kingma &
    Ba, 2015).

    Each kernel slides along the window and sees two observations at a time, and so can tell how
    things change. In every row of weights the last one is the bias.
    """

    channels, width, stride = 8, 2 * SIZE, SIZE

    def __init__(self, outputs: int, rng: random.Random) -> None:
        self.starts = range(0, FRAMES * SIZE - self.width + 1, self.stride)
        spread = math.sqrt(2 / self.width)  # He et al., 2015
        self.kernels = [
            [rng.gauss(0, spread) for _ in range(self.width)] + [0.0] for _ in range(self.channels)
        ]
        self.heads = [[0.0] * (self.channels * len(self.starts) + 1) for _ in range(outputs)]
        self.rows = self.kernels + self.heads
        self.gradients, self.means, self.squares = (
            [[0.0] * len(row) for row in self.rows] for _ in range(3)
        )
        self.updates = 0

    def forward(self, window: Window) -> list[float]:
        """The outputs for a window. What `backward` needs is kept until the next call."""
        self.patches = [(*window[start : start + self.width], 1.0) for start in self.starts]
        sums = [  # each kernel times each patch; written out, as that is twice as fast as a loop
            a * p + b * q + c * r + d * s + e * t + f * u + g * v + h * w + bias
            for p, q, r, s, t, u, v, w, _ in self.patches
            for a, b, c, d, e, f, g, h, bias in self.kernels
        ]
        self.features = [value if value > 0.0 else 0.0 for value in sums] + [1.0]
        return [sum(map(mul, head, self.features)) for head in self.heads]

    def backward(self, slopes: Sequence[float]) -> None:
        """Add up the gradient of a loss, given its slope at each output of the last `forward`."""
        down = [0.0] * len(self.features)
        for head, gradient, slope in zip(
            self.heads, self.gradients[self.channels :], slopes, strict=True
        ):
            if slope:
                for i, feature in enumerate(self.features):
                    gradient[i] += slope * feature
                    down[i] += slope * head[i]
        for i, feature in enumerate(self.features[:-1]):
            if feature > 0.0:  # else the ReLU lets nothing through
                patch, gradient, slope = (
                    self.patches[i // self.channels],
                    self.gradients[i % self.channels],
                    down[i],
                )
                for j, value in enumerate(patch):
                    gradient[j] += slope * value

    def update(self, rate: float) -> None:
        """Take one Adam step down the gradients added up since the last one."""
        self.updates += 1
        rate *= math.sqrt(1 - 0.999**self.updates) / (1 - 0.9**self.updates)
        for row, gradient, mean, square in zip(
            self.rows, self.gradients, self.means, self.squares, strict=True
        ):
            for i, slope in enumerate(gradient):
                mean[i] += 0.1 * (slope - mean[i])
                square[i] += 0.001 * (slope * slope - square[i])
                row[i] -= rate * mean[i] / (math.sqrt(square[i]) + 1e-8)
                gradient[i] = 0.0

    def copy_from(self, other: "Cnn") -> None:
        """Take over the weights of another network of the same shape."""
        for row, source in zip(self.rows, other.rows, strict=True):
            row[:] = source
