"""One file for each verb of the command line. It reads from top to bottom as the experiment that it runs."""
