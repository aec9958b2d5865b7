"""Batch norm over the images of all processes."""

from pytorch_lightning.plugins import LayerSync
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segtrain.loss.segmentation import number_of_processes


class SyncBatchNorm(LayerSync):
    """Gives every batch norm the statistics of the whole batch in a training of several processes.

    For GPUs: PyTorch has no such layer for others. In evaluation the layers are as they were, their
    parameters have the same names, and one that is already synchronised stays: so nothing has to be
    reverted after the training.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """The same model, its batch norms replaced; a single process keeps them."""
        if number_of_processes() > 1:
            synchronise(model)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """The model as it is."""
        return model


def synchronise(model: nn.Module) -> None:
    """Replaces the batch norms inside by PyTorch's synchronised ones; weights are shared.

    By timm's conversion: PyTorch's own, which is Lightning's too, puts a mere norm where timm's
    backbones have norm and activation in one layer.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm):
                parent.add_module(name, convert_sync_batchnorm(layer))
