"""Measurements: paired, interleaved, in one process. Each table in the docs names the command here that makes it."""
