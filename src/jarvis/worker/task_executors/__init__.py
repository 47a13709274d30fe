"""Adapters of the executor port: processes, functions, containers."""
