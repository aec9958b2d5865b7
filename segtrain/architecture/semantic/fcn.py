"""FCN: Long, Shelhamer & Darrell, CVPR 2015 and PAMI 2016 (arXiv 1411.4038, 1605.06211)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.vgg import VGG16
from segtrain.contracts import Outputs
from segtrain.values import NonNegative


class FCN(nn.Module):
    """Scores of a deep, coarse map, upsampled and summed with those of shallower, finer maps.

    Maps are aligned by the image coordinates of their cells, as Caffe's crop layers do it: with
    VGG-16 padded by 100, skip maps are cropped at offsets 5 and 9 and the result at 31 (FCN-8s).

    Args:
        backbone: `VGG16` with the maps pool3, pool4 and fc7; or any with maps at strides 8, 16, 32.
        skip_scales: one factor for each skip map, the deepest first: none for FCN-32s, one for 16s,
            two for 8s. They are 1, or 0.01 and 0.0001 for 8s trained at once (PAMI, section 4.3).
        learned_upsampling: whether the transposed convolutions learn; they start as bilinear
            interpolation and stay it in the authors' release.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: VGG16 | TimmBackbone,
        skip_scales: list[NonNegative],
        learned_upsampling: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = False  # logits have the size of the image
        self.skip_scales = skip_scales
        used = range(-1, -2 - len(skip_scales), -1)  # maps from the deepest to the finest
        self.strides = [backbone.strides[i] for i in used]
        self.starts = [backbone.starts[i] for i in used]
        self.classifiers = nn.ModuleList(
            nn.Conv2d(backbone.channels[i], num_classes, 1) for i in used
        )
        factors = [coarse // fine for coarse, fine in zip(self.strides, [*self.strides[1:], 1],
                                                          strict=True)]  # fmt: skip
        upsampling = LearnedUpsampling if learned_upsampling else BilinearUpsampling
        self.upsamplings = nn.ModuleList(upsampling(factor, num_classes) for factor in factors)
        for classifier in self.classifiers:  # so that a skip changes nothing at first
            nn.init.zeros_(classifier.weight)
            nn.init.zeros_(classifier.bias)

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, H, W)."""
        maps = self.backbone(image)
        scores, start = self.classifiers[0](maps[-1]), self.starts[0]
        for index, scale in enumerate(self.skip_scales, 1):
            skip = self.classifiers[index](scale * maps[-1 - index])
            scores, start = self._upsample(index - 1, scores, start)
            offset = round((start - self.starts[index]) / self.strides[index])
            if offset > 0:
                skip = skip[:, :, offset:, offset:]
            elif offset < 0:
                scores = scores[:, :, -offset:, -offset:]
                start -= offset * self.strides[index]
            height, width = (min(scores.shape[i], skip.shape[i]) for i in (2, 3))
            scores = scores[:, :, :height, :width] + skip[:, :, :height, :width]
        scores, start = self._upsample(-1, scores, start)
        top, (height, width) = round(-start), image.shape[2:]
        logits = scores[:, :, top : top + height, top : top + width]
        missing = height - logits.shape[2], width - logits.shape[3]
        if any(missing):  # backbones that drop the last rows, such as ConvNeXt
            logits = F.pad(logits, (0, missing[1], 0, missing[0]), mode="replicate")
        return {"logits": logits, "align_corners": self.align_corners}

    def _upsample(self, index: int, scores: Tensor, start: float) -> tuple[Tensor, float]:
        """Upsampled scores and the image coordinate of their first cell's centre."""
        layer = self.upsamplings[index]
        fine_stride = [*self.strides[1:], 1][index]
        return layer(scores), start - (layer.kernel_size - 1) / 2 * fine_stride


def bilinear_kernel(size: int) -> Tensor:
    """(size, size) weights with which a transposed convolution of stride (size + 1) // 2
    interpolates bilinearly (PAMI, section 3.3)."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size) - centre).abs() / factor
    return line[:, None] * line[None, :]


class BilinearUpsampling(nn.Module):
    """Fixed transposed convolution: kernel 2f, stride f, each class by itself."""

    def __init__(self, factor: int, num_classes: int) -> None:
        super().__init__()
        self.factor = factor
        self.kernel_size = 2 * factor
        kernel = bilinear_kernel(self.kernel_size)[None, None]
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (N, K, h, w) -> (N, K, f (h + 1), f (w + 1))
        planes = x.flatten(0, 1).unsqueeze(1)
        upsampled = F.conv_transpose2d(planes, self.kernel.to(x.dtype), stride=self.factor)
        return upsampled.squeeze(1).unflatten(0, x.shape[:2])


class LearnedUpsampling(nn.Module):
    """Transposed convolution over all classes, started as bilinear interpolation of each."""

    def __init__(self, factor: int, num_classes: int) -> None:
        super().__init__()
        self.kernel_size = 2 * factor
        self.classifier = nn.ConvTranspose2d(
            num_classes, num_classes, self.kernel_size, stride=factor, bias=False
        )
        with torch.no_grad():
            self.classifier.weight.zero_()
            for index in range(num_classes):
                self.classifier.weight[index, index] = bilinear_kernel(self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:  # (N, K, h, w) -> (N, K, f (h + 1), f (w + 1))
        return self.classifier(x)
