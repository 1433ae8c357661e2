"""Benchmarks: what the design costs on this machine, beside the floor. Nothing here is asserted by a test."""
