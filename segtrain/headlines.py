"""The metric of each task that chooses checkpoints and by which runs are compared."""

HEADLINES = {
    "semantic": "miou",
    "multilabel": "miou",
    "panoptic": "pq",
    "instance": "ap",
    "proposal": "ar1000",
}
TITLES = {"miou": "mIoU", "pq": "PQ", "ap": "AP", "ar1000": "AR@1000"}
