from segtrain.report.protocol import protocol_facts
from segtrain.table import wording

PROTOCOL = {"inference": "whole", "scales": [1.0], "flip": False, "crf": False, "pad": True,
            "logit_adjustment": None, "size": {"short": 512, "long": 2048},
            "scores": "logits"}  # fmt: skip


def test_the_size_of_the_test_is_told():
    results = {"dataset": "voc", "split": "val", "images": 1449, "protocol": PROTOCOL}
    facts = protocol_facts(results)
    assert facts["size"] == "short 512, long 2048"
    assert facts["scores"] == "logits"
    assert wording.protocol(PROTOCOL) == "whole, short 512, long 2048"
