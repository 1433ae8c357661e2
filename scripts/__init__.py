"""What helps to develop and to set up this project; nothing here runs inside it."""
