import pytest

from benchmarks.gpu.cards import CARDS, card_of, peak_of


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756.0), ("NVIDIA H200", 989.5),
        ("NVIDIA H100 NVL", 835.5), ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0), ("NVIDIA A100 80GB PCIe", 312.0), ("NVIDIA L4", 121.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)  # fmt: skip
def test_names_of_the_driver(name, tflops):
    assert card_of(name).tflops == tflops
    assert peak_of(name) == 1e12 * tflops


@pytest.mark.parametrize(
    "name",
    ["NVIDIA L40S", "NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU",
     "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H20", "AMD EPYC 9B14"],
)  # fmt: skip
def test_other_cards_have_no_peak_rather_than_a_wrong_one(name):
    assert card_of(name) is None
    assert peak_of(name) is None


def test_every_peak_names_its_document():
    assert all(card.source.startswith("NVIDIA ") for card in CARDS)
