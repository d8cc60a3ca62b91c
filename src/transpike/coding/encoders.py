"""The input codings that users expect: direct, Poisson (rate), latency, phase and burst.

Each is a module that turns images [N, C, H, W] (or any [N, *]) into [T, N, C, H, W] and has no state: every call begins
anew, and a sample's spikes do not depend on its batch (`PoissonEncoder`'s chances do not). No gradient flows back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from transpike.checks import number, whole
from transpike.coding.encoder import Encoder, first
from transpike.coding.pixels import Pixels

__all__ = ["BurstEncoder", "DirectEncoder", "LatencyEncoder", "PhaseEncoder", "PoissonEncoder"]


class DirectEncoder(Encoder):
    """Direct coding: the image itself at every step, ``x[t] = image``; the first layer's neurons make the spikes.

    Source: Rueckauer, Lungu, Hu, Pfeiffer, Liu, "Conversion of Continuous-Valued Deep Networks to Efficient
    Event-Driven Networks for Image Classification", Frontiers in Neuroscience 2017.

    Args:
        steps: T.

    Shapes: [N, *], of any range -> [T, N, *], a view.

    Raises:
        ConfigError: for T below 1.

    >>> DirectEncoder(steps=3)(torch.tensor([[0.25]])).flatten()
    tensor([0.2500, 0.2500, 0.2500])
    """

    def __init__(self, *, steps: int) -> None:
        super().__init__(steps)

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(self.steps, *images.shape)

    def decode(self, spikes: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """The images, of the first steps of a call's result: [t, N, *] -> [N, *] in float32."""
        return first(spikes, self.steps).mean(0)

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Nothing, for the first layer's work counts as the network's."""
        return {}

    def digits(self, step: int) -> None:
        """The image itself: analog."""

    def extra_repr(self) -> str:
        return f"steps={self.steps}"


class PoissonEncoder(Pixels):
    """Rate coding: at every step a spike with the pixel as its probability, ``P(s[t] = 1) = x``, independently.

    Source: Diehl, Neil, Binas, Cook, Liu, Pfeiffer, "Fast-classifying, high-accuracy spiking deep networks through
    weight and threshold balancing", IJCNN 2015; in discrete time such a "Poisson" train is a Bernoulli process.

    Args:
        steps: T.
        mean: by which the images were normalised, one number or one a channel: a pixel is ``image * std + mean``.
        std: likewise.
        generator: of the random numbers, on the images' device; by default PyTorch's, which `torch.manual_seed` seeds.

    Shapes: [N, C, H, W], of pixels in [0, 1] once mean and std are undone -> [T, N, C, H, W] in {0, 1}.

    Raises:
        ConfigError: for T below 1, or a std of 0 or below.
        DataError: on call, for pixels outside [0, 1], or integers.

    >>> _ = torch.manual_seed(0)
    >>> PoissonEncoder(steps=1000)(torch.tensor([[0.0, 0.3, 1.0]])).mean(0)
    tensor([[0.0000, 0.3000, 1.0000]])
    """

    draws = True

    def __init__(
        self,
        *,
        steps: int,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(steps, mean, std)
        self.generator = generator

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.pixels(images)
        chances = torch.rand(self.steps, *pixels.shape, generator=self.generator, device=pixels.device)
        return (chances < pixels).to(images.dtype)

    def digits(self, step: int) -> tuple[float, ...]:
        """A spike or none."""
        return 0.0, 1.0

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Every step a comparison for each pixel, ``rand < x`` (Diehl et al.); the random numbers are not counted."""
        return {"neuron_accumulates": math.prod(image) * self.steps}


class LatencyEncoder(Pixels):
    """Time to first spike: exactly one spike a pixel, the brighter the earlier, at ``t = round((T - 1) (1 - x))``.

    Black pixels fire last; with T = 1 all fire at once.

    Source: Rueckauer and Liu, "Conversion of analog to spiking neural networks using sparse temporal coding",
    ISCAS 2018; the equation is that of SpikingJelly's LatencyEncoder.

    Args:
        steps: T.
        mean: by which the images were normalised, one number or one a channel: a pixel is ``image * std + mean``.
        std: likewise.

    Shapes: [N, C, H, W], of pixels in [0, 1] once mean and std are undone -> [T, N, C, H, W] in {0, 1}.

    Raises:
        ConfigError: for T below 1, or a std of 0 or below.
        DataError: on call, for pixels outside [0, 1], or integers.

    >>> encoder = LatencyEncoder(steps=5)
    >>> spikes = encoder(torch.tensor([[0.0, 0.5, 1.0]]))
    >>> spikes.argmax(0)
    tensor([[4, 2, 0]])

    What has not fired yet is decoded as black.

    >>> encoder.decode(spikes[:2]), encoder.decode(spikes)
    (tensor([[0., 0., 1.]]), tensor([[0.0000, 0.5000, 1.0000]]))
    """

    def __init__(self, *, steps: int, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0) -> None:
        super().__init__(steps, mean, std)

    def forward(self, images: Tensor) -> Tensor:
        times = ((self.steps - 1) * (1 - self.pixels(images))).round_().long()
        return images.new_zeros(self.steps, *images.shape).scatter_(0, times[None], 1.0)

    def digits(self, step: int) -> tuple[float, ...]:
        """A spike or none."""
        return 0.0, 1.0

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """A multiply-accumulate for each pixel's time, the equation above; every step a comparison with it."""
        pixels = math.prod(image)
        return {"macs": pixels, "neuron_accumulates": pixels * self.steps}

    def _pixels_of(self, spikes: Tensor) -> Tensor:
        return (1 - spikes.argmax(0) / max(self.steps - 1, 1)) * (spikes > 0).any(0)


