"""Command lines with a published network: what its zoo says comes before what the user says."""

import pytest

from segtrain.cli.published import with_protocol

NAME = "torchvision/fcn_resnet50"
FILE = "files/fcn_resnet50_coco-1167a1af.pth"
SIZE, AREA = "inference.size={short:520}", "dataset.source.min_area=null"
OWN = ["dataset=cocovoc", "trainer.precision=32-true", "inference=whole", SIZE, AREA]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([f"weights={NAME}"], OWN),
        ([f"weights='{NAME}'", "inference.flip=true"], OWN),
        ([f"weights={FILE}"], OWN),
        ([f"weights={NAME}", "inference.size={height:9,width:9}"], [o for o in OWN if o != SIZE]),
        ([f"weights={NAME}", "inference=multiscale"], [*OWN[:2], AREA]),
        ([f"weights={NAME}", "dataset=voc"], [OWN[1], "inference=whole", SIZE]),
        ([f"weights={NAME}", "dataset=cocovoc"], OWN[1:]),
        ([f"weights={NAME},torchvision/fcn_resnet101", "-m"], []),
        (["weights=own.pth"], []),
        (["run=x"], []),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_protocols_come_first(given, added):
    assert with_protocol("evaluate", given) == [*added, *given]


def test_predictions_have_no_data_set():
    given = [f"weights={NAME}", "input=a.png"]
    assert with_protocol("predict", given) == ["inference=whole", SIZE, *given]
