"""What a population would take before any of it is run: operations, bytes, memory, hours, machines."""
