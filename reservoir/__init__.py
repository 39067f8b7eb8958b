"""Izhikevich reservoirs that learn what comes, when, and with what probability. Nothing is here yet."""
