"""One file per verb of the command line; each reads top to bottom as the experiment it runs."""
