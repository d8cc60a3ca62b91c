"""The input codings that users expect: direct, Poisson (rate), latency, phase and burst.

Each encoder is a module that turns images [N, C, H, W] (or any [N, *]) into [T, N, C, H, W]. It has no state: every
call starts anew, and a sample's spikes do not depend on its batch (except for the random numbers of `PoissonEncoder`).
No gradient flows back.
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
    """Direct coding: shows the image itself at every step, ``x[t] = image``; the first layer's neurons make the spikes.

    Source: Rueckauer, Lungu, Hu, Pfeiffer, Liu, "Conversion of Continuous-Valued Deep Networks to Efficient
    Event-Driven Networks for Image Classification", Frontiers in Neuroscience 2017.

    Args:
        steps: T.

    Shapes: [N, *], of any range -> [T, N, *], a view.

    Raises:
        ConfigError: T is below 1.

    Example:
        >>> DirectEncoder(steps=3)(torch.tensor([[0.25]])).flatten()
        tensor([0.2500, 0.2500, 0.2500])
    """

    def __init__(self, *, steps: int) -> None:
        super().__init__(steps)

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(self.steps, *images.shape)

    def decode(self, spikes: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """Rebuild the images from the first steps of the encoder's result: [t, N, *] -> [N, *] in float32."""
        return first(spikes, self.steps).mean(0)

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Return no operations, because the network counts the work of its first layer."""
        return {}

    def digits(self, step: int) -> None:
        """Return None: the image itself is analog."""

    def extra_repr(self) -> str:
        return f"steps={self.steps}"


class PoissonEncoder(Pixels):
    """Rate coding: at every step each pixel spikes independently with probability ``P(s[t] = 1) = x``, its value.

    Source: Diehl, Neil, Binas, Cook, Liu, Pfeiffer, "Fast-classifying, high-accuracy spiking deep networks through
    weight and threshold balancing", IJCNN 2015; in discrete time such a "Poisson" train is a Bernoulli process.

    Args:
        steps: T.
        mean: the mean by which the images were normalised, one number or one for each channel. A pixel is ``image * std
            + mean``.
        std: the standard deviation, likewise.
        generator: draws the random numbers, on the images' device. The default is PyTorch's, which `torch.manual_seed`
            seeds.

    Shapes: [N, C, H, W], whose pixels ``image * std + mean`` lie in [0, 1] -> [T, N, C, H, W] in {0, 1}.

    Raises:
        ConfigError: T is below 1, or a std is not above 0.
        DataError: On call: pixels are outside [0, 1], or integers.

    Example:
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
        """Return the values of no spike and of a spike."""
        return 0.0, 1.0

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Return a comparison for each pixel and step, ``rand < x`` (Diehl et al.). Random numbers are not counted."""
        return {"neuron_accumulates": math.prod(image) * self.steps}


class LatencyEncoder(Pixels):
    """Time to first spike: one spike for each pixel, earlier for brighter pixels, at ``t = round((T - 1) (1 - x))``.

    Black pixels fire last; with T = 1 all fire at once.

    Source: Rueckauer and Liu, "Conversion of analog to spiking neural networks using sparse temporal coding",
    ISCAS 2018; the equation is that of SpikingJelly's LatencyEncoder.

    Args:
        steps: T.
        mean: the mean by which the images were normalised, one number or one for each channel. A pixel is ``image * std
            + mean``.
        std: the standard deviation, likewise.

    Shapes: [N, C, H, W], whose pixels ``image * std + mean`` lie in [0, 1] -> [T, N, C, H, W] in {0, 1}.

    Raises:
        ConfigError: T is below 1, or a std is not above 0.
        DataError: On call: pixels are outside [0, 1], or integers.

    Example:
        >>> encoder = LatencyEncoder(steps=5)
        >>> spikes = encoder(torch.tensor([[0.0, 0.5, 1.0]]))
        >>> spikes.argmax(0)
        tensor([[4, 2, 0]])

        A pixel that has not fired yet is decoded as black.

        >>> encoder.decode(spikes[:2]), encoder.decode(spikes)
        (tensor([[0., 0., 1.]]), tensor([[0.0000, 0.5000, 1.0000]]))
    """

    def __init__(self, *, steps: int, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0) -> None:
        super().__init__(steps, mean, std)

    def forward(self, images: Tensor) -> Tensor:
        times = ((self.steps - 1) * (1 - self.pixels(images))).round_().long()
        return images.new_zeros(self.steps, *images.shape).scatter_(0, times[None], 1.0)

    def digits(self, step: int) -> tuple[float, ...]:
        """Return the values of no spike and of a spike."""
        return 0.0, 1.0

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Return a multiply-accumulate for each pixel's spike time, and a comparison for each pixel and step."""
        pixels = math.prod(image)
        return {"macs": pixels, "neuron_accumulates": pixels * self.steps}

    def _pixels_of(self, spikes: Tensor) -> Tensor:
        return (1 - spikes.argmax(0) / max(self.steps - 1, 1)) * (spikes > 0).any(0)


