"""Launchers: one short file a study."""
