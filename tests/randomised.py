"""Networks with random weights that are compared with independent code."""

import torch
from torch import nn


def randomise(model: nn.Module) -> nn.Module:
    """Weights, biases and running statistics that no layer may ignore."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model.eval()
