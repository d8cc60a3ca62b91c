"""ShuffleNetV2 for small images."""

from __future__ import annotations

from torch import nn

__all__ = ["shufflenet_v2"]


def shufflenet_v2(*, num_classes: int, in_channels: int) -> nn.Module:
    """Create torchvision's ShuffleNetV2 1.0x with a stem for 32x32 images: 1x1, stride 1, no max-pool.

    Source: Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018; the stem
    is that of the public code of Tian et al., "Contrastive Representation Distillation", ICLR 2020.

    Shapes: [N, in_channels, H, W] -> [N, num_classes], for any H and W.

    Example:
        >>> sum(p.numel() for p in shufflenet_v2(num_classes=100, in_channels=3).parameters())
        1355528
    """
    from torchvision.models import shufflenet_v2_x1_0

    net: nn.Module = shufflenet_v2_x1_0(num_classes=num_classes)
    stem = nn.Conv2d(in_channels, 24, 1, bias=False)
    net.conv1, net.maxpool = nn.Sequential(stem, nn.BatchNorm2d(24), nn.ReLU(inplace=True)), nn.Identity()
    return net
