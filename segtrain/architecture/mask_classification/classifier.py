"""What networks that classify masks share: masks of the padded image, and classes of its pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.blocks import at_least_float32
from segtrain.architecture.vit import onto_image
from segtrain.contracts import Outputs, Queries, QueryOutputs, resize

STRIDE = 4  # of the masks


class MaskClassifier(nn.Module):
    """A network of queries, each of which says where something is, and of which class.

    Those who inherit say in `layers` what the queries find.

    Args:
        backbone: theirs.
    """

    task = "masks"
    align_corners = False  # of its masks, and of the scores that come of them

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def layers(self, image: Tensor) -> list[Queries]:
        """What the queries say after each layer that is to learn, in evaluation after the last.

        Args:
            image: (N, 3, H, W) RGB in 0..255, which is padded on the right and at the bottom.

        Returns:
            First layer first; the masks have stride 4 and are of the padded image.
        """
        raise NotImplementedError

    def forward(self, image: Tensor) -> QueryOutputs | Outputs:
        """(N, 3, H, W) RGB in 0..255 -> all layers' queries in training, else scores of classes.

        In training masks have stride 4. In evaluation `logits` are (N, K, H, W), the sum over the
        queries of a class's probability times the mask's (Cheng et al., Per-Pixel Classification is
        Not All You Need for Semantic Segmentation, NeurIPS 2021, arXiv 2107.06278, section 3.4).
        """
        if self.training:
            *auxiliary, last = (self._onto(image, queries) for queries in self.layers(image))
            return {**last, "auxiliary": auxiliary}
        return {"logits": class_scores(self.queries(image)), "align_corners": self.align_corners}

    def queries(self, image: Tensor) -> Queries:
        """What the last layer's queries say in evaluation: masks (N, Q, H, W), as of the image."""
        queries, (height, width) = self.layers(image)[-1], image.shape[2:]
        rows, columns = (STRIDE * cells for cells in queries["mask_logits"].shape[2:])
        masks = at_least_float32(queries["mask_logits"])
        masks = resize(masks, (rows, columns), self.align_corners)
        if torch.compiler.is_exporting():  # a slice would bind the graph to sizes that are padded
            return {**queries, "mask_logits": F.pad(masks, (0, width - columns, 0, height - rows))}
        return {**queries, "mask_logits": masks[:, :, :height, :width]}

    def _onto(self, image: Tensor, queries: Queries) -> Queries:
        """Masks of the padded image as those of the image alone."""
        masks, size = queries["mask_logits"], image.shape[2:]
        if [STRIDE * cells for cells in masks.shape[2:]] == list(size):
            return queries
        return {**queries, "mask_logits": onto_image(masks, size, STRIDE)}


def class_scores(queries: Queries) -> Tensor:
    """(N, K, h, w): how much every query is of a class and at a pixel, summed over the queries."""
    classes = at_least_float32(queries["class_logits"]).softmax(2)[:, :, :-1]
    masks = at_least_float32(queries["mask_logits"]).sigmoid()
    with torch.autocast(masks.device.type, enabled=False):  # which would round the sums
        return torch.einsum("nqk,nqhw->nkhw", classes, masks)


def mask_mlp(width: int, activation: type[nn.Module]) -> nn.Sequential:
    """Three linear layers from a query to what its mask's pixels look like."""
    return nn.Sequential(
        nn.Linear(width, width),
        activation(),
        nn.Linear(width, width),
        activation(),
        nn.Linear(width, width),
    )


def mask_logits(embedded: Tensor, pixels: Tensor) -> Tensor:
    """(N, Q, C) of queries and (N, C, h, w) of pixels -> their products (N, Q, h, w)."""
    return torch.einsum("nqc,nchw->nqhw", embedded, pixels)
