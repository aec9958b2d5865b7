"""What is measured, the most valuable first. Nothing heavy is imported here."""

from benchmarks.gpu.cell import Part

HERE = "benchmarks.gpu.parts"
PARTS = (
    Part("smoke", "does it run, exactly and without waiting", 2.5, f"{HERE}.smoke"),
    Part("loss", "the fused loss against the others", 1.5, f"{HERE}.loss"),
    Part("step", "a training step, beside the same network elsewhere", 6, f"{HERE}.step"),
    Part("feed", "what the loader delivers", 2, f"{HERE}.feed"),
    Part("all", "all eleven systems at their recipes' crop and batch", 3, f"{HERE}.systems"),
    Part("inference", "tests and predictions, beside the peers", 2, f"{HERE}.inference"),
    Part("evaluate", "what of an evaluation is not the network", 1, f"{HERE}.evaluate"),
    Part("export", "exported networks against eager", 1.5, f"{HERE}.export"),
    Part("camvid", "the CamVid recipe to its end", 4, f"{HERE}.camvid"),
    Part("nccl", "several processes", 1, f"{HERE}.nccl"),
)
