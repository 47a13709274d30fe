"""Adapters of the store port; ``memory`` is the oracle that the others are held against."""
