"""The verifier's version: recorded with every verdict, part of every cache key, raised whenever a verdict can change."""

VERIFIER_VERSION = "1.0"
