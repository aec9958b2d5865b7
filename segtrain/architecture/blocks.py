"""Pieces that more than one architecture uses."""

import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm_act(
    in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1
) -> nn.Sequential:
    """Convolution of unchanged size, batch norm, ReLU: (N, in, h, w) -> (N, out, h, w)."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False
        ),
        BatchNorm(out_channels),
        nn.ReLU(inplace=True),
    )


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where one value per channel has no variance.

    This happens behind global pooling with one image per process. Otherwise it is nn.BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, C, h, w)
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)


def init_head(head: nn.Module) -> None:
    """He initialisation (He et al. 2015) of a head that starts untrained; norm layers stay 1, 0."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
