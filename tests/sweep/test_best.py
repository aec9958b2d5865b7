"""Overrides as an experiment file."""

from hydra.core.override_parser.overrides_parser import OverridesParser

from segtrain.sweep.best import experiment


class Groups:
    """Two configuration groups."""

    def get_group_options(self, group, results_filter):
        return {"optimizer": ["adamw_poly"], "callback": ["ema", "images"]}.get(group, [])


def test_experiment_of_overrides():
    overrides = [
        "experiment=quickstart", "optimizer=adamw_poly", "callback=[ema,images]",
        "optimizer.lr=0.1", "+optimizer.more={a: 'x y', b: [1, null]}", "hydra.verbose=true",
        "sweep=optuna", "sweep.trials=3", "~dataset.transform.jitter", "name='a,b'",
    ]  # fmt: skip
    content, lost = experiment(OverridesParser.create().parse_overrides(overrides), Groups())
    assert content == {
        "defaults": ["quickstart", "_self_", {"override /optimizer": "adamw_poly"},
                     {"override /callback": ["ema", "images"]}],
        "optimizer": {"lr": 0.1, "more": {"a": "x y", "b": [1, None]}},
        "name": "a,b",
    }  # fmt: skip
    assert lost == ["~dataset.transform.jitter"]