class PhaseEncoder(Pixels):
    r"""Phase coding: each step shows one binary digit of the pixel, as a spike with the value of this digit::

        s[t] = w[t] b[t mod P],   w[t] = 2^-(1 + t mod P),   x = 0.b[0] b[1] ... in binary

    A period of P steps sums to x, rounded down to a multiple of :math:`2^{-P}` (1 becomes :math:`1 - 2^{-P}`). With P =
    8 these are the eight bits of an image file. Fewer steps give the leading digits.

    Source: Kim, Kim, Huh, Lee, Choi, "Deep neural networks with weighted spikes", Neurocomputing 2018.

    Args:
        steps: T.
        phases: P, at most 24, because float32 has 24 binary digits.
        mean: the mean by which the images were normalised, one number or one for each channel. A pixel is ``image * std
            + mean``.
        std: the standard deviation, likewise.

    Shapes: [N, C, H, W], whose pixels ``image * std + mean`` lie in [0, 1] -> [T, N, C, H, W] in {0, w[t]}.

    Raises:
        ConfigError: T is below 1, P is outside 1 to 24, or a std is not above 0.
        DataError: On call: pixels are outside [0, 1], or integers.

    Example:
        >>> PhaseEncoder(steps=8)(torch.tensor([192 / 256, 1 / 256])).mT
        tensor([[0.5000, 0.2500, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0039]])

        One period holds the whole pixel; later periods repeat it.

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
        """Return the values of no spike and of a spike, which is worth its binary digit."""
        return 0.0, 2.0 ** -(1 + step % self.phases)

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Return a shift for each pixel and step, which gives the next digit ``b[t mod P]`` (Kim et al.)."""
        return {"neuron_shifts": math.prod(image) * self.steps}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, phases={self.phases}"


class BurstEncoder(Pixels):
    """Burst coding: a neuron receives the pixel; each spike that directly follows another weighs `beta` times more::

        g[t] = beta g[t-1] if it fired at t-1, else 1
        u[t] = u[t-1] + x,   s[t] = g[t] v_threshold if u[t] >= g[t] v_threshold else 0,   then u[t] -= s[t]

    The spikes up to t sum to ``t x - u[t]``. Guo et al. (Frontiers in Neuroscience 2021) give the name burst to another
    code, in which the number and distances of equal spikes represent the pixel.

    Source: Park, Kim, Choe, Yoon, "Fast and Efficient Information Transmission with Burst Spikes in Deep Spiking
    Neural Networks", DAC 2019, the burst coding of DCT-SNN's comparison.

    Args:
        steps: T.
        beta: the factor by which a spike's weight grows, above 1.
        v_threshold: the weight of a burst's first spike, which is the resolution.
        mean: the mean by which the images were normalised, one number or one for each channel. A pixel is ``image * std
            + mean``.
        std: the standard deviation, likewise.

    Shapes: [N, C, H, W], whose pixels ``image * std + mean`` lie in [0, 1] -> [T, N, C, H, W] of 0 and ``beta^k
        v_threshold``.

    Raises:
        ConfigError: T is below 1, beta is not above 1, or a threshold or std is not above 0.
        DataError: On call: pixels are outside [0, 1], or integers.

    Example:
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
        """Return the values of no spike and of spikes that follow up to `step` others."""
        return 0.0, *(self.v_threshold * self.beta**before for before in range(step + 1))

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Count the operations of the equations above (Park et al.).

        Each pixel and step takes the addition ``u + x`` and a comparison. Each spike takes the subtraction ``u - s``
        and a product with beta for the next weight, which is a shift if beta is 2.
        """
        growth = "neuron_shifts" if self.beta == 2 else "neuron_multiplications"
        return {"neuron_accumulates": 2 * math.prod(image) * self.steps + spikes, growth: spikes}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, beta={self.beta}, v_threshold={self.v_threshold}"
