"""The supervisor: the small process on every node that is the parent of all tasks.

It uses the standard library only and imports nothing else of Jarvis, so that an upgrade or a crash of the rest never
touches a running task. `protocol.py` describes what it says to the agent; `docs` in each module say why, not what.
"""
