"""Deciding what runs where: a pure core (reactor, cycle, queue, balancer, explain) and the leader's shell around it."""
