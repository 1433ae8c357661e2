"""`suspend PROCESS`: nothing new of it is started until it is resumed; its periods go on."""

from __future__ import annotations

from commands.operate import process_verb

add_arguments, run = process_verb("suspend")
