"""What cards can compute at most, by their maker's sheets."""

import re
from dataclasses import dataclass

BOARDS = "NVIDIA {} data sheet (tensor-core figures there are with sparsity: halved)"


@dataclass(frozen=True)
class Card:
    """A card's dense peak.

    Args:
        pattern: of the name that the driver gives.
        tflops: of bfloat16 products with float32 sums by tensor cores, without sparsity, in
            10^12 operations a second; a multiply-add is two.
        source: the maker's document.
    """

    pattern: str
    tflops: float
    source: str


CARDS = (
    Card(r"H100 (80GB|64GB|96GB) HBM[23]e?|H100 SXM5?", 989.4,
         "NVIDIA H100 Tensor Core GPU Architecture, table of the SXM5 and PCIe boards"),
    Card(r"H100 PCIe", 756.0,
         "NVIDIA H100 Tensor Core GPU Architecture, table of the SXM5 and PCIe boards"),
    Card(r"H100 NVL", 835.5, BOARDS.format("H100")),
    Card(r"H200 NVL", 835.5, BOARDS.format("H200")),
    Card(r"H200( SXM5?)?", 989.5, BOARDS.format("H200")),
    Card(r"A100[- ](SXM4|PCIe|PCIE|SXM)[- ](40|80)GB|A100 80GB PCIe", 312.0,
         "NVIDIA A100 Tensor Core GPU data sheet"),
    Card(r"L4", 121.0, BOARDS.format("L4")),
    Card(r"GeForce RTX 4090", 165.2, "NVIDIA Ada GPU Architecture, appendix A, FP32 accumulate"),
)  # fmt: skip


def card_of(name: str) -> Card | None:
    """The card of that name; None of others, and of parts of a card, as MIG makes them."""
    own = re.sub(r"^NVIDIA\s+", "", name.strip())
    return next((card for card in CARDS if re.fullmatch(card.pattern, own)), None)


def peak_of(name: str) -> float | None:
    """Operations a second of a card's dense bfloat16 peak; None where it is not known."""
    card = card_of(name)
    return None if card is None else 1e12 * card.tflops
