"""Photographs and masks: reading, writing, resizing, metadata, drawing."""
