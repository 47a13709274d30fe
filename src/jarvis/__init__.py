"""Jarvis: an intelligent cluster manager in Python."""

__version__ = "0.1.0"
