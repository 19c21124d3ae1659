# %% [markdown]
# # Two machines side by side
#
# The same suite, on an AMD EPYC and on an Intel Xeon, two cores each, fp32 at batch 8. Both runs are
# committed as they came. They are not of one commit of flopbench, and other work went on beside them, as
# their flags say: read the figures for how machines are compared, not for which processor to buy.

# %% load
import flopbench

both = flopbench.load_run("../results/speed-cpu-20261125-080103", "../results/speed-cpu-20261125-091630")
for answer in both.answers:
    print(answer.in_short.split("\n")[0])

# %% [markdown]
# Between machines the times themselves say little; MACs, parameters and the speed-up of a pair that was
# measured side by side can be compared. Each column is one machine:

# %% table
frame = both.frame()
names = ["candidate_label", "pass", "mode"]
print(frame.pivot_table(index=names, columns="device_name", values="speedup").round(2))

# %% picture
both.plot()
