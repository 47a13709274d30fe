"""Durable truth: the store port and its adapters, and the services above them."""
