"""Has anything become worse? Comparing runs, gating changes, and the figures over time."""
