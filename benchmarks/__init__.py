"""What `ares-eval` costs, measured on its whole process tree against the loopback server."""
