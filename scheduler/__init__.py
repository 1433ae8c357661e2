"""The scheduler: a pure core (`scheduler.core`) and the shell of engine, inbox, timers and listener around it."""
