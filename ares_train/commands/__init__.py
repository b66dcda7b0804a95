"""The commands of `ares-train`, one module each."""
