"""The scheduler: a pure core (`scheduler.core`) and the shell of engine, daemon and listener around it."""
