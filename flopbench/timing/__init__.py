"""Honest timing: workloads, clocks, the sampling of a pair, memory, device state, statistics."""
