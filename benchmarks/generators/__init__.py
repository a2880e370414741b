"""How much of what real code generators say they generated is in the capture."""
