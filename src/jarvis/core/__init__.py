"""The words and rules that everything shares: pure code, no clock, randomness, I/O, logging or ``async``."""
