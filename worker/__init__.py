"""The worker runtime: what accepts units of work, executes them in child processes, and reports.

It imports the core and nothing else of ours; store, broker and clock are given to it.
"""
