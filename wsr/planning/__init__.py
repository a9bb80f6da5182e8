"""Estimates what a population would take before anything runs: operations, bytes, memory, hours and machines."""
