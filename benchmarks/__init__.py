"""What makes `docs/BENCHMARKS.md`: measurements, predictions and the page. Part of the repository, not of the wheel."""
