"""EnOF's alignment: a student's features, read by its teacher's last layer, answer as the teacher's do."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from transpike.distill.feature_method import HeadMethod, stage_maps
from transpike.distill.logits import knowledge_distillation
from transpike.distill.method import Features
from transpike.distill.taps import Stage
from transpike.errors import DataError

__all__ = ["EnOFDistillation", "read_by_teacher"]


def read_by_teacher(student: Tensor, teacher: Tensor, logits: Tensor, weight: Tensor) -> Tensor:
    """Return the output of a teacher's last layer, z = W f + b, for a student's features: [N, classes].

    z_s = z_t + W (f_s - f_t), for which b need not be known.

    Args:
        student: f_s, [N, C].
        teacher: f_t, what the layer reads, [N, C].
        logits: z_t, what it says, [N, classes].
        weight: W, [classes, C].

    Example:
        >>> import torch
        >>> layer, own, other = nn.Linear(3, 2), torch.rand(4, 3), torch.rand(4, 3)
        >>> torch.allclose(read_by_teacher(own, other, layer(other), layer.weight), layer(own), atol=1e-6)
        True
    """
    return logits + (student - teacher) @ weight.T


class EnOFDistillation(HeadMethod):
    """alpha * KD + beta * tau^2 KL(p_t || p(W f_s + b)), W and b of the teacher's last layer.

    f are the maps of the last stage, averaged over space and, the student's, over time. [I] The public abstract is of a
    student with its teacher's layers; where the numbers of channels differ, a linear layer is trained between them. Its
    temperature and weight are not public. EnOF's other half, ReLU in place of the student's last neurons, is a change
    of the network and not here.

    Args:
        stages: pairs of taps; the last is used.
        alpha: weight of logits KD; a term whose weight is 0 is left out.
        beta: weight of the alignment.
        temperature: tau, of both terms.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; features by tap, the student's
    [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W'] -> weighted scalars "kd" and "alignment".

    Raises:
        ConfigError: There are no stages, the temperature is not above 0, or a weight is below 0.
        ModelError: The head does not fit the teacher's maps.
        DataError: On call: there is no head.

    Source: Guo et al., "EnOF-SNN: Training Accurate Spiking Neural Networks via Enhancing the Output Feature", NeurIPS
    2024, its abstract and the authors' answers in its review.

    Example:
        >>> import torch
        >>> method = EnOFDistillation([Stage("a", "b", 4, 4, (8, 8), (4, 4))])
        >>> method.see_head(torch.rand(10, 4))
        >>> logits = torch.zeros(3, 10)
        >>> terms = method(logits, logits, {"a": torch.ones(2, 3, 4, 8, 8)}, {"b": torch.ones(3, 4, 4, 4)})
        >>> {name: term.item() for name, term in terms.items()}
        {'alignment': 0.0}
    """

    def __init__(
        self, stages: Sequence[Stage] = (), *, alpha: float = 0.0, beta: float = 1.0, temperature: float = 2.0
    ) -> None:
        super().__init__(stages, alpha=alpha, beta=beta, temperature=temperature)
        self.projection: nn.Module = nn.Identity()
        for stage in self.stages:
            if stage.student_channels != stage.teacher_channels:
                self.projection = nn.Linear(stage.student_channels, stage.teacher_channels)

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        [stage] = self.stages
        if self.head is None:
            raise DataError("enof: call see_head first, with the weights of the teacher's last layer.")
        own, other = (maps.mean((-2, -1)) for maps in stage_maps(stage, student, teacher))
        logits = self.logits.to(other.dtype)
        said = read_by_teacher(self.projection(own), other, logits, self.head.to(other.dtype))
        return {"alignment": self.weights["beta"] * knowledge_distillation(said, logits, temperature=self.temperature)}
