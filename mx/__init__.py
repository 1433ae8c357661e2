"""The dashboard and its API: reads the store, submits commands, and never decides anything."""
