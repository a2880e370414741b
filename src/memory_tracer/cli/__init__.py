"""The command line: ``main`` and one module per verb, loaded when its verb is typed."""
