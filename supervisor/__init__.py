"""The supervisor: keeps the processes of one box running. `plan` decides, `os_process` acts, `supervisor` loops."""
