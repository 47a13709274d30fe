"""PURE: the policies that a cycle is made of: order, fairness, backfill; each a frozen dataclass of settings and functions."""
