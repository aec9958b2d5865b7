"""The model card of a folder for the hub: YAML for its search, and a page for people."""

import json
from pathlib import Path
from typing import Any

import yaml

from segtrain import __version__
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.report.results import file_sha256, title_of
from segtrain.trained import Trained
from segtrain.zoo.catalogue import find, is_published, is_row

# Names by which the hub knows metrics; others keep ours.
METRICS = {"miou": "mean_iou", "pixel_accuracy": "accuracy"}
SHOWN = {  # what a picture's prediction has, by task
    "semantic": 'labels = predictor("photo.jpg").labels   # (H, W)',
    "multilabel": 'masks = predictor("photo.jpg").masks   # (K, H, W)',
    "panoptic": 'segments = predictor("photo.jpg").segments   # and .map, (H, W)',
    "instance": 'masks = predictor("photo.jpg").masks   # (n, H, W)',
    "proposal": 'masks = predictor("photo.jpg").masks   # (n, H, W)',
}
TO_FILL = "license: # to fill in, such as apache-2.0, mit, cc-by-4.0 or cc-by-nc-4.0"


def model_card(
    trained: Trained,
    labels: LabelSet,
    task: str,
    kind: str | None,
    results: dict[str, Any] | None,
    licence: str | None,
    published: str | None,
) -> str:
    """The text of `README.md`.

    Args:
        trained: the network.
        labels: its classes.
        task: semantic, multilabel, panoptic, instance or proposal.
        kind: of `segtrain.zoo.names.hf.LAYOUTS`, where transformers has the network too.
        results: of its evaluation; None where there are none.
        licence: by the hub's name; None leaves it to be filled in.
        published: what `weights=` named, where the network was not trained here.
    """
    name, config = str(trained.config.get("experiment")), trained.config
    dataset = config.get("dataset", {}).get("name")
    head: dict[str, Any] = {
        "library_name": "segtrain",
        "pipeline_tag": "image-segmentation",
        "tags": ["segtrain", f"{task}-segmentation", *([] if kind is None else ["transformers"])],
    }
    if dataset is not None:
        head["datasets"] = [dataset]
    scores = _scores(results)
    if results is not None and scores:
        head["metrics"] = [METRICS.get(metric, metric) for metric in scores]
        head["model-index"] = [{"name": name, "results": [_index(results, scores)]}]
    first = TO_FILL if licence is None else yaml.safe_dump({"license": licence}).strip()
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{first}\n{front}---",
        f"# {name}",
        f"{_network(config)} for {labels.num_classes} classes"
        f"{'' if dataset is None else f' of `{dataset}`'}, exported by segtrain {__version__}.",
        *_table(results, scores),
        "## Use",
        _use(kind, task),
        "## Classes",
        ", ".join(f"`{label}`" for label in labels.names),
        "## Weights",
        _origin(config, published),
    ]
    return "\n\n".join(parts) + "\n"


def results_of(checkpoint: Path) -> dict[str, Any] | None:
    """`results.json` of the run of a checkpoint, if it is of that very file; None else.

    Raises:
        UserError: there is one that cannot be read.
    """
    file = checkpoint.parent.parent / "results.json"
    if not checkpoint.is_file() or not file.is_file():
        return None
    try:
        results = json.loads(file.read_text())
        is_own = results["checkpoint_sha256"] == file_sha256(checkpoint)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not the results of a run ({error!r}); remove it to export "
                        "without them") from None  # fmt: skip
    return results if is_own else None


def _scores(results: dict[str, Any] | None) -> dict[str, float]:
    metrics = {} if results is None else results["metrics"]
    return {key: value for key, value in metrics.items() if isinstance(value, float)}


def _index(results: dict[str, Any], scores: dict[str, float]) -> dict[str, Any]:
    dataset = {"name": results["dataset"], "type": results["dataset"], "split": results["split"]}
    return {
        "task": {"type": "image-segmentation"},
        "dataset": dataset,
        "metrics": [
            {"type": METRICS.get(metric, metric), "name": title_of(metric), "value": value}
            for metric, value in scores.items()
        ],
    }


def _table(results: dict[str, Any] | None, scores: dict[str, float]) -> list[str]:
    if results is None or not scores:
        return ["Not evaluated, or not this checkpoint."]
    lines = [f"| {title_of(metric)} | {100 * value:.2f} |" for metric, value in scores.items()]
    place = f"`{results['dataset']}`, split `{results['split']}`"
    return [
        f"On {place}, protocol `{results['protocol'].get('inference', '-')}`, in percent:",
        "\n".join(["| metric | value |", "|---|---:|", *lines]),
    ]


def _network(config: dict[str, Any]) -> str:
    node = config["architecture"]
    backbone = node["backbone"].get("name", node["backbone"]["_target_"].rpartition(".")[2])
    return f"{node['_target_'].rpartition('.')[2]} on `{backbone}`"


def _use(kind: str | None, task: str) -> str:
    own = (
        '```python\nimport segtrain\n\npredictor = segtrain.load("hf:<owner>/<name>")\n'
        f"{SHOWN[task]}\n```"
    )
    if kind is None:
        return own
    system = "Segformer" if kind == "segformer" else "UperNet"
    theirs = (
        f"```python\nfrom transformers import {system}ForSemanticSegmentation\n\n"
        f'model = {system}ForSemanticSegmentation.from_pretrained("<owner>/<name>")\n```'
    )
    notes = {
        "segformer": "transformers computes layer norms with an epsilon of 1e-5; where "
        "`norm_epsilon` in `config.json` is another, its last digits differ."
    }
    return "\n\n".join([own, "Or with transformers:", theirs, *notes.get(kind, "").splitlines()])


def _origin(config: dict[str, Any], published: str | None) -> str:
    """Whose licences the weights are under; files of the user's by their names alone."""
    backbone = config["architecture"]["backbone"]
    if published is not None:
        known = f" ({find(published).licence})" if is_row(published) else ""
        return f"Those of `{_shown(published)}`, whose licence holds{known}."
    started = config.get("weights") or backbone.get("weights")
    if started in (None, "none"):
        return "Trained from random weights."
    text = f"Trained from the weights `{_shown(started)}`, whose licence holds for these too."
    if started == "imagenet" and backbone.get("name", "").startswith("mit_"):
        text += " NVIDIA's weights of Mix Transformers are for non-commercial research only."
    return text


def _shown(weights: str) -> str:
    return weights if is_published(weights) else Path(weights).name
