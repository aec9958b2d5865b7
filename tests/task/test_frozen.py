import torch
from conftest import composed

from segtrain.assembly import build_task, make
from segtrain.optimizer.groups import parameter_groups


def test_a_frozen_backbone_gives_the_same_maps_and_no_gradients():
    """Also in training, where its stochastic depth would drop blocks."""
    config = composed(
        "architecture=linear", "frozen=[backbone]", "architecture.backbone.weights=none",
        "architecture.backbone.name=test_vit",
        "+architecture.backbone.timm_arguments.drop_path_rate=0.9",
    )  # fmt: skip
    task = build_task(config, make(config["dataset"]["labels"])).train()
    image = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    (first,), (second,) = (task.model.backbone(image) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    task.model(image)["logits"].square().mean().backward()
    found = {name for name, p in task.model.named_parameters() if p.grad is not None}
    assert found == {"norm.weight", "norm.bias", "classifier.weight", "classifier.bias"}
    groups = parameter_groups(task.model, 0.1, 0.1, 1.0, 1.0, [])
    assert [group["name"] for group in groups] == ["head"]
    assert task.model.norm.training
