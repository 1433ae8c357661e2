"""The pure core: what happens next is decided here, from arguments alone.

No I/O, no clock, no randomness, no threads, nothing of ours imported from outside this folder.
A test (`tests/unit/test_architecture.py`) keeps it so.
"""
