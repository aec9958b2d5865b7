"""Run by torchrun: evaluates a checkpoint and saves the matrix and metrics of all processes."""

import json
import os
import sys
from pathlib import Path

import torch

from segtrain.assembly import build_data, build_task
from segtrain.cli.evaluate import evaluate_checkpoint, stored_config

checkpoint, output = Path(sys.argv[1]), sys.argv[2]
config, _ = stored_config(checkpoint)
config["trainer"]["devices"] = int(os.environ["LOCAL_WORLD_SIZE"])
data = build_data(config)
task = build_task(config, data.labels)
evaluate_checkpoint(config, data, task, checkpoint, Path.cwd())
Path(f"metrics.{os.environ['RANK']}").write_text(json.dumps(task.metrics))
matrix = task.evaluation.matrix.compute()
if os.environ["RANK"] == "0":
    torch.save(matrix, output)
