"""Sweeps: units of work on one store, and three ways to run them (in this process, as a share, on Ray)."""
