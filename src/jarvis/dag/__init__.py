"""Workflows: what may be submitted, what may run next, and what follows from what has ended. Pure."""
