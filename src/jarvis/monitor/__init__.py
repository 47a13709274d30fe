"""Heartbeats, metrics, health and alerting."""
