"""Speculative decoding, small enough to read and exact enough to trust."""
