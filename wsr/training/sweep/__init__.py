"""A sweep: a list of units of work on one store, and three ways to run it: in this process, a static share, Ray."""
