"""Photographs over HTTP: the service, its processes and its page."""
