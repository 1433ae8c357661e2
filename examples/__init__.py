"""Projects that show how Synergy Scheduler is used; nothing of the scheduler imports them."""
