"""HRNet: Wang et al., Deep High-Resolution Representation Learning for Visual Recognition, TPAMI
2020 (arXiv 1908.07919), as it is used for segmentation."""

import torch.nn.functional as F
from timm.models.hrnet import HighResolutionModule
from torch import Tensor, nn

from segtrain.architecture.backbone import CLASSIFIER_KEYS, TimmBackbone, TimmModel
from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.values import Text

# What timm's networks have beyond the branches, for classification.
HEAD_KEYS = (*CLASSIFIER_KEYS, "incre_modules.", "downsamp_modules.", "final_layer.")


class BilinearFusion(HighResolutionModule):
    """timm's module whose coarser maps are enlarged bilinearly, as the authors' code for
    segmentation does, and to any size; timm's own repeats values, as that for classification."""

    def forward(self, x: list[Tensor]) -> list[Tensor]:  # (N, C_i, h_i, w_i) each -> the same
        maps = [branch(m) for branch, m in zip(self.branches, x, strict=True)]
        fused = []
        for index, layers in enumerate(self.fuse_layers):
            size = maps[index].shape[2:]
            parts = [layer(m) for layer, m in zip(layers, maps, strict=True)]
            # Enlarged maps may have a cell too many. Sizes are not compared: a graph traced where
            # they are the same would never resize.
            parts[index + 1 :] = [
                F.interpolate(part, size, mode="bilinear", align_corners=False)
                for part in parts[index + 1 :]
            ]
            fused.append(self.fuse_act(sum(parts)))
        return fused


class HRNet(TimmBackbone):
    """The four branches of an HRNet, at strides 4 to 32.

    Args:
        name: timm's: hrnet_w18_small_v2, hrnet_w18, hrnet_w48, ...
        weights: `imagenet`, `none`, or a file in timm's names, which are the authors' too.
    """

    def __init__(self, name: TimmModel, weights: Text) -> None:
        settings = {"feature_location": ""}
        is_file = weights not in ("imagenet", "none")
        super().__init__(name, "none" if is_file else weights, 32, False, None, settings)
        for module in self.body.modules():
            if isinstance(module, HighResolutionModule):
                module.__class__ = BilinearFusion  # timm builds its modules itself
                for layer in module.modules():
                    if isinstance(layer, nn.Upsample):
                        layer.mode, layer.align_corners = "bilinear", False
        if is_file:
            load_weights(self.body, read_state_dict(weights), weights, ignore=HEAD_KEYS)
