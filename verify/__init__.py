"""Verify: every interleaving of a small timetable, explored with the shipped engine, core and worker rules.

`shape` says what is explored (which processes, periods, instants, and how much may go wrong on a path), `memory`
is the store that holds one state, `fold` makes states that differ in nothing that matters one, `turns` runs the
shipped engine and the shipped worker changes on a state, `rules` checks what one commit did, `explore` walks
breadth first, and `story` tells the way to a broken invariant. The command is `launch.py verify`.
"""
