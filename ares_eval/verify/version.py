"""The verifier's version: recorded with every verdict, raised whenever a verdict can change."""

VERIFIER_VERSION = "1.1"
