# %% [markdown]
# # Reading a run into pandas
#
# A run is a folder of raw samples. This one is committed: ViT-S and ViT-B against their equivariant twins
# on a two-core CPU.

# %% load
import matplotlib.pyplot as plt

import flopbench

run = flopbench.load_run("../results/vit-cpu-20261127-041710")
frame = run.frame()
print(frame[["candidate_label", "mode", "impl", "batch_size", "speedup"]].head().round(2))

# %% [markdown]
# One row per cell, with intervals, MACs, memory and flags: the rest is pandas. The geometric mean of the
# speed-ups, by what the networks ran as:

# %% group
kinds = frame.groupby(["candidate_label", "mode", "impl"])
means = kinds["speedup"].agg(lambda values: values.prod() ** (1 / values.count()))
print(means.unstack("candidate_label").round(2))

# %% [markdown]
# A figure of one's own: forward at batch 4, by what the networks ran as.

# %% figure
forward = frame[(frame["pass"] == "forward") & (frame["batch_size"] == 4)]
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for (mode, impl), cells in forward.groupby(["mode", "impl"]):
    errors = [cells["speedup"] - cells["speedup_low"], cells["speedup_high"] - cells["speedup"]]
    axes.errorbar(cells["candidate_label"], cells["speedup"], errors, fmt="o", label=f"{mode}, {impl}")
axes.axhline(1, color="grey", linewidth=1)
axes.set(ylabel="speed-up", title="Forward, batch 4")
axes.legend()
plt.close(figure)
figure
