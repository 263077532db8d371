"""Photographs of any size, inpainted: windows, padding, blending."""
