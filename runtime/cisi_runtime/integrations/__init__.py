"""CISI-net inside programs of others."""