class PhaseEncoder(Pixels):
    r"""Phase coding: a pixel's binary digits, one a step, as spikes that weigh what their digit is worth::

        s[t] = w[t] b[t mod P],   w[t] = 2^-(1 + t mod P),   x = 0.b[0] b[1] ... in binary

    A period of P steps sums to x, rounded down to a multiple of :math:`2^{-P}` (1 becomes :math:`1 - 2^{-P}`): with
    P = 8 the eight bits of an image file. Fewer steps give the leading digits.

    Source: Kim, Kim, Huh, Lee, Choi, "Deep neural networks with weighted spikes", Neurocomputing 2018.

    Args:
        steps: T.
        phases: P, at most 24, the digits that float32 has.
        mean: by which the images were normalised, one number or one a channel: a pixel is ``image * std + mean``.
        std: likewise.

    Shapes: [N, C, H, W], of pixels in [0, 1] once mean and std are undone -> [T, N, C, H, W] in {0, w[t]}.

    Raises:
        ConfigError: for T below 1, P outside 1 to 24, or a std of 0 or below.
        DataError: on call, for pixels outside [0, 1], or integers.

    >>> PhaseEncoder(steps=8)(torch.tensor([192 / 256, 1 / 256])).mT
    tensor([[0.5000, 0.2500, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0039]])

    A period tells all that there is; those after it repeat it.

    >>> encoder = PhaseEncoder(steps=16)
    >>> spikes = encoder(torch.tensor([0.625]))
    >>> [float(encoder.decode(spikes[:t])) for t in (1, 2, 3, 16)]
    [0.5, 0.5, 0.625, 0.625]
    """

    def __init__(
        self,
        *,
        steps: int,
        phases: int = 8,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__(steps, mean, std)
        self.phases = whole("phases", phases, most=24)

    def forward(self, images: Tensor) -> Tensor:
        digits = (self.pixels(images) * 2**self.phases).long().clamp_(max=2**self.phases - 1)
        phase = torch.arange(self.steps, device=images.device).remainder_(self.phases)
        phase = phase.view(-1, *[1] * images.ndim)
        bits = (digits >> (self.phases - 1 - phase)) & 1
        spikes: Tensor = bits.to(images.dtype) * torch.exp2(-1.0 - phase).to(images.dtype)
        return spikes

    def _pixels_of(self, spikes: Tensor) -> Tensor:
        return spikes[: self.phases].sum(0)

    def digits(self, step: int) -> tuple[float, ...]:
        """A spike that weighs what its binary digit is worth, or none."""
        return 0.0, 2.0 ** -(1 + step % self.phases)

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Every step a shift for each pixel, which brings out the next digit ``b[t mod P]`` (Kim et al.)."""
        return {"neuron_shifts": math.prod(image) * self.steps}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, phases={self.phases}"


class BurstEncoder(Pixels):
    """Burst coding: a neuron fed the pixel, whose spikes weigh `beta` times more each while they follow one another::

        g[t] = beta g[t-1] if it fired at t-1, else 1
        u[t] = u[t-1] + x,   s[t] = g[t] v_threshold if u[t] >= g[t] v_threshold else 0,   then u[t] -= s[t]

    What was shown up to t is ``t x - u[t]``. Guo et al. (Frontiers in Neuroscience 2021) call another coding burst,
    of equal spikes whose number and distances tell the pixel.

    Source: Park, Kim, Choe, Yoon, "Fast and Efficient Information Transmission with Burst Spikes in Deep Spiking
    Neural Networks", DAC 2019, the burst coding of DCT-SNN's comparison.

    Args:
        steps: T.
        beta: growth of a spike's weight, above 1.
        v_threshold: weight of a burst's first spike, the finest step.
        mean: by which the images were normalised, one number or one a channel: a pixel is ``image * std + mean``.
        std: likewise.

    Shapes: [N, C, H, W], of pixels in [0, 1] once mean and std are undone -> [T, N, C, H, W] of 0 and
    ``beta^k v_threshold``.

    Raises:
        ConfigError: for T below 1, beta of 1 or below, or a threshold or std of 0 or below.
        DataError: on call, for pixels outside [0, 1], or integers.

    >>> BurstEncoder(steps=6)(torch.tensor([[0.5]])).flatten()
    tensor([0.1250, 0.2500, 0.5000, 1.0000, 0.0000, 0.1250])
    """

    def __init__(
        self,
        *,
        steps: int,
        beta: float = 2.0,
        v_threshold: float = 0.125,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__(steps, mean, std)
        self.beta = number("beta", beta, above=1)
        self.v_threshold = number("v_threshold", v_threshold, above=0)

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.pixels(images)
        spikes = images.new_empty(self.steps, *images.shape)
        membrane, weight = torch.zeros_like(pixels), torch.full_like(pixels, self.v_threshold)
        for step in spikes:
            membrane += pixels
            fires = membrane >= weight
            shown = weight * fires
            membrane -= shown
            weight = torch.where(fires, weight * self.beta, self.v_threshold)
            step.copy_(shown)
        return spikes

    def digits(self, step: int) -> tuple[float, ...]:
        """No spike, or one that follows on up to `step` others."""
        return 0.0, *(self.v_threshold * self.beta**before for before in range(step + 1))

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Every step, for each pixel, ``u + x`` and a comparison; every spike ``u - s`` and a product by beta for the
        next weight, a shift where beta is 2 (the equations above; Park et al.)."""
        growth = "neuron_shifts" if self.beta == 2 else "neuron_multiplications"
        return {"neuron_accumulates": 2 * math.prod(image) * self.steps + spikes, growth: spikes}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, beta={self.beta}, v_threshold={self.v_threshold}"
