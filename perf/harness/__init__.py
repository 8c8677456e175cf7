"""The parts of perf/run: cases -> cores -> runs (and cold, peers) -> report."""
