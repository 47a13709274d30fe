"""Simulation: the real scheduler, store, gateway and node logic on virtual time, with seeded faults and a judge."""
