"""Recorded workloads through the real engine: readers of published formats, a clock that is set, workers that only count."""
